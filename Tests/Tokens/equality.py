"""Holds our ids and counts against the references', vocabulary by vocabulary, on the whole corpus:
`equality.py --binary PATH --vocabularies DIR --corpus DIR [--answers DIR] [--only NAME...] [--bytes N]`.

Every document is asked whole, and cut at random places into messages of the size of a chat's; with `--bytes` a sample
of so many, as many of each kind. Prints a table; every text that differs is shrunk and shown, and the exit is 1. So it
is where a vocabulary of the manifest is not loaded. With `--answers` a digest of what the references said is kept, by
version, vocabulary and text: they are the slow part.
"""

import argparse
import array
import concurrent.futures
import hashlib
import pathlib
import random
import struct
import sys
import time

from compare import Judge
from corpus import SEED, documents
from ours import Failed, Ours
from references import Reference, Unanswered, listed, reference

# Mismatches that are shrunk and shown for each vocabulary; the rest is only counted.
SHOWN_MAX = 8


def messages(seed: int, texts: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Pieces of 1 to 4,000 bytes, three in four of them cut between characters, the rest anywhere."""
    generator = random.Random(f"{seed} messages")
    cut = []
    for name, text in texts:
        at = 0
        while at < len(text):
            end = min(len(text), at + int(4000 ** generator.random()))
            if generator.random() < 0.75:
                while end < len(text) and text[end] & 0xC0 == 0x80:
                    end += 1
            cut.append((f"{name}[{at}:{end}]", text[at:end]))
            at = end
    return cut


def sample(seed: int, texts: list[tuple[str, bytes]], bytes_max: int) -> list[tuple[str, bytes]]:
    """Texts by lot, as many bytes of each kind of document."""
    kinds: dict[str, list[tuple[str, bytes]]] = {}
    for text in texts:
        kinds.setdefault(text[0].split("/")[0], []).append(text)
    chosen = []
    for kind, found in kinds.items():
        left = bytes_max // len(kinds)
        for text in random.Random(f"{seed} sample {kind}").sample(found, len(found)):
            if left <= 0:
                break
            chosen.append(text)
            left -= len(text[1])
    return chosen


class Answers:
    """How many ids the reference has for each text, and a digest of them: computed once, kept in a file."""

    RECORD = struct.Struct("<I16s")
    UNANSWERED = (0xFFFF_FFFF, bytes(16))

    def __init__(self, folder: pathlib.Path | None, vocabulary: str, judge: Reference, texts: list[bytes]):
        key = hashlib.sha256(f"{vocabulary} {judge.name} {len(texts)} ".encode())
        for text in texts:
            key.update(hashlib.sha256(text).digest())
        self.file = folder / f"{key.hexdigest()[:32]}.answers" if folder else None
        if self.file and self.file.exists():
            self.records = list(self.RECORD.iter_unpack(self.file.read_bytes()))
            return
        self.records = [self.ask(judge, text) for text in texts]
        if self.file:
            folder.mkdir(parents=True, exist_ok=True)
            part = self.file.with_suffix(".part")
            part.write_bytes(b"".join(self.RECORD.pack(*record) for record in self.records))
            part.rename(self.file)

    def ask(self, judge: Reference, text: bytes) -> tuple[int, bytes]:
        try:
            return digest(judge.encode(text))
        except Unanswered:
            return self.UNANSWERED


def digest(ids: list[int]) -> tuple[int, bytes]:
    return len(ids), hashlib.blake2b(array.array("I", ids).tobytes(), digest_size=16).digest()


def compare(
    ours: Ours, reference: Reference, answers: Answers, name: str, texts: list[tuple[str, bytes]]
) -> dict[str, int]:
    contents = [text for _, text in texts]
    # A debug build takes its time over a file: both at once.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(ours.encode, contents), pool.submit(ours.count, contents)
        ids, counts = (each.result() for each in waiting)
    judge = Judge(ours, reference)
    result = {"texts": len(texts), "bytes": 0, "mismatches": 0, "unanswered": 0, "tokens": 0}
    for (where, text), found, count, expected in zip(texts, ids, counts, answers.records):
        if expected == Answers.UNANSWERED:
            result["unanswered"] += 1
            continue
        result["bytes"] += len(text)
        result["tokens"] += expected[0]
        if digest(found) == expected and count == expected[0]:
            continue
        result["mismatches"] += 1
        if result["mismatches"] > SHOWN_MAX:
            continue
        if digest(found) == expected:
            print(f"{name}: {where}: count {count}, but {expected[0]} ids: text hex {text[:400].hex()}", flush=True)
            continue
        print(f"{where}: {judge.report(name, text)}", flush=True)
    judge.close()
    return result


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", required=True, help="a release build of tollgate")
    arguments.add_argument("--vocabularies", type=pathlib.Path, required=True, help="made by vocabularies.py")
    arguments.add_argument("--corpus", type=pathlib.Path, required=True, help="made by corpus.py")
    arguments.add_argument("--answers", type=pathlib.Path, help="where the references' answers are kept")
    arguments.add_argument("--only", nargs="*", help="files of the vocabularies; all if not said")
    arguments.add_argument("--bytes", type=int, help="a sample of so many; all if not said")
    arguments.add_argument("--seed", type=int, default=SEED)
    options = arguments.parse_args()
    whole = documents(options.corpus)
    texts = whole + messages(options.seed, whole)
    texts = sample(options.seed, texts, options.bytes) if options.bytes else texts
    rows, passed, failed = [], 0, 0
    for entry in listed(options.vocabularies):
        name = entry["file"]
        if entry["format"] == "sentencepiece" or (options.only and name not in options.only):
            continue
        started = time.monotonic()
        judge = reference(options.vocabularies, entry)
        ours = Ours(options.binary, options.vocabularies / name, entry["pattern"])
        try:
            answers = Answers(options.answers, entry["sha256"], judge, [text for _, text in texts])
            result = compare(ours, judge, answers, name, texts)
        except Failed as error:
            print(error, flush=True)
            result = {"texts": 0, "bytes": 0, "mismatches": 1, "unanswered": 0, "tokens": 0}
        failed, passed = failed + (result["mismatches"] > 0), passed + (result["mismatches"] == 0)
        rows.append((name, judge.name, result))
        print(f"{name}: {result} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print("| vocabulary | reference | bytes compared | texts | tokens | mismatches | reference failed |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, judge, result in rows:
        figures = (result[key] for key in ("bytes", "texts", "tokens", "mismatches", "unanswered"))
        print(f"| {name} | {judge} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    libraries = ", ".join(sorted({judge for _, judge, _ in rows}))
    compared = sum(result["bytes"] for _, _, result in rows)
    print(
        f"{passed} passed, {failed} failed: ids and counts of {len(rows)} vocabularies against {libraries}; "
        f"{len(texts):,} texts each, {compared / 1e6:.1f} MB in all"
    )
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
