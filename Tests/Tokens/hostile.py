"""Time of our tokenizer on what others go quadratic on:
`hostile.py --binary PATH --vocabularies DIR [--size small|full] [--reference]`.

Each text is encoded and counted at four sizes, each four times the one before: on average of these steps the CPU time
of the one thread may grow by no more than six times. Linear is four; the rest is for caches, which a megabyte of one
piece leaves, and for heaps (n log n); a quadratic rule would show sixteen. tiktoken beside it at the two smallest, each
under a limit of time, says what it is that is avoided. Prints a table of MB/s; the exit is 1 where growth was worse.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import time

from ours import Live, Ours
from references import listed, reference

KIB = 1024
# Not less: the processor learns 16 KiB of random bytes by heart, branch by branch, when they are encoded repeatedly.
SIZES = {"small": [64 * KIB, 256 * KIB, 1024 * KIB], "full": [64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB]}
STEP, GROWTH_MAX = 4, 1.5
# Seconds that a text may take us, and tiktoken.
OURS_MAX, REFERENCE_MAX = 120, 20
# Shorter than this a round is noise: milliseconds.
NOISE = 0.2e-3
UNITS = {
    "one letter": "a", "spaces": " ", "newlines": "\n", "tabs and spaces": "\t ", "combining marks": "\u0301",
    "aA": "aA", "digits": "7", "emoji": "👍", "ZWJ emoji": "👩\u200d", " a": " a", "'s": "'s", "!": "!", "CR LF": "\r\n",
    "Han": "字", "Hangul jamo": "\u1100\u1161", "NBSP": "\xa0", "marked letters": "a\u0327\u0301", "<|": "<|", "▁": "▁",
    "long first alternative": "Aa1", "o200k upper": "A", "lower then newline": "a\n",
}  # fmt: skip
# One of each pre-tokenizer, normalizer and way to merge.
VOCABULARIES = ["cl100k_base.tiktoken", "o200k_base.tiktoken", "tekken_240911.json", "gpt2.json", "llama3.json"]
VOCABULARIES += ["qwen2.json", "gemma3.json", "mistral-v3-prepend.json"]


def content(name: str, size: int) -> bytes:
    if name == "random letters":
        # One piece in every pattern, no two tokens of it alike.
        return "".join(random.Random(size).choices("abcdefghijklmnopqrstuvwxyz", k=size)).encode()
    if name == "random bytes":
        return random.Random(size).randbytes(size)
    if name == "starters out of order":
        # Marks in falling order of class: a normal form sorts all of them.
        return ("a" + "\u0301" * (size // 4) + "\u0327" * (size // 4)).encode()[:size].decode(errors="ignore").encode()
    unit = UNITS[name].encode()
    return unit * (size // len(unit))


# Our processes, by vocabulary and seconds: a file is loaded once.
LIVE: dict[tuple[Ours, float], Live] = {}
NAMES = [*UNITS, "random letters", "random bytes", "starters out of order"]


def ours_seconds(ours: Ours, text: bytes, seconds: float) -> dict[str, float] | None:
    """Seconds by what was done; none where it took longer than the limit."""
    key = (ours, seconds)
    if key not in LIVE:
        LIVE[key] = Live(ours, ("--cold", "--bench", str(seconds)))
    figures = LIVE[key].bench(text, OURS_MAX)
    if figures is None:
        del LIVE[key]
        return None
    speeds = {what: figures[f"{what}_megabytes_per_second"] for what in ("encode", "count")}
    return {what: len(text) / 1e6 / speed for what, speed in speeds.items()}


def reference_seconds(folder: pathlib.Path, name: str, text: bytes) -> float | None:
    command = [sys.executable, __file__, "--one", str(folder), name]
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=REFERENCE_MAX)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout) if done.returncode == 0 else float("nan")


def one(folder: str, name: str) -> int:
    """In a process of its own, for it can neither be interrupted nor trusted with its stack."""
    entry = next(entry for entry in listed(pathlib.Path(folder)) if entry["file"] == name)
    judge, text = reference(pathlib.Path(folder), entry), sys.stdin.buffer.read()
    judge.encode(b"warm")
    started = time.process_time()
    judge.encode(text)
    print(time.process_time() - started)
    return 0


def speed(text_bytes: int, seconds: float | None) -> str:
    if seconds is None:
        return "too slow"
    return "failed" if seconds != seconds else f"{text_bytes / 1e6 / max(seconds, 1e-9):.3g}"


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        return one(*sys.argv[2:4])
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", required=True, help="a release build of tollgate")
    arguments.add_argument("--vocabularies", type=pathlib.Path, required=True, help="made by vocabularies.py")
    arguments.add_argument("--size", choices=tuple(SIZES), default="full")
    arguments.add_argument("--only", nargs="*", default=VOCABULARIES)
    arguments.add_argument("--texts", nargs="*", default=NAMES)
    arguments.add_argument("--reference", action="store_true", help="time the reference as well, at the two smallest")
    options = arguments.parse_args()
    sizes = SIZES[options.size]
    titles = [f"{size // KIB} KiB" for size in sizes]
    print("MB/s, encode / count | growth: of a step of four times the input, 1.0 is linear")
    heads = [*titles, "growth", *(f"reference {title}" for title in titles[:2] if options.reference)]
    print(f"| vocabulary | text | {' | '.join(heads)} |\n|---|---|{'--:|' * len(heads)}")
    failures = passes = 0
    for entry in listed(options.vocabularies):
        if entry["file"] not in options.only:
            continue
        ours = Ours(options.binary, options.vocabularies / entry["file"], entry["pattern"])
        for name in options.texts:
            texts = [content(name, size) for size in sizes]
            worst, times = measured(ours, texts, 0.02)
            if worst > GROWTH_MAX:
                # Once more, for longer: a neighbour's build is not our growth.
                worst, times = measured(ours, texts, 0.3)
            cells = [
                "too slow"
                if spent is None
                else f"{speed(len(text), spent['encode'])} / {speed(len(text), spent['count'])}"
                for text, spent in zip(texts, times)
            ]
            cells.append(f"{worst:.2f}{' WORSE' if worst > GROWTH_MAX else ''}")
            if options.reference:
                for text in texts[:2]:
                    cells.append(speed(len(text), reference_seconds(options.vocabularies, entry["file"], text)))
            print(f"| {entry['file']} | {name} | {' | '.join(cells)} |", flush=True)
            failures, passes = failures + (worst > GROWTH_MAX), passes + (worst <= GROWTH_MAX)
        while LIVE:
            LIVE.popitem()[1].close()
    print(f"{passes} passed, {failures} failed: growth of CPU time up to {sizes[-1] // KIB} KiB")
    return 1 if failures or not passes else 0


def measured(ours: Ours, texts: list[bytes], seconds: float) -> tuple[float, list[dict[str, float] | None]]:
    """The growth of a step on average, over its factor, of the worse of both; and the times of each text."""
    times = [ours_seconds(ours, text, seconds) for text in texts]
    if not all(times):
        return float("inf"), times
    steps = len(times) - 1
    growths = (times[-1][what] / max(times[0][what], NOISE) for what in ("encode", "count"))
    return max(growths) ** (1 / steps) / STEP, times


if __name__ == "__main__":
    sys.exit(main())
