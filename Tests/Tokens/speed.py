"""Speed of our tokenizer beside the references', in one interleaved run of one thread:
`speed.py --binary PATH --vocabularies DIR --corpus DIR [--rounds 7]`.

In every round each of them encodes the same text once after the other; a figure is the median of the rounds. Time is
the thread's CPU time. Ours starts every round with an empty cache of pieces, as tiktoken has none; the cache of
`tokenizers` stays warm over rounds, as it cannot be emptied. MB are 10^6 bytes. Prints a table in Markdown.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

# Before the library is loaded, which reads it.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from corpus import documents  # noqa: E402
from ours import Live, Ours  # noqa: E402
from references import Reference, listed, reference  # noqa: E402

TEXT_BYTES_MAX = 2_000_000
# A figure of ours is itself the median of three encodings, or of as many as fit into this.
BENCH = ("--bench", "0.02")
SECONDS_MAX = 120
# Vocabulary, and the one of the same rules for the other library.
PAIRS = [
    ("cl100k_base.tiktoken", "llama3.json"),
    ("o200k_base.tiktoken", "gpt-oss.json"),
    ("qwen.tiktoken", "qwen2.json"),
]
PAIRS += [("p50k_base.tiktoken", "gpt2.json"), (None, "gemma3.json"), (None, "mistral-v3-prepend.json")]
KINDS = {"English prose": ["english"], "code": ["code"], "Chinese, Japanese": ["cjk"], "ninety languages": ["prose"]}
KINDS["mixed"] = ["json", "salad", "hostile", "emoji", "prose", "code", "english"]


def text(kinds: list[str], corpus: list[tuple[str, bytes]]) -> bytes:
    """Documents of the kinds in turn, valid and of two megabytes at most: as much as there is."""
    if kinds == ["cjk"]:
        chosen = [[content for _, content in corpus if is_cjk(content)]]
    else:
        chosen = [[content for name, content in corpus if name.split("/")[0] == kind] for kind in kinds]
    each = TEXT_BYTES_MAX // len(chosen)
    return b"\n".join(b"\n".join(contents)[:each].decode(errors="ignore").encode() for contents in chosen)


def is_cjk(content: bytes) -> bool:
    """Prose in Chinese and Japanese: more than a fifth of its letters from their blocks."""
    letters = content[:6000].decode(errors="ignore")
    return 5 * sum("\u3040" <= letter <= "\u9fff" for letter in letters) > len(letters) > 100


def ours_speed(live: Live, content: bytes) -> tuple[float, float, int]:
    """(encode, count, tokens)."""
    figures = live.bench(content, SECONDS_MAX)
    if figures is None:
        sys.exit(f"no answer within {SECONDS_MAX} seconds")
    return figures["encode_megabytes_per_second"], figures["count_megabytes_per_second"], figures["tokens"]


def reference_speed(judge, content: bytes) -> tuple[float, int]:
    started = time.thread_time()
    ids = judge.encode(content)
    return len(content) / 1e6 / (time.thread_time() - started), len(ids)


def rounds(count_of: int, contestants: dict[str, tuple[Reference, Live, Live]], content: bytes) -> dict[str, float]:
    """Medians by what was measured of whom."""
    figures: dict[str, list[float]] = {}
    for _ in range(count_of):
        for name, (judge, cold, warm) in contestants.items():
            speed, tokens = reference_speed(judge, content)
            figures.setdefault(f"reference {name}", []).append(speed)
            encode, count, found = ours_speed(cold, content)
            if found != tokens:
                sys.exit(f"{name}: {found} tokens, the reference has {tokens}: nothing to compare")
            figures.setdefault(f"encode {name}", []).append(encode)
            figures.setdefault(f"count {name}", []).append(count)
            encode, count, _ = ours_speed(warm, content)
            figures.setdefault(f"warm encode {name}", []).append(encode)
            figures.setdefault(f"warm count {name}", []).append(count)
    return {what: statistics.median(values) for what, values in figures.items()}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", required=True, help="a release build of tollgate")
    arguments.add_argument("--vocabularies", type=pathlib.Path, required=True, help="made by vocabularies.py")
    arguments.add_argument("--corpus", type=pathlib.Path, required=True, help="made by corpus.py, full")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--only", nargs="*", help="files of the vocabularies; all if not said")
    options = arguments.parse_args()
    corpus = documents(options.corpus)
    entries = {entry["file"]: entry for entry in listed(options.vocabularies)}
    print("| vocabulary | text | MB | reference, MB/s | encode | count | encode x | count x | warm encode | warm count |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for pair in PAIRS:
        names = [name for name in pair if name and (not options.only or name in options.only)]
        contestants = {}
        for name in names:
            ours = Ours(options.binary, options.vocabularies / name, entries[name]["pattern"])
            lives = Live(ours, ("--cold", *BENCH)), Live(ours, BENCH)
            contestants[name] = reference(options.vocabularies, entries[name]), *lives
        for title, kinds in KINDS.items() if names else ():
            content = text(kinds, corpus)
            figures = rounds(options.rounds, contestants, content)
            for name in names:
                theirs = figures[f"reference {name}"]
                encode, count = figures[f"encode {name}"], figures[f"count {name}"]
                cells = [
                    name,
                    title,
                    f"{len(content) / 1e6:.2f}",
                    f"{contestants[name][0].name}: {theirs:.1f}",
                    f"{encode:.1f}",
                ]
                cells += [f"{count:.1f}", f"{encode / theirs:.1f} x", f"{count / theirs:.1f} x"]
                cells += [f"{figures[f'warm encode {name}']:.1f}", f"{figures[f'warm count {name}']:.1f}"]
                print(f"| {' | '.join(cells)} |", flush=True)
        for _, cold, warm in contestants.values():
            cold.close()
            warm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
