"""Holds our ids of Gemma against llama.cpp's own, which is what its server counts by:
`llama_cpp.py --binary PATH --vocabularies DIR --corpus DIR --url URL`.

The server is one of `make test-real`'s. Valid text only, in messages as equality.py cuts them: llama.cpp defines
nothing for invalid UTF-8, and its requests hold none. NUL is left out as well: its C strings end there.
"""

import argparse
import json
import pathlib
import random
import sys
import urllib.request

from compare import described, shrunk
from corpus import SEED, documents
from equality import messages
from ours import Live, Ours

FILE = "gemma3.json"
TEXTS_MAX = 6000
SHOWN_MAX = 8


def theirs(url: str, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = urllib.request.Request(f"{url}/tokenize", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--binary", "--url"):
        arguments.add_argument(name, required=True)
    for name in ("--vocabularies", "--corpus"):
        arguments.add_argument(name, type=pathlib.Path, required=True)
    options = arguments.parse_args()
    cut = [text.decode(errors="ignore").replace("\0", "") for _, text in messages(SEED, documents(options.corpus))]
    texts = [text for text in cut if text]
    texts = random.Random(SEED).sample(texts, min(TEXTS_MAX, len(texts)))
    live = Live(Ours(options.binary, options.vocabularies / FILE))
    answers = live.encode([text.encode() for text in texts])

    def differs(content: bytes) -> bool:
        text = content.decode(errors="ignore")
        return bool(text) and live.encode([text.encode()])[0] != theirs(options.url, text)

    mismatches = 0
    for text, ids in zip(texts, answers):
        if ids == theirs(options.url, text):
            continue
        mismatches += 1
        if mismatches <= SHOWN_MAX:
            short = shrunk(text.encode(), differs).decode(errors="ignore")
            expected = theirs(options.url, short)
            print(described(FILE, short.encode(), live.encode([short.encode()])[0], expected), flush=True)
    live.close()
    size = sum(len(text.encode()) for text in texts)
    print(f"{FILE}: llama.cpp: {len(texts):,} texts, {size:,} bytes, {mismatches:,} differ")
    print(f"{int(mismatches == 0)} passed, {int(mismatches > 0)} failed")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
