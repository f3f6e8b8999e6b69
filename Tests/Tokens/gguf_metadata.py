"""The metadata of a GGUF file, read from a stream: all that comes before its tensors."""

import struct
from typing import BinaryIO

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


def read(stream: BinaryIO) -> dict[str, object]:
    """Every key with its value. The format: ggml/docs/gguf.md, versions 2 and 3, little-endian."""
    magic, version, _, count = struct.unpack("<4sIQQ", stream.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"not a GGUF file of version 2 or 3: {magic!r}, {version}")
    return {string(stream): value(stream, scalar(stream, "<I")) for _ in range(count)}


def scalar(stream: BinaryIO, format: str):
    return struct.unpack(format, stream.read(struct.calcsize(format)))[0]


def string(stream: BinaryIO) -> str:
    return stream.read(scalar(stream, "<Q")).decode()


def value(stream: BinaryIO, kind: int):
    if kind == STRING:
        return string(stream)
    if kind == ARRAY:
        of, count = struct.unpack("<IQ", stream.read(12))
        if of in SCALARS:
            each = SCALARS[of]
            return list(struct.unpack(f"<{count}{each[1:]}", stream.read(count * struct.calcsize(each))))
        return [value(stream, of) for _ in range(count)]
    return scalar(stream, SCALARS[kind])
