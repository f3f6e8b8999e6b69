"""Many event streams at once from one thread: an epoll client that only keeps bytes while the clock runs.

Decoding and counting come after the measurement, and are exact: each stream's chunks are taken apart again, so that a
lost, torn or repeated event is an error rather than a rounding.
"""

import json
import select
import socket
import time
from collections import Counter

from servers import BenchFailure

CONNECT_BATCH = 100
EVENT_SECONDS = 30
READ_BYTES = 1 << 16
EVENT_END = b"\n\n\r\n"
ANSWER_END = b"\r\n0\r\n\r\n"


class Stream:
    def __init__(self, port, request):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))
        self.request, self.parts, self.end = request, [], b""

    @property
    def has_begun(self):
        """Whether the first event is there: the head comes alone, or with it."""
        return len(self.parts) > 1 or bool(self.parts) and b"data:" in self.parts[0]


class Streams:
    """`count` requests, each on its own connection, answered with event streams."""

    def __init__(self, port, request, count):
        self.poll = select.epoll()
        self.port, self.request, self.count = port, request, count
        self.streams, self.running = {}, 0
        self.waiting = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in self.streams.values():
            stream.socket.close()
        self.poll.close()

    def open(self):
        while len(self.streams) < self.count:
            for _ in range(min(CONNECT_BATCH, self.count - len(self.streams))):
                stream = Stream(self.port, self.request)
                self.streams[stream.socket.fileno()] = stream
                self.poll.register(stream.socket, select.EPOLLOUT)
                self.running += 1
            self.turn(0.02)

    def turn(self, seconds):
        """Takes what is there, or waits for it that long."""
        for number, event in self.poll.poll(seconds):
            stream = self.streams[number]
            if event & select.EPOLLOUT:
                # A request is one small segment: an empty socket takes it whole.
                if stream.socket.send(stream.request) != len(stream.request):
                    raise BenchFailure("a request was not sent whole")
                self.poll.modify(stream.socket, select.EPOLLIN)
                continue
            data = stream.socket.recv(READ_BYTES)
            if data:
                stream.parts.append(data)
                stream.end = (stream.end + data)[-7:]
                if data.endswith(EVENT_END) or stream.end.endswith(EVENT_END):
                    self.waiting.discard(number)
            if not data or stream.end == ANSWER_END:
                self.poll.unregister(stream.socket)
                self.running -= 1

    def wait_for_events(self):
        """Until every stream has brought an event more. Spins: on the loopback whoever writes to a sleeping process
        pays for waking it, a slow proxy for nearly each chunk and a fast one for few."""
        self.waiting = set(self.streams)
        deadline = time.monotonic() + EVENT_SECONDS
        while self.waiting:
            if time.monotonic() > deadline or self.running < self.count:
                raise BenchFailure(f"an event did not arrive on {len(self.waiting)} of {self.count} streams")
            self.turn(0)

    def finish(self, seconds):
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                raise BenchFailure(f"{self.running} of {self.count} streams did not end in {seconds} s")
            self.turn(0.5)

    @property
    def begun(self):
        return sum(stream.has_begun for stream in self.streams.values())

    def check_refusals(self):
        for stream in self.streams.values():
            if stream.parts and not stream.parts[0].startswith(b"HTTP/1.1 200 "):
                raise BenchFailure("a stream was refused: " + stream.parts[0][:400].decode(errors="replace"))

    def check(self, tokens, model=None):
        """Takes every stream apart. Returns the number of events and of reads that they came in."""
        self.check_refusals()
        events, reads = 0, 0
        for stream in self.streams.values():
            found = event_texts(b"".join(stream.parts))
            if found[-1:] != ["[DONE]"]:
                raise BenchFailure("a stream ended without [DONE]")
            del found[-1]
            chunks = [json.loads(text) for text in found]
            delivered = sum(bool(chunk["choices"][0]["delta"].get("content")) for chunk in chunks if chunk["choices"])
            if delivered != tokens:
                raise BenchFailure(f"a stream brought {delivered} tokens instead of {tokens}")
            if any(chunk.get("usage") for chunk in chunks):
                raise BenchFailure("a stream told a usage that was not asked for")
            if model and Counter(chunk["model"] for chunk in chunks) != {model: len(chunks)}:
                raise BenchFailure("a stream named another model than the one asked for")
            events += len(chunks)
            reads += len(stream.parts)
        return events, reads


def event_texts(answer):
    """The data of each event of a raw HTTP/1.1 answer in chunks."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body, at = bytearray(), 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            break
        body += rest[end + 2:end + 2 + size]
        at = end + 2 + size + 2
    texts = []
    for event in body.decode().split("\n\n"):
        if event and not event.startswith("data: "):
            raise BenchFailure("an event without data: " + event[:100])
        if event:
            texts.append(event[len("data: "):])
    return texts
