"""Streams in step: a model server and its clients in one process, so that chunks come one by one on any machine.

In each step the server writes one event, in a chunk and a packet of its own, on every stream, as an engine does that
batches; the next step waits until each client has its event. So what stands between relays every event on its own,
however busy the machine is. (A server that writes by the clock does not do: a proxy that is kept from its core finds
many events in one read, and looks cheaper the worse it is.)
"""

import json
import queue
import select
import socket
import threading
import time

from servers import BenchFailure
from streams import Streams

WORDS = ("people", "find", "their", "way", "through", "most", "of", "what", "comes", "along", "here", "today")
USAGE_PROMPT_TOKENS = 200
STEP_SECONDS = 30
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n")


def http_chunk(text):
    return b"%x\r\n%b\r\n" % (len(text), text)


def event(choices, **fields):
    """One event in a chunk, worded as vLLM does."""
    text = json.dumps({
        "id": "chatcmpl-beeb8da1658eec67f893a2eefb32555e", "object": "chat.completion.chunk", "created": 1795374500,
        "model": "node-model", "choices": choices, **fields}, separators=(",", ":"))
    return http_chunk(f"data: {text}\n\n".encode())


def content_event(delta, finish_reason=None):
    return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


class PacedNode:
    """A model server that answers probes at once, and leaves its streams to whoever takes them from `streams`."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.connections = {}
        self.streams = queue.Queue()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            for number, _ in self.poll.poll():
                if number == self.listener.fileno():
                    connection, _ = self.listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.connections[connection.fileno()] = connection
                    self.poll.register(connection, select.EPOLLIN | select.EPOLLONESHOT)
                else:
                    self.take_request(self.connections[number])

    def take_request(self, connection):
        data = b""
        while not self.is_whole(data):
            try:
                received = connection.recv(1 << 16)
            except OSError:
                received = b""
            if not received:
                del self.connections[connection.fileno()]
                return connection.close()
            data += received
        if data.startswith(b"GET "):
            connection.sendall(PLAIN_HEAD)
            return self.give_back(connection)
        body = json.loads(data.partition(b"\r\n\r\n")[2])
        wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
        self.streams.put((connection, wants_usage))

    @staticmethod
    def is_whole(data):
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            return False
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return len(body) >= int(line.partition(b":")[2])
        return True

    def give_back(self, connection):
        """The answer is over: the connection waits for the next request."""
        self.poll.modify(connection, select.EPOLLIN | select.EPOLLONESHOT)


class StreamsInStep:
    """`count` streams through one proxy, each at the same token. A context: leaving it closes the clients."""

    def __init__(self, node, port, request, count):
        self.node, self.port, self.request, self.count = node, port, request, count
        self.connections, self.tokens = [], 0

    def __enter__(self):
        self.streams = Streams(self.port, self.request, self.count)
        return self

    def __exit__(self, *_):
        self.streams.__exit__()

    def open(self):
        """Sends the requests, waits until all have reached the node, and begins their answers."""
        self.streams.open()
        deadline = time.monotonic() + STEP_SECONDS
        while len(self.connections) < self.count:
            self.streams.turn(0.001)
            try:
                while True:
                    self.connections.append(self.node.streams.get_nowait())
            except queue.Empty:
                self.streams.check_refusals()
                if time.monotonic() > deadline:
                    raise BenchFailure(f"only {len(self.connections)} of {self.count} requests arrived") from None
        self.step(STREAM_HEAD + content_event({"role": "assistant", "content": ""}))

    def step(self, data):
        for connection, _ in self.connections:
            connection.send(data)
        self.streams.wait_for_events()

    def advance(self, tokens):
        for _ in range(tokens):
            self.step(content_event({"content": " " + WORDS[self.tokens % len(WORDS)]}))
            self.tokens += 1

    def finish(self):
        self.step(content_event({}, "length"))
        usage = {
            "prompt_tokens": USAGE_PROMPT_TOKENS, "completion_tokens": self.tokens,
            "total_tokens": USAGE_PROMPT_TOKENS + self.tokens}
        for connection, wants_usage in self.connections:
            if wants_usage:
                connection.send(event([], usage=usage))
            connection.send(http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            self.node.give_back(connection)
        self.streams.finish(STEP_SECONDS)
