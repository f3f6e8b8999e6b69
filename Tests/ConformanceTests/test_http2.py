"""HTTP/2 over TLS: nghttp2's client, and frames that no client should send."""

import json
import shutil
import subprocess
import threading
import time

import h2.errors
import h2.events
import pytest

from gateway import Gateway
from h2_client import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    chat_body,
    frame,
)
from processes import wait_until

pytestmark = pytest.mark.simulated

Codes = h2.errors.ErrorCodes


@pytest.fixture
def key(account):
    return account.key["key"]


@pytest.fixture
def connect(target):
    opened = []

    def connect(**options) -> Connection:
        opened.append(Connection(target.edge.port, target.certificate.context("h2"), **options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.socket.close()


def still_serves(connect, key) -> None:
    """Whatever one connection did, the next is served."""
    connection = connect()
    status, _, body = connection.answer(connection.request(key, chat_body()))
    assert status == 200 and json.loads(body)["choices"]


# nghttp2's client.


def nghttp(target, key: str, body: bytes, tmp_path, *arguments: str) -> str:
    assert shutil.which("nghttp"), "nghttp is missing: install nghttp2-client"
    file = tmp_path / "body.json"
    file.write_bytes(body)
    command = ["nghttp", "--no-verify-peer", f"--data={file}", f"--header=authorization: Bearer {key}"]
    command += ["--header=content-type: application/json", *arguments, f"{target.edge.base_url}/chat/completions"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nghttp_is_answered(target, key, tmp_path):
    output = nghttp(target, key, chat_body(), tmp_path)
    assert json.loads(output)["choices"]


def test_nghttp_gets_streams(target, key, tmp_path):
    output = nghttp(target, key, chat_body(stream=True), tmp_path)
    assert output.rstrip().endswith("data: [DONE]")


def test_nghttp_gets_many_answers_on_one_connection(target, key, tmp_path):
    output = nghttp(target, key, chat_body(), tmp_path, "--multiply=20", "--stat")
    # One line of the statistics for each answer.
    assert output.count(" 200 ") == 20


# What a good client does.


def test_streams_are_answered_side_by_side(connect, key):
    connection = connect()
    streams = [connection.request(key, chat_body()) for _ in range(30)]
    ended = set()

    def all_ended(event) -> bool:
        if isinstance(event, h2.events.StreamEnded):
            ended.add(event.stream_id)
        return ended == set(streams)

    assert connection.receive(all_ended)


def test_header_names_are_lower_case_and_of_http2(connect, key):
    connection = connect()
    _, headers, _ = connection.answer(connection.request(key, chat_body()))
    assert all(name == name.lower() for name in headers)
    assert not {"connection", "transfer-encoding", "keep-alive"} & set(headers)
    assert headers["x-request-id"].startswith("req_")


def test_a_body_in_many_frames_is_one_request(connect, key):
    connection = connect()
    body = chat_body()
    stream = connection.request(key, None)
    for at in range(0, len(body), 7):
        connection.h2.send_data(stream, body[at : at + 7], end_stream=at + 7 >= len(body))
    connection.flush()
    assert connection.answer(stream)[0] == 200


def test_events_come_while_the_node_still_works(connect, key, target):
    connection = connect()
    stream = connection.request(key, chat_body("sim-slow", stream=True, max_tokens=200, ignore_eos=True))
    assert connection.receive(lambda event: isinstance(event, h2.events.DataReceived))
    assert target.nodes["slow"].metric("vllm:num_requests_running") == 1
    connection.h2.reset_stream(stream, Codes.CANCEL)
    connection.flush()
    target.nodes["slow"].wait_idle()


def test_a_reset_stream_stops_the_node_and_leaves_the_connection(connect, key, target):
    node = target.nodes["slow"]
    before = node.aborted
    connection = connect()
    stream = connection.request(key, chat_body("sim-slow", stream=True, max_tokens=2000, ignore_eos=True))
    assert connection.receive(lambda event: isinstance(event, h2.events.DataReceived))
    connection.h2.reset_stream(stream, Codes.CANCEL)
    connection.flush()
    wait_until("the node heard of it", lambda: node.aborted == before + 1, 2)
    assert connection.answer(connection.request(key, chat_body()))[0] == 200


def test_a_closed_window_stops_the_stream_and_an_open_one_lets_it_go_on(connect, key):
    """The client's window is 65,535 bytes: more than that comes only when it is opened."""
    connection = connect()
    stream = connection.request(key, chat_body(stream=True, max_tokens=1500, ignore_eos=True))
    received = 0

    def is_full(event) -> bool:
        nonlocal received
        if isinstance(event, h2.events.DataReceived):
            received += event.flow_controlled_length
        return received == 65_535

    assert connection.receive(is_full, acknowledge=False)
    connection.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        connection.receive(lambda event: isinstance(event, h2.events.DataReceived), acknowledge=False)
    connection.socket.settimeout(10)
    connection.h2.increment_flow_control_window(2**24)
    connection.h2.increment_flow_control_window(2**24, stream)
    connection.flush()
    assert connection.receive(lambda event: isinstance(event, h2.events.StreamEnded))


@pytest.mark.parametrize(
    ("extra", "status"),
    [([("content-encoding", "gzip")], 415), ([("x-padding", "x" * 9000)], 431)],
    ids=["encoded", "large headers"],
)
def test_refusals_leave_the_connection(connect, key, extra, status):
    connection = connect()
    stream = connection.request(key, chat_body(), extra=extra)
    assert connection.answer(stream)[0] == status
    if status != 431:
        assert connection.answer(connection.request(key, chat_body()))[0] == 200


def test_a_missing_key_is_unauthorized(connect):
    connection = connect()
    status, headers, body = connection.answer(connection.request(None, chat_body()))
    assert status == 401
    assert json.loads(body)["error"]["code"] == "missing_api_key"


def test_a_body_above_the_limit_is_too_large(connect, key):
    connection = connect()
    stream = connection.request(key, None, extra=[("content-length", str(300 << 10))])
    status, _, body = connection.answer(stream)
    assert status == 413 and json.loads(body)["error"]["code"] == "request_too_large"


# What no client should do. Each ends that connection, or that stream, and nothing else.


def test_a_bad_preface_ends_the_connection(connect, key):
    connection = connect(preface=False)
    connection.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"\0" * 64)
    assert connection.goaway() in (Codes.PROTOCOL_ERROR, None)
    still_serves(connect, key)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("data on stream 0", frame(DATA, 1, 0, b"x")),
        ("headers on an even stream", frame(HEADERS, 5, 2, b"\x82")),
        ("settings of odd length", frame(SETTINGS, 0, 0, b"12345")),
        ("settings on a stream", frame(SETTINGS, 0, 1)),
        ("a ping of seven bytes", frame(PING, 0, 0, b"1234567")),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0")),
        ("a continuation of nothing", frame(CONTINUATION, 4, 1, b"\x82")),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 7, b"\0\0\0\x08")),
        ("data on an idle stream", frame(DATA, 1, 9, b"x")),
        ("headers that do not decode", frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff")),
        ("a frame above the size allowed", frame(DATA, 0, 1, b"x" * 20_000)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_connection_error_ends_the_connection(connect, key, name, frames):
    connection = connect()
    connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    connection.send_raw(frames)
    code = connection.goaway()
    assert code is None or code != Codes.NO_ERROR
    still_serves(connect, key)


def test_data_on_a_closed_stream_is_an_error(connect, key):
    connection = connect()
    stream = connection.request(key, chat_body())
    assert connection.answer(stream)[0] == 200
    connection.send_raw(frame(DATA, 1, stream, b"late"))

    def is_refused(event) -> bool:
        return isinstance(event, (h2.events.ConnectionTerminated, h2.events.StreamReset))

    event = connection.receive(is_refused)
    assert event is None or event.error_code in (Codes.STREAM_CLOSED, Codes.PROTOCOL_ERROR)
    still_serves(connect, key)


def test_more_than_the_gateways_window_is_a_flow_control_error(connect, key):
    connection = connect()
    connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    stream = connection.request(key, None)
    # Past any window that the gateway can have opened meanwhile: nothing reads a body beyond its limit.
    for _ in range(200):
        connection.send_raw(frame(DATA, 0, stream, b"x" * 16_384))
        if connection.is_closed:
            break

    def is_refused(event) -> bool:
        return isinstance(event, (h2.events.ConnectionTerminated, h2.events.StreamReset, h2.events.ResponseReceived))

    event = connection.receive(is_refused)
    if isinstance(event, h2.events.ResponseReceived):
        assert dict(event.headers)[":status"] == "413"
    still_serves(connect, key)


@pytest.mark.parametrize("pieces", [1, 40], ids=["one frame", "continuations"])
def test_a_header_block_too_large_is_refused(connect, key, pieces):
    """Also in many CONTINUATION frames, none of which ends the block (CVE-2024-27316)."""
    connection = connect()
    connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    if pieces == 1:
        stream = connection.request(key, chat_body(), extra=[("x-padding", "x" * 12_000)])
        assert connection.answer(stream)[0] == 431
    else:
        connection.send_raw(frame(HEADERS, 0, 1, b"\x82"))
        literal = b"\x00\x01a\x7f\xa1\x1f" + b"x" * 4128
        for _ in range(pieces):
            connection.send_raw(frame(CONTINUATION, 0, 1, literal))
        # With a GOAWAY or without; a gateway that said nothing and went on would be a time-out here.
        assert connection.goaway() != Codes.NO_ERROR
    still_serves(connect, key)


def test_rapid_resets_end_the_connection(connect, key, target):
    """CVE-2023-44487: streams that are opened and reset at once, by the thousand."""
    connection = connect()
    connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    before = target.nodes["small"].requests
    for _ in range(2_000):
        try:
            stream = connection.request(key, chat_body())
            connection.h2.reset_stream(stream, Codes.CANCEL)
            connection.flush()
        except h2.exceptions.ProtocolError:
            break
        if connection.is_closed:
            break
    assert connection.goaway() != Codes.NO_ERROR
    assert target.nodes["small"].requests - before < 2_000
    still_serves(connect, key)


@pytest.mark.parametrize(
    ("kind", "payload"), [(PING, b"12345678"), (SETTINGS, b"")], ids=["pings", "settings"]
)
def test_a_flood_of_control_frames_that_nobody_reads_is_bounded(connect, key, kind, payload):
    connection = connect()
    connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    connection.socket.settimeout(5)
    try:
        for _ in range(200):
            connection.send_raw(frame(kind, 0, 0, payload) * 500)
            if connection.is_closed:
                break
    except TimeoutError:
        # The gateway reads no further: as good as a hang-up.
        pass
    still_serves(connect, key)


def test_the_number_of_streams_at_once_is_bounded(connect, key):
    connection = connect()
    event = connection.receive(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    bound = event.changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS].new_value
    assert 10 <= bound <= 1_000


def test_sigterm_says_goaway_and_lets_streams_end(target, fleet, account, tmp_path_factory):
    directory = tmp_path_factory.mktemp("goaway")
    for part in (target.certificate.certificate, target.certificate.key):
        shutil.copy(part, directory)
    sections = fleet.sections(target.nodes) | {
        "tls": {"certificate": target.certificate.certificate.name, "key": target.certificate.key.name},
        "timeouts": {"drain": "10s"},
    }
    from fleet import MODELS, PRICE

    gateway = Gateway(
        directory,
        fleet.redis,
        dict.fromkeys(MODELS, PRICE),
        sections,
        absent=frozenset({"down"}),
        pepper=target.gateway.env["TOLLGATE_PEPPER"],
    )
    try:
        connection = Connection(gateway.port, target.certificate.context("h2"))
        stream = connection.request(
            account.key["key"], chat_body("sim-slow", stream=True, max_tokens=150, ignore_eos=True)
        )
        assert connection.receive(lambda event: isinstance(event, h2.events.DataReceived))
        stopping = threading.Thread(target=gateway.child.stop)
        started = time.monotonic()
        stopping.start()
        text, goaways, is_ended = b"", [], False
        for kind, flags, number, payload in connection.frames():
            if kind == GOAWAY:
                goaways.append(int.from_bytes(payload[4:8]))
            if kind == DATA and number == stream:
                text += payload
                is_ended = bool(flags & 1)
        assert goaways and set(goaways) == {Codes.NO_ERROR}
        assert is_ended, "the stream was cut off"
        assert text.rstrip().endswith(b"data: [DONE]")
        stopping.join()
        assert time.monotonic() - started < 10
        assert gateway.child.process.returncode == 0
    finally:
        gateway.child.stop()
