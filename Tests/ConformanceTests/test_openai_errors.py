"""What is refused: the client's right error class, OpenAI's error object, the request's id, and no charge."""

import json

import openai
import pytest

from fleet import CONTEXT_TOKENS
from talk import QUESTION, ask


def check(caught, status: int, code: str | None, parameter: str | None = None) -> dict:
    error = caught.value
    assert error.status_code == status
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.request_id.startswith("req_")
    body = json.loads(error.response.text)
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert (body["error"]["code"], body["error"]["param"]) == (code, parameter)
    return body["error"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("key", ["sk-someone-elses", "mistyped"])
def test_a_wrong_key_is_unauthorized(account, target, stream, key):
    good = account.key["key"]
    key = good[:-1] + ("0" if good[-1] != "0" else "1") if key == "mistyped" else key
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(account.client(api_key=key), target.chat_model, stream=stream)
    check(caught, 401, "invalid_api_key")
    headers = caught.value.response.headers
    assert headers["x-should-retry"] == "false"
    assert headers["content-type"] == "application/json"
    # Whose it is cannot be known: no limits are told.
    assert not [name for name in headers if name.startswith("x-ratelimit")]


def test_a_revoked_key_is_unauthorized(account, target):
    from processes import wait_until

    client = account.client()
    ask(client, target.chat_model, max_tokens=1)
    account.gateway.tollgate("key", "revoke", account.key["id"])

    def refused():
        try:
            ask(client, target.chat_model, max_tokens=1)
        except openai.AuthenticationError as error:
            return error

    assert wait_until("the revoked key is refused", refused, 3).code == "invalid_api_key"


def test_a_suspended_org_is_forbidden(account, client, target):
    account.gateway.tollgate("org", "suspend", account.org)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client, target.chat_model)
    assert check(caught, 403, "org_suspended")["type"] == "permission_error"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_unknown_model_is_not_found(client, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gpt-nonsense", stream=stream)
    check(caught, 404, "model_not_found", "model")


def test_the_nodes_own_name_is_not_found(client, target):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gemma-on-the-node" if target.is_real else "org/small-on-the-node")
    check(caught, 404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"extra_body": {"max_completion_tokens": 3}}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
        ({"extra_body": {"stream_options": 7}}, "stream_options"),
        ({"extra_body": {"n_predict": 9}}, "n_predict"),
        ({"extra_body": {"cache_salt": "mine"}}, "cache_salt"),
        ({"extra_body": {"priority": 9}}, "priority"),
        ({"extra_body": {"model": 7}}, "model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_the_gateway_reads_is_checked(client, target, options, parameter):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, target.chat_model, **options)
    assert check(caught, 400, "invalid_request", parameter)["type"] == "invalid_request_error"


def test_messages_are_required(http, target):
    answer = http.post("/v1/chat/completions", json={"model": target.chat_model})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


def test_a_model_is_required(http):
    answer = http.post("/v1/chat/completions", json={"messages": QUESTION})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model":}', b"nonsense", b'{"model":"m"} {}', b'{"model":"m","messages":[}', b"\xff\xfe"],
)
def test_what_is_no_json_is_a_bad_request(http, body):
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_json"
    assert "at byte" in error["message"]


@pytest.mark.parametrize("body", [b"[]", b"7", b'"text"', b"null"])
def test_json_that_is_no_object_is_a_bad_request(http, body):
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_a_key_that_occurs_twice_is_a_bad_request(http):
    body = b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}'
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_more_tokens_than_the_context_are_refused_with_the_numbers(client, account, target, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, target.chat_model, max_tokens=CONTEXT_TOKENS + 1, stream=stream)
    error = check(caught, 400, "context_length_exceeded", "max_tokens")
    assert str(CONTEXT_TOKENS + 1) in error["message"]
    assert account.settles() == []


def test_a_prompt_beyond_the_context_is_refused_and_costs_nothing(client, account, target):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, target.chat_model, messages=[{"role": "user", "content": "heliotrope " * 8000}])
    assert "context" in caught.value.message
    assert caught.value.request_id.startswith("req_")
    assert account.settles() == []


@pytest.mark.simulated
def test_a_prompt_beyond_the_context_has_openais_code(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "sim-small", messages=[{"role": "user", "content": "heliotrope " * 8000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/chat/completions/", "/V1/models", "/v2/models"])
def test_an_unknown_path_is_not_found_as_json(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/completions", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/some-model", "GET"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(http, method, path, allow):
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_body_above_the_limit_is_too_large(http, target):
    body = {"model": target.chat_model, "messages": [{"role": "user", "content": "x" * (9 << 20)}]}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_body_that_is_not_plain_json_is_unsupported(http, headers, status):
    answer = http.post("/v1/chat/completions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "unsupported_media_type")


def test_headers_above_the_limit_are_too_large(http):
    answer = http.get("/v1/models", headers={"X-Padding": "x" * (40 << 10)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_refused_requests_leave_no_entry(client, account, target):
    for options in ({"max_tokens": 0}, {"messages": []}, {"extra_body": {"n_predict": 9}}):
        with pytest.raises(openai.BadRequestError):
            ask(client, target.chat_model, **options)
    with pytest.raises(openai.NotFoundError):
        ask(client, "gpt-nonsense")
    assert account.settles() == []


@pytest.mark.simulated
def test_a_nodes_own_refusal_comes_in_openais_shape(client, account):
    """The simulated node checks `min_tokens`, of which the gateway knows nothing."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "sim-small", max_tokens=4, extra_body={"min_tokens": 9})
    body = json.loads(caught.value.response.text)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] is None or isinstance(body["error"]["code"], str)
    assert "on-the-node" not in body["error"]["message"]
    assert account.settles() == []
