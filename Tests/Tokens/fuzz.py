"""Differential fuzzing:
`fuzz.py --binary PATH --vocabularies DIR --corpus DIR [--seconds N] [--seed S] [--valid] [--only NAME...]`.

Pieces of the corpus, mutated, and strings over hostile alphabets go through one process of ours for each vocabulary
and through its reference. The seed of a round makes its texts again: it is printed with what it found. Every
difference is shrunk and shown; the exit is 1 if there was any.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import sys
import time

import texts
from compare import Judge
from corpus import documents
from ours import Failed, Ours
from references import Unanswered, listed, reference

TEXTS_PER_ROUND = 200
SHOWN_MAX = 10


def mutated(generator: random.Random, corpus: list[bytes]) -> bytes:
    """A piece of the corpus with a few pieces replaced, repeated, taken out or put in."""

    def piece(length_max: int) -> bytes:
        whole = generator.choice(corpus)
        at = generator.randrange(len(whole) or 1)
        return whole[at : at + int(length_max ** generator.random())]

    text = bytearray(piece(3000))
    for _ in range(generator.choice((0, 1, 2, 5, 20))):
        at = generator.randrange(len(text) + 1)
        length = generator.choice((0, 1, 1, 2, 4, 30))
        kind = generator.randrange(5)
        if kind == 0:
            text[at : at + length] = piece(40)
        elif kind == 1:
            text[at:at] = text[at : at + length] * generator.randint(1, 5)
        elif kind == 2:
            del text[at : at + length]
        elif kind == 3:
            text[at:at] = generator.choice(texts.HOSTILE).encode() * generator.choice((1, 1, 2, 3, 9))
        else:
            text[at:at] = texts.any_unicode(generator, generator.randint(1, 4)).encode()
    return bytes(text)


def text(generator: random.Random, corpus: list[bytes]) -> bytes:
    kind = generator.randrange(10)
    if kind <= 3:
        made = mutated(generator, corpus)
        # Cut anywhere it is seldom valid: half of them are mended.
        return made if generator.random() < 0.5 else made.decode(errors="ignore").encode()
    if kind <= 6:
        return texts.hostile(generator, generator.choice((2, 5, 12, 40, 200))).encode()
    if kind == 7:
        return texts.any_unicode(generator, generator.choice((2, 8, 60))).encode()
    if kind == 8:
        return generator.choice((texts.marked, texts.emoji))(generator, generator.choice((3, 12, 80))).encode()
    return texts.damaged(generator, texts.hostile(generator, generator.choice((2, 8, 40))).encode())


def fuzz_round(judge: Judge, name: str, seed: str, corpus: list[bytes], valid: bool) -> tuple[int, int]:
    """(bytes compared, differences) of a round, whose texts its seed makes again."""
    generator = random.Random(seed)
    made = [text(generator, corpus) for _ in range(TEXTS_PER_ROUND)]
    if valid:
        made = [each.decode(errors="ignore").encode() for each in made]
    try:
        answers = judge.encode(made)
    except Failed as error:
        print(f"{name}: round {seed}: {error}", flush=True)
        found = [each for each in made if judge.differs(each)]
        for each in found[:1]:
            print(judge.report(name, each), flush=True)
        return 0, max(1, len(found))
    compared = differences = 0
    for each, answer in zip(made, answers):
        try:
            expected = judge.reference.encode(each)
        except Unanswered:
            continue
        compared += len(each)
        if answer != expected:
            differences += 1
            if differences <= SHOWN_MAX:
                print(f"round {seed}: {judge.report(name, each)}", flush=True)
    return compared, differences


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", required=True, help="a release build of tollgate")
    arguments.add_argument("--vocabularies", type=pathlib.Path, required=True, help="made by vocabularies.py")
    arguments.add_argument("--corpus", type=pathlib.Path, required=True, help="made by corpus.py")
    arguments.add_argument("--only", nargs="*", help="files of the vocabularies; all if not said")
    arguments.add_argument("--valid", action="store_true", help="nothing but valid UTF-8")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    options = arguments.parse_args()
    print(f"seed {options.seed}", flush=True)
    corpus = [content for _, content in documents(options.corpus) if content]
    judges = {}
    for entry in listed(options.vocabularies):
        name = entry["file"]
        if entry["format"] == "sentencepiece" or (options.only and name not in options.only):
            continue
        ours = Ours(options.binary, options.vocabularies / name, entry["pattern"])
        judges[name] = Judge(ours, reference(options.vocabularies, entry))
    results = {name: [0, 0, 0] for name in judges}
    # All are started before the time runs: a debug build takes its time over a file.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = {name: pool.submit(judge.encode, [b"a"]) for name, judge in judges.items()}
    for name, start in starts.items():
        if start.exception():
            print(f"{name}: {start.exception()}", flush=True)
    ends = time.monotonic() + options.seconds
    round = 0
    while judges and time.monotonic() < ends:
        for name, judge in list(judges.items()):
            compared, differences = fuzz_round(judge, name, f"{options.seed}/{round}/{name}", corpus, options.valid)
            result = results[name]
            results[name] = [result[0] + TEXTS_PER_ROUND, result[1] + compared, result[2] + differences]
            if results[name][2] > SHOWN_MAX:
                print(f"{name}: no more of it: {results[name][2]} differences", flush=True)
                judges.pop(name).close()
        round += 1
    for judge in judges.values():
        judge.close()
    print("| vocabulary | texts | bytes | differences |\n|---|--:|--:|--:|")
    for name, figures in results.items():
        print(f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    failed = sum(differences > 0 for _, _, differences in results.values())
    texts_made = sum(figures[0] for figures in results.values())
    print(f"{len(results) - failed} passed, {failed} failed: {texts_made:,} texts fuzzed, seed {options.seed}")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
