"""The reference libraries behind one interface: bytes in, ids out, as each defines them for invalid UTF-8."""

import base64
import importlib.metadata
import json
import pathlib
from typing import Callable

import tiktoken
from tiktoken_ext import openai_public
from tokenizers import Tokenizer

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Unanswered(Exception):
    """The reference itself fails on a text: there is nothing to compare with."""


class Reference:
    """- encode: The ids of a text. - Throws: `Unanswered`."""

    def __init__(self, name: str, encode: Callable[[bytes], list[int]]):
        self.name = f"{name} {importlib.metadata.version(name)}"
        self.answer = encode

    def encode(self, text: bytes) -> list[int]:
        try:
            return self.answer(text)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # Rust's panics are no `Exception`: a regular expression that ran out of stack.
        except BaseException as error:
            raise Unanswered(str(error)) from error


def patterns() -> dict[str, str]:
    """What each name of a pattern means to tiktoken: its own words, less the download of the ranks."""
    found = {"qwen2": QWEN}
    load, openai_public.load_tiktoken_bpe = openai_public.load_tiktoken_bpe, lambda *_, **__: {}
    try:
        found["gpt2"] = openai_public.p50k_base()["pat_str"]
        found["cl100k"] = openai_public.cl100k_base()["pat_str"]
        found["o200k"] = openai_public.o200k_base()["pat_str"]
    finally:
        openai_public.load_tiktoken_bpe = load
    return found


def of_tiktoken(file: pathlib.Path, pattern: str) -> Reference:
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    encoding = tiktoken.Encoding(file.stem, pat_str=patterns()[pattern], mergeable_ranks=ranks, special_tokens={})

    def encode(text: bytes) -> list[int]:
        try:
            return encoding.encode_ordinary(text.decode())
        except UnicodeDecodeError:
            return encoding._encode_bytes(text)

    return Reference("tiktoken", encode)


def of_tokenizers(file: pathlib.Path) -> Reference:
    tokenizer = Tokenizer.from_file(str(file))

    def encode(text: bytes) -> list[int]:
        return tokenizer.encode(text.decode(errors="replace"), add_special_tokens=False).ids

    return Reference("tokenizers", encode)


def of_mistral(file: pathlib.Path, format: str) -> Reference:
    if format == "tekken":
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        tokenizer = Tekkenizer.from_file(file)
    else:
        from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

        tokenizer = SentencePieceTokenizer(file)

    def encode(text: bytes) -> list[int]:
        return tokenizer.encode(text.decode(errors="replace"), bos=False, eos=False)

    return Reference("mistral-common", encode)


def listed(folder: pathlib.Path) -> list[dict[str, object]]:
    """What `vocabularies.py` put there: file, format, pattern, reference."""
    return json.loads((folder / "manifest.json").read_text())["vocabularies"]


def reference(folder: pathlib.Path, entry: dict[str, object]) -> Reference:
    file = folder / entry["file"]
    if entry["reference"] == "tiktoken":
        return of_tiktoken(file, entry["pattern"])
    if entry["reference"] == "tokenizers":
        return of_tokenizers(file)
    return of_mistral(file, entry["format"])
