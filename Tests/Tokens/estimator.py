"""How well tokens are estimated after 200 requests: `estimator.py --binary PATH --vocabularies DIR --packages DIR`.

For each vocabulary and kind of text a new estimator first learns from 200 texts of chat size, as a gateway does from the
usage that nodes report, and then, learning no more, says its number for 400 of other documents. Fails where the median
of the relative error is above five per cent. Prints a table in Markdown; figures in brackets are without learning.
"""

import argparse
import math
import pathlib
import random
import statistics
import sys
from typing import Iterable

from corpus import CODE, SEED, Sources, request
from ours import Ours
from packages import Packages

HERE = pathlib.Path(__file__).resolve().parent
LEARNED, HELD_BACK = 200, 400
TEXT_BYTES = (200, 20_000)
ERROR_MAX = 0.05
VOCABULARIES = [("cl100k_base.tiktoken", "cl100k"), ("o200k_base.tiktoken", "o200k"), ("qwen.tiktoken", "qwen2")]
VOCABULARIES += [("tekken_240911.json", ""), ("gemma3.json", "")]
KINDS = ("mixed", "English", "code", "Chinese", "Russian")
MIXED = ("English", "English", "code", "code", "Chinese", "Russian", "JSON", "others")
OTHERS = ("ar", "de", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt_BR", "tr")
# Catalogues are short: parts of this many characters are what documents are elsewhere.
PART = 1000


def halves(random: random.Random, documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """Documents to learn from, and those held back."""
    shuffled = list(documents)
    random.shuffle(shuffled)
    middle = len(shuffled) // 2
    return shuffled[:middle], shuffled[middle:]


def parts(text: str) -> list[str]:
    return [text[at : at + PART] for at in range(0, len(text), PART)]


class Texts:
    """- half: 0 of documents to learn from, 1 of those held back."""

    def __init__(self, sources: Sources, seed: int):
        self.random = random.Random(seed)
        self.sources = sources
        known = (name for name in sorted(sources.code) if name in CODE or name.startswith("django."))
        code = [text for name in known for text in sources.code[name]]
        self.pools = {"English": halves(self.random, sources.english), "code": halves(self.random, code)}
        for kind, languages in {"Chinese": ("zh_Hans", "zh_Hant"), "Russian": ("ru",)}.items():
            split = halves(self.random, [part for language in languages for part in parts(sources.prose[language])])
            self.pools[kind] = tuple(["".join(half)] for half in split)
        split = [halves(self.random, parts(sources.prose[language])) for language in OTHERS]
        self.pools["others"] = tuple(["".join(one[half]) for one in split] for half in (0, 1))

    def text(self, kind: str, half: int) -> bytes:
        """Sizes are spread evenly over their orders of magnitude; shorter where the document is."""
        size = int(math.exp(self.random.uniform(*map(math.log, TEXT_BYTES))))
        if kind == "mixed":
            kind = self.random.choice(MIXED)
        if kind == "JSON":
            content = b""
            while len(content) < size:
                content += request(self.random, self.sources, sorted(self.sources.prose)).encode() + b"\n"
        else:
            content = b""
            while len(content) < TEXT_BYTES[0]:
                content = self.random.choice(self.pools[kind][half]).encode()
        at = self.random.randrange(max(1, len(content) - size + 1))
        return content[at : at + size].decode(errors="ignore").encode()


def median_error(answers: Iterable[list[float]]) -> float:
    return statistics.median(abs(estimate / tokens - 1) for estimate, tokens, *_ in answers)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", required=True, help="a release build of tollgate")
    arguments.add_argument("--vocabularies", type=pathlib.Path, required=True, help="made by vocabularies.py")
    arguments.add_argument("--packages", type=pathlib.Path, required=True, help="where archives are kept")
    arguments.add_argument("--seed", type=int, default=SEED)
    options = arguments.parse_args()
    sources = Sources(Packages(options.packages, HERE / "corpus-packages.txt", sources=True))
    texts = Texts(sources, options.seed)
    sets = {kind: [texts.text(kind, int(at >= LEARNED)) for at in range(LEARNED + HELD_BACK)] for kind in KINDS}
    print(f"| vocabulary, seed {options.seed} | {' | '.join(KINDS)} |\n|---|{'--:|' * len(KINDS)}", flush=True)
    worst, timed = 0.0, []
    for file, pattern in VOCABULARIES:
        ours = Ours(options.binary, options.vocabularies / file, pattern)
        cells = []
        for kind, set in sets.items():
            errors = []
            for learned in (LEARNED, 0):
                # As one batch: the estimator is in the process.
                lines = ours.run(set, ["--estimate", str(learned)])
                answers = [[float(number) for number in line.split()] for line in lines]
                errors.append(median_error(answers[LEARNED:]))
                timed += [(kind, *answer[2:]) for answer in answers[:LEARNED] if learned]
            worst = max(worst, errors[0])
            cells.append(f"{errors[0]:.1%} ({errors[1]:.0%})")
        print(f"| {file} | {' | '.join(cells)} |", flush=True)
    print(f"\nlearning: {statistics.median(learning for *_, learning in timed) * 1e6:.2f} microseconds (median)")
    for kind in KINDS:
        speeds = [size / scan / 1e6 for name, size, scan, _ in timed if name == kind and size > 4000]
        print(f"scan, {kind}, texts above 4 kB: {statistics.median(speeds):.0f} MB/s (median)")
    print(f"largest median error: {worst:.2%}, at most {ERROR_MAX:.0%} is wanted")
    return int(worst > ERROR_MAX)


if __name__ == "__main__":
    sys.exit(main())
