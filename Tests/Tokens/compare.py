"""What equality.py and fuzz.py share: is a text's answer ours, and the shortest text whose answer is not."""

from typing import Callable

from ours import Failed, Live, Ours
from references import Reference, Unanswered


class Judge:
    """Asks both about one text at a time, and starts our process anew where a text ended it."""

    def __init__(self, ours: Ours, reference: Reference):
        self.ours, self.reference = ours, reference
        self.live: Live | None = None

    def encode(self, texts: list[bytes]) -> list[list[int]]:
        self.live = self.live or Live(self.ours)
        try:
            return self.live.encode(texts)
        except Failed:
            self.close()
            raise

    def differs(self, text: bytes) -> bool:
        try:
            return self.encode([text])[0] != self.reference.encode(text)
        except Unanswered:
            return False
        except Failed:
            return True

    def report(self, name: str, text: bytes) -> str:
        """`text` shrunk, and both answers, on one line."""
        short = shrunk(text, self.differs)
        try:
            return described(name, short, self.encode([short])[0], self.reference.encode(short))
        except (Failed, Unanswered) as error:
            return f"{name}: text hex {short[:400].hex()}: {error}"

    def close(self) -> None:
        if self.live:
            self.live.close()
            self.live = None


def shrunk(text: bytes, still: Callable[[bytes], bool], tries: int = 300) -> bytes:
    """The shortest text found for which `still` holds: ends first, by halves, then what is between."""
    part = len(text) // 2
    while part > 0 and tries > 0:
        changed = False
        at = 0
        # Both ends at every size; the middle once pieces are small enough for their number.
        starts = [0, max(0, len(text) - part)] if len(text) // part > 16 else None
        while tries > 0 and (starts or (starts is None and at < len(text))):
            at = starts.pop() if starts is not None else at
            shorter = text[:at] + text[at + part :]
            tries -= 1
            if len(shorter) < len(text) and still(shorter):
                text, changed = shorter, True
            elif starts is None:
                at += part
        if not changed:
            part //= 2
    return text


def described(name: str, text: bytes, ours: list[int], expected: list[int]) -> str:
    """One line, to be run again: no more of the text than its own hexadecimal."""
    at = next((i for i, (a, b) in enumerate(zip(ours, expected)) if a != b), min(len(ours), len(expected)))

    def around(ids: list[int]) -> str:
        low = max(0, at - 2)
        return f"{'…' if low else ''}{ids[low : at + 8]}{'…' if at + 8 < len(ids) else ''}"

    shown = text.hex() if len(text) <= 200 else f"{text[:100].hex()}…{text[-100:].hex()} ({len(text)} bytes)"
    return f"{name}: text hex {shown} {text[:60]!r}: at id {at} ours {around(ours)} reference {around(expected)}"
