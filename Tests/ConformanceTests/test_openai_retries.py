"""What the official client's own retries make of refusals, faults and stale connections."""

import math
import time

import openai
import pytest

from processes import wait_until
from talk import QUESTION, ask


class Counted:
    """The official client with its own retries (two, its default), and every answer that it got."""

    def __init__(self, account, **options):
        self.answers = []
        http = openai.DefaultHttpxClient(event_hooks={"response": [self.answers.append]})
        self.client = account.client(http_client=http, **{"max_retries": 2, **options})

    @property
    def statuses(self) -> list[int]:
        return [answer.status_code for answer in self.answers]


@pytest.mark.simulated
def test_a_busy_keys_request_succeeds_when_the_client_tries_again(open_account, target):
    """One request at once; the stream that runs ends before the time that the refusal names is over."""
    account = open_account(key_limits=("--concurrency", "1"))
    stream = ask(account.client(), "sim-slow", max_tokens=60, stream=True, extra_body={"ignore_eos": True})
    iterator = iter(stream)
    next(iterator)
    counted = Counted(account)
    import threading

    reader = threading.Thread(target=lambda: list(iterator))
    reader.start()
    started = time.monotonic()
    answer = ask(counted.client, target.chat_model)
    reader.join()
    assert answer.choices[0].message.content
    assert counted.statuses[0] == 429 and counted.statuses[-1] == 200
    assert counted.answers[0].headers["retry-after-ms"] == "1000"
    assert 0.9 < time.monotonic() - started < 6


def test_the_wait_of_a_rate_limit_is_told_and_kept(open_account, target, monkeypatch):
    """The client waits as long as it is told; the limit is lifted meanwhile rather than waited for."""
    account = open_account(key_limits=("--rpm", "1"))
    counted = Counted(account)
    ask(counted.client, target.chat_model, max_tokens=1)
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        # From another key: this one's limit holds for a minute.
        counted.client.api_key = account.gateway.tollgate("key", "create", "--org", account.org)["key"]

    monkeypatch.setattr("openai._base_client.time.sleep", sleep)
    assert ask(counted.client, target.chat_model, max_tokens=1).choices
    assert counted.statuses[:2] == [200, 429] and counted.statuses[-1] == 200
    headers = counted.answers[1].headers
    told = int(headers["retry-after-ms"])
    assert 0 < told <= 60_000
    assert int(headers["retry-after"]) == math.ceil(told / 1000)
    assert math.isclose(waits[0], told / 1000, abs_tol=0.01)
    assert headers["x-ratelimit-remaining-requests"] == "0"


def test_an_exhausted_quota_is_asked_for_once(open_account, target):
    account = open_account(credit="0.000001")
    counted = Counted(account)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(counted.client, target.chat_model, max_tokens=1000)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.body["type"] == "insufficient_quota"
    assert counted.statuses == [429]
    assert counted.answers[0].headers["x-should-retry"] == "false"
    assert "retry-after" not in counted.answers[0].headers


def test_a_request_above_the_token_limit_is_asked_for_once(open_account, target):
    account = open_account(key_limits=("--tpm", "100"))
    counted = Counted(account)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(counted.client, target.chat_model, max_tokens=500)
    assert (caught.value.code, caught.value.body["type"]) == ("rate_limit_exceeded", "tokens")
    assert counted.statuses == [429]


def test_a_wrong_key_is_tried_once(account, target):
    counted = Counted(account, api_key="sk-someone-elses")
    with pytest.raises(openai.AuthenticationError):
        ask(counted.client, target.chat_model)
    assert counted.statuses == [401]


