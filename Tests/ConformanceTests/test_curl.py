"""curl for what the official clients do not send: HTTP/1.0, closing, chunks, expectations, TLS, browsers."""

import json
import socket
import subprocess

import pytest

from fleet import ORIGIN

BODY = json.dumps({"model": "sim-small", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
STREAM = json.dumps(json.loads(BODY) | {"stream": True})


class Answer:
    """What `curl --include --silent` printed; heads of 1xx answers apart."""

    def __init__(self, output: bytes):
        self.informational = []
        head, _, rest = output.partition(b"\r\n\r\n")
        while head.split(b" ")[1].startswith(b"1"):
            self.informational.append(int(head.split(b" ")[1]))
            head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.version, status = lines[0].split(" ")[:2]
        self.status = int(status)
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.body = rest

    @property
    def json(self):
        return json.loads(self.body)


def run_curl(*arguments: str, data: str | None = None, seconds: int = 20) -> subprocess.CompletedProcess:
    command = ["curl", "--include", "--silent", "--show-error", "--max-time", str(seconds), *arguments]
    if data is not None:
        command += ["--header", "Content-Type: application/json", "--data-binary", "@-"]
    return subprocess.run(command, input=(data or "").encode(), capture_output=True, timeout=seconds + 10)


def curl(*arguments: str, data: str | None = None) -> Answer:
    result = run_curl(*arguments, data=data)
    assert result.returncode == 0, result.stderr.decode()
    return Answer(result.stdout)


@pytest.fixture
def chat(target, account):
    """The URL of chat completions and the key's header."""
    return (f"{target.gateway.base_url}/chat/completions", "--header", f"Authorization: Bearer {account.key['key']}")


@pytest.fixture
def edge(target, account):
    """The same over TLS."""
    return (
        f"{target.edge.base_url}/chat/completions",
        "--cacert",
        str(target.certificate.certificate),
        "--header",
        f"Authorization: Bearer {account.key['key']}",
    )


pytestmark = pytest.mark.simulated


def events(body: bytes) -> list[bytes]:
    return [event for event in body.split(b"\n\n") if event]


@pytest.mark.parametrize("arguments", [["--http1.0"], ["--header", "Connection: close"]], ids=["http1.0", "close"])
def test_a_client_that_closes_is_answered_whole(chat, arguments):
    answer = curl(*chat, *arguments, data=BODY)
    assert answer.status == 200
    assert answer.json["choices"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("arguments", [["--http1.0"], ["--header", "Connection: close"]], ids=["http1.0", "close"])
def test_a_client_that_closes_gets_whole_streams(chat, arguments):
    answer = curl(*chat, *arguments, data=STREAM)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    if "--http1.0" in arguments:
        assert "transfer-encoding" not in answer.headers
    assert events(answer.body)[-1] == b"data: [DONE]"


def test_streams_are_never_compressed(chat):
    answer = curl(*chat, "--header", "Accept-Encoding: gzip, br", data=STREAM)
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b"data: {")


def test_a_body_in_chunks_is_taken(chat):
    answer = curl(*chat, "--header", "Transfer-Encoding: chunked", data=BODY)
    assert answer.status == 200 and answer.json["choices"]


def test_an_expectation_is_met_where_key_and_size_pass(chat):
    answer = curl(*chat, "--header", "Expect: 100-continue", data=BODY)
    assert answer.informational == [100]
    assert answer.status == 200


def test_an_expectation_with_a_wrong_key_is_refused_at_once(chat):
    answer = curl(chat[0], "--header", "Authorization: Bearer nonsense", "--header", "Expect: 100-continue", data=BODY)
    assert (answer.informational, answer.status) == ([], 401)


def test_an_upgrade_is_ignored_and_the_connection_closed(chat):
    answer = curl(*chat, "--http2", data=BODY)
    assert (answer.version, answer.status) == ("HTTP/1.1", 200)
    assert answer.headers["connection"] == "close"


def test_a_body_without_a_length_is_refused(chat):
    answer = curl(*chat, "--request", "POST", "--header", "Content-Type: application/json")
    assert (answer.status, answer.json["error"]["code"]) == (411, "length_required")


def test_a_body_that_does_not_arrive_is_too_slow(target, account):
    """The edge waits two seconds for it."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {account.key['key']}\r\nContent-Length: 100\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", target.edge.port), 10) as plain:
        with target.certificate.context("http/1.1").wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(head.encode())
            received = b""
            while data := connection.recv(65536):
                received += data
    answer = Answer(received)
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"


def test_two_requests_share_a_connection(chat):
    url, *headers = chat
    command = ["curl", "--silent", "--write-out", "%{num_connects} %{http_code}\\n", "--output", "/dev/null", url]
    command += [*headers, "--header", "Content-Type: application/json", "--data-binary", BODY]
    both = command + ["--next", *command[1:]]
    result = subprocess.run(both, capture_output=True, text=True, timeout=30)
    assert result.stdout.split("\n")[:2] == ["1 200", "0 200"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_tls_serves_both_versions(edge, version):
    answer = curl(*edge, version, data=BODY)
    assert answer.version == ("HTTP/2" if version == "--http2" else "HTTP/1.1")
    assert answer.status == 200
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.json["choices"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_tls_streams_in_both_versions(edge, version):
    answer = curl(*edge, version, data=STREAM)
    assert answer.status == 200
    assert events(answer.body)[-1] == b"data: [DONE]"
    assert "connection" not in answer.headers or version == "--http1.1"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize(
    ("arguments", "data", "status", "code"),
    [
        (["--header", "Authorization: Bearer nonsense"], BODY, 401, "invalid_api_key"),
        (["--header", "Content-Type: text/plain"], BODY, 415, "unsupported_media_type"),
        ([], "{", 400, "invalid_json"),
        (["--request", "PUT"], BODY, 405, "method_not_allowed"),
        ([], json.dumps({"model": "m", "messages": "x" * (300 << 10)}), 413, "request_too_large"),
        (["--header", "X-Padding: " + "x" * 9000], BODY, 431, "headers_too_large"),
    ],
    ids=["key", "type", "json", "method", "body", "headers"],
)
def test_refusals_are_the_same_in_both_versions(edge, version, arguments, data, status, code):
    url, *rest = edge
    if any(argument.startswith("Authorization") for argument in arguments):
        rest = rest[:2]
    if any(argument.startswith("Content-Type") for argument in arguments):
        command = ["curl", "--include", "--silent", url, *rest, version, *arguments, "--data-binary", "@-"]
        result = subprocess.run(command, input=data.encode(), capture_output=True, timeout=20)
        answer = Answer(result.stdout)
    else:
        answer = curl(url, *rest, version, *arguments, data=data)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["code"] == code


def test_old_versions_of_tls_are_refused(target):
    result = run_curl(
        f"{target.edge.root_url}/v1/models", "--cacert", str(target.certificate.certificate), "--tls-max", "1.1"
    )
    assert result.returncode == 35


def test_plain_http_on_the_tls_port_is_no_answer(target):
    result = run_curl(f"http://127.0.0.1:{target.edge.port}/v1/models", seconds=8)
    assert result.returncode != 0 or Answer(result.stdout).status == 400


# Browsers.


def test_a_preflight_of_a_known_origin_is_answered_without_a_key(target):
    answer = curl(
        f"{target.edge.base_url}/chat/completions",
        *["--cacert", str(target.certificate.certificate), "--request", "OPTIONS", "--header", f"Origin: {ORIGIN}"],
        *["--header", "Access-Control-Request-Method: POST"],
        *["--header", "Access-Control-Request-Headers: authorization,content-type"],
    )
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or {"authorization", "content-type"} <= {name.strip() for name in allowed.split(",")}


def test_answers_to_a_known_origin_may_be_read_errors_too(edge):
    for data, status in ((BODY, 200), ("{", 400)):
        answer = curl(*edge, "--header", f"Origin: {ORIGIN}", data=data)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "origin" in answer.headers["vary"].lower()


def test_other_origins_get_no_leave(edge):
    answer = curl(*edge, "--header", "Origin: https://elsewhere.example", data=BODY)
    assert "access-control-allow-origin" not in answer.headers


def test_without_origins_a_preflight_is_a_wrong_method(chat):
    answer = curl(chat[0], "--request", "OPTIONS", "--header", f"Origin: {ORIGIN}")
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers
