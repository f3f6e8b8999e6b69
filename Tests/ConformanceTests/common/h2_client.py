"""HTTP/2 over TLS, frame by frame: what a well-behaved client would not send can be sent too."""

import json
import socket
import ssl
import struct

import h2.config
import h2.connection
import h2.errors
import h2.events

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Connection:
    """A connection whose own state machine checks nothing of what is sent."""

    def __init__(self, port: int, context: ssl.SSLContext, timeout: float = 10, preface: bool = True):
        plain = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        configuration = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(configuration)
        self.events: list[h2.events.Event] = []
        self.is_closed = False
        if preface:
            self.h2.initiate_connection()
            self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self.send_raw(data)

    def send_raw(self, data: bytes) -> None:
        """A peer that has hung up is no failure of the sender's."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.is_closed = True

    def request(self, key: str | None, body: bytes | None, path: str = "/v1/chat/completions", **more) -> int:
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        headers += [("content-type", "application/json")]
        if key:
            headers += [("authorization", f"Bearer {key}")]
        headers += list(more.get("extra", []))
        self.h2.send_headers(stream, headers, end_stream=body is None and more.get("ends", False))
        if body is not None:
            self.h2.send_data(stream, body, end_stream=more.get("ends", True))
        self.flush()
        return stream

    def receive(self, until, acknowledge: bool = True) -> h2.events.Event | None:
        """Reads until an event satisfies `until`, and gives it; None where the peer closed first."""
        seen = 0
        while True:
            while seen < len(self.events):
                event = self.events[seen]
                seen += 1
                if until(event):
                    self.events = self.events[seen:]
                    return event
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                data = b""
            if not data:
                self.is_closed = True
                return None
            for event in self.h2.receive_data(data):
                self.events.append(event)
                if acknowledge and isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.flush()

    def frames(self):
        """Frames as they come, raw: (kind, flags, stream, payload). Pings are answered.

        For what comes after a GOAWAY, of which h2's own machine wants to hear nothing more.
        """
        buffer = b""
        while True:
            while len(buffer) >= 9:
                length = int.from_bytes(buffer[:3])
                if len(buffer) < 9 + length:
                    break
                kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9]) & 0x7FFF_FFFF
                payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
                if kind == PING and not flags & 1:
                    self.send_raw(frame(PING, 1, 0, payload))
                yield kind, flags, stream, payload
            data = self.socket.recv(65536)
            if not data:
                return
            buffer += data

    def answer(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a stream that is answered whole."""
        headers: dict[str, str] = {}
        body = b""

        def is_end(event) -> bool:
            nonlocal body
            if getattr(event, "stream_id", None) != stream:
                return False
            if isinstance(event, h2.events.ResponseReceived):
                headers.update(dict(event.headers))
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            return isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))

        assert self.receive(is_end) is not None, "the connection ended before the answer"
        return int(headers[":status"]), headers, body

    def goaway(self) -> h2.errors.ErrorCodes | int | None:
        """The error of the peer's GOAWAY; None where it closes without one."""
        event = self.receive(lambda event: isinstance(event, h2.events.ConnectionTerminated))
        return None if event is None else event.error_code


def chat_body(model: str = "sim-small", **options) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, **options}
    return json.dumps(body).encode()