@pytest.mark.simulated
def test_a_loading_node_is_503_until_it_is_ready(account, target, faulty):
    faulty.set_fault("loading:2s")
    wait_until("the gateway has seen it", lambda: target.node_states()["faulty"] != "ready", 10)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(account.client(), "sim-faulty")
    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
    assert caught.value.request_id.startswith("req_")
    assert int(caught.value.response.headers["retry-after-ms"]) > 0
    # The client's own patience is enough for the node to come back.
    counted = Counted(account, max_retries=6)
    assert ask(counted.client, "sim-faulty").choices[0].message.content
    assert set(counted.statuses[:-1]) <= {503}


@pytest.mark.simulated
def test_a_node_that_fails_is_a_server_error(account, faulty):
    faulty.set_fault("status:500")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(account.client(), "sim-faulty")
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_invalid_response")
    assert account.settles() == []


@pytest.mark.simulated
def test_an_answer_that_is_no_json_is_a_server_error(account, faulty):
    faulty.set_fault("bad_json")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(account.client(), "sim-faulty")
    assert caught.value.code == "upstream_invalid_response"
    assert account.settles() == []


@pytest.mark.simulated
def test_a_silent_node_is_a_gateway_timeout(account, target, faulty):
    faulty.set_fault("first_token:20s")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(account.client(), "sim-faulty")
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    wait_until("the node's work ended", lambda: faulty.metric("vllm:num_requests_waiting") == 0, 3)


@pytest.mark.simulated
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_another_node_serves_what_one_refuses(account, pair, stream):
    """The gateway's own retry: the client sees one good answer."""
    pair[0].set_fault("status:500")
    counted = Counted(account, max_retries=0)
    for _ in range(4):
        answer = ask(counted.client, "sim-pair", stream=stream)
        assert list(answer) if stream else answer.choices
    assert counted.statuses == [200] * 4
    wait_until("every answer is charged", lambda: len(account.settles()) == 4)


@pytest.mark.simulated
def test_connections_that_a_node_closes_unsaid_are_no_failures(account, faulty):
    """A kept connection turns out closed: once on a fresh one."""
    faulty.set_fault("close")
    counted = Counted(account, max_retries=0)
    for _ in range(6):
        assert ask(counted.client, "sim-faulty").choices
    assert list(ask(counted.client, "sim-faulty", stream=True))
    assert counted.statuses == [200] * 7


@pytest.mark.simulated
def test_connections_that_the_gateway_closed_idle_are_no_failures(account, target):
    """The edge closes idle connections after a second; the client's pool still holds them."""
    import httpx2

    opened = []
    context = target.certificate.context()
    with httpx2.Client(verify=context, event_hooks={"response": [opened.append]}) as http:
        client = account.client(http_client=http, base_url=target.edge.base_url)
        assert ask(client, target.chat_model).choices
        # The edge alone is asked here, so no connection is left when it has closed the idle one.
        wait_until("the edge to close it", lambda: target.edge.metrics()["tollgate_connections_open"] == 0)
        assert ask(client, target.chat_model).choices
        assert list(ask(client, target.chat_model, stream=True))
    assert [answer.status_code for answer in opened] == [200] * 3


@pytest.mark.simulated
def test_usage_that_cannot_be_is_not_believed(account, faulty):
    faulty.set_fault("usage:+100000%")
    answer = ask(account.client(), "sim-faulty")
    entry = account.expect_charge(answer._request_id, "sim-faulty", estimated=True)
    assert entry["completion_tokens"] <= 8


@pytest.mark.simulated
def test_a_plain_answer_without_usage_is_charged_by_count(account, faulty):
    faulty.set_fault("no_usage")
    answer = ask(account.client(), "sim-faulty")
    account.expect_charge(answer._request_id, "sim-faulty", estimated=True)


def test_a_timeout_of_the_client_leaves_a_gateway_that_serves(account, target):
    client = account.client()
    with pytest.raises((openai.APITimeoutError, openai.APIConnectionError)):
        client.with_options(timeout=0.02).chat.completions.create(
            model=target.chat_model if target.is_real else "sim-slow", messages=QUESTION, max_tokens=64
        )
    assert ask(client, target.chat_model).choices
