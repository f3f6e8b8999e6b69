"""Gemma's `tokenizer.json`, from a GGUF file that has its vocabulary: `gguf_tokenizer.py MODEL.gguf TOKENIZER.json`."""

import pathlib
import sys

from vocabularies import gemma3


def main() -> int:
    model, made = map(pathlib.Path, sys.argv[1:3])
    part = made.with_suffix(".part")
    with model.open("rb") as stream:
        part.write_bytes(gemma3(stream))
    # Last: a run that broke off leaves no half of it.
    part.rename(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
