"""Our tokenizer as a process: records of a 4-byte little-endian length and a text go in, a line a record comes out."""

import json
import pathlib
import struct
import subprocess
import threading
from typing import Iterable

# Bytes of texts in one process' input at a time.
BATCH_BYTES_MAX = 8 << 20


class Failed(Exception):
    """The process refused the vocabulary, or ended before its last answer."""


class Ours:
    """One vocabulary. A process for each batch: what it answers may not hang on what it answered before."""

    def __init__(self, binary: str, vocabulary: pathlib.Path, pattern: str = ""):
        named = ["--pattern", pattern] if pattern else []
        self.command = [binary, "tokenize", "--tokenizer", str(vocabulary), *named]

    def encode(self, texts: Iterable[bytes]) -> list[list[int]]:
        return [[int(id) for id in line.split()] for line in self.lines(texts, [])]

    def count(self, texts: Iterable[bytes]) -> list[int]:
        return [int(line) for line in self.lines(texts, ["--count"])]

    def lines(self, texts: Iterable[bytes], arguments: list[str]) -> list[bytes]:
        answers: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for text in texts:
            if batch and size + len(text) > BATCH_BYTES_MAX:
                answers += self.run(batch, arguments)
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        return answers + (self.run(batch, arguments) if batch else [])

    def run(self, texts: list[bytes], arguments: list[str]) -> list[bytes]:
        content = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        done = subprocess.run([*self.command, "--lines", *arguments], input=content, capture_output=True)
        if done.returncode != 0:
            raise Failed(
                f"{' '.join(self.command)}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}"
            )
        answers = done.stdout.split(b"\n")[:-1]
        if len(answers) != len(texts):
            raise Failed(f"{' '.join(self.command)}: {len(texts)} records, {len(answers)} answers")
        return answers


class Live:
    """A process that is asked one batch after the other, and answers while its input is open."""

    def __init__(self, ours: Ours, arguments: tuple[str, ...] = ()):
        self.process = subprocess.Popen(
            [*ours.command, "--lines", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def encode(self, texts: list[bytes]) -> list[list[int]]:
        return [[int(id) for id in line.split()] for line in self.lines(texts)]

    def bench(self, text: bytes, seconds_max: float) -> dict[str, float] | None:
        """What `--bench` says of a text; none, and the process is gone, where that takes longer."""
        timer = threading.Timer(seconds_max, self.process.kill)
        timer.start()
        try:
            return json.loads(self.lines([text])[0])
        except Failed:
            if timer.is_alive():
                raise
            return None
        finally:
            timer.cancel()

    def lines(self, texts: list[bytes]) -> list[bytes]:
        writer = threading.Thread(target=self.write, args=(texts,))
        writer.start()
        answers = []
        for text in texts:
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):
                raise Failed(
                    f"the tokenizer ended (exit {self.process.wait()}) within a batch; a text: {text[:400].hex()}"
                )
            answers.append(line)
        writer.join()
        return answers

    def write(self, texts: list[bytes]) -> None:
        try:
            self.process.stdin.write(b"".join(struct.pack("<I", len(text)) + text for text in texts))
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def close(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()
