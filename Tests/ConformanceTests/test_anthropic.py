"""`/v1/messages` with Anthropic's official client: its key header, its events, its error classes."""

import asyncio
import json

import anthropic
import httpx
import pytest

from accounts import CONTRACT
from processes import wait_until

QUESTION = [{"role": "user", "content": "Which colour is a heliotrope?"}]
TOOL = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def claude(account, target):
    # Each answer is held against openapi.yaml.
    http = anthropic.DefaultHttpxClient(event_hooks={"response": [CONTRACT.check]})
    options = {"base_url": target.gateway.root_url, "api_key": account.key["key"], "max_retries": 0}
    return anthropic.Anthropic(http_client=http, **options)


@pytest.fixture
def model(target):
    return target.chat_model


def say(claude, model, **options):
    return claude.messages.create(**{"model": model, "max_tokens": 8, "messages": QUESTION, **options})


def check_error(error: anthropic.APIStatusError, status: int, kind: str) -> None:
    assert error.status_code == status
    body = json.loads(error.response.text)
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert set(body["error"]) == {"type", "message"} and body["error"]["message"]
    assert body["request_id"] == error.response.headers["x-request-id"]


def test_a_question_is_answered_and_charged(claude, account, model):
    raw = claude.messages.with_raw_response.create(model=model, max_tokens=8, messages=QUESTION)
    message = raw.parse()
    assert (message.type, message.role, message.model) == ("message", "assistant", model)
    assert message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 8
    account.expect_charge(raw.headers["x-request-id"], model, message.usage)


@pytest.mark.simulated
def test_the_limit_on_tokens_is_a_stop_reason(claude, model):
    message = say(claude, model, max_tokens=3, extra_body={"ignore_eos": True})
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3


def test_a_system_text_and_blocks_count_as_prompt(claude, model):
    system = [{"type": "text", "text": "Be brief, and be right about colours."}]
    plain, instructed = say(claude, model), say(claude, model, system=system)
    assert instructed.usage.input_tokens > plain.usage.input_tokens
    assert say(claude, model, system="Be brief.").content


@pytest.mark.simulated
def test_a_stop_sequence_ends_the_answer(claude, model):
    # Without a seed of its own a request's text differs each time; a space is in every one.
    message = say(claude, model, max_tokens=32, stop_sequences=[" "], extra_body={"ignore_eos": True})
    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence == " "


def test_events_stream_in_order(claude, account, model):
    with claude.messages.with_streaming_response.create(
        model=model, max_tokens=8, messages=QUESTION, stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        request_id = raw.headers["x-request-id"]
        events = list(raw.parse())
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert "content_block_start" in kinds and "content_block_stop" in kinds
    assert events[0].message.model == model
    assert events[-2].delta.stop_reason in ("end_turn", "max_tokens")
    entry = account.expect_charge(request_id, model)
    assert entry["completion_tokens"] == events[-2].usage.output_tokens
    assert entry["estimated"] is False


def test_the_stream_helper_joins_the_answer(claude, model):
    with claude.messages.stream(model=model, max_tokens=8, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].text == text
    assert final.usage.output_tokens > 0


def test_the_async_client_streams(account, target, model):
    async def talk():
        options = {"base_url": target.gateway.root_url, "api_key": account.key["key"], "max_retries": 0}
        async with anthropic.AsyncAnthropic(**options) as claude:
            async with claude.messages.stream(model=model, max_tokens=8, messages=QUESTION) as stream:
                return [text async for text in stream.text_stream]

    assert "".join(asyncio.run(talk()))


@pytest.mark.simulated
def test_a_forced_tool_is_used_with_input_that_fits(claude, account, model):
    message = say(claude, model, max_tokens=64, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"})
    (use,) = [block for block in message.content if block.type == "tool_use"]
    assert use.name == "weather" and isinstance(use.input["city"], str)
    assert message.stop_reason == "tool_use"


@pytest.mark.simulated
def test_a_history_with_tools_is_answered(claude, model):
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bonn"}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "12 degrees"}]},
    ]
    assert say(claude, model, messages=messages, tools=[TOOL]).content


def test_the_key_is_taken_from_either_header(account, target, model):
    body = {"model": model, "max_tokens": 4, "messages": QUESTION}
    for headers in ({"x-api-key": account.key["key"]}, {"Authorization": f"Bearer {account.key['key']}"}):
        answer = httpx.post(f"{target.gateway.base_url}/messages", json=body, headers=headers)
        assert answer.status_code == 200, answer.text


def test_a_limit_on_tokens_may_be_left_out(account, target, model):
    headers = {"x-api-key": account.key["key"], "anthropic-version": "2023-06-01"}
    body = {"model": model, "messages": QUESTION}
    answer = httpx.post(f"{target.gateway.base_url}/messages", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["usage"]["output_tokens"] <= 64


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_wrong_key_is_an_authentication_error(target, stream, model):
    claude = anthropic.Anthropic(base_url=target.gateway.root_url, api_key="sk-someone-elses", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as caught:
        say(claude, model, stream=stream)
    check_error(caught.value, 401, "authentication_error")


def test_an_unknown_model_is_a_not_found_error(claude, model):
    with pytest.raises(anthropic.NotFoundError) as caught:
        say(claude, "claude-nonsense")
    check_error(caught.value, 404, "not_found_error")


@pytest.mark.parametrize(
    "options",
    [
        {"messages": []},
        {"messages": "hello"},
        {"max_tokens": 0},
        {"max_tokens": 20_000},
        {"extra_body": {"mcp_servers": []}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ],
    ids=lambda options: str(options)[:40],
)
def test_what_is_refused_is_an_invalid_request_error(claude, account, options, model):
    with pytest.raises(anthropic.BadRequestError) as caught:
        say(claude, model, **options)
    check_error(caught.value, 400, "invalid_request_error")
    assert account.settles() == []


def test_a_body_above_the_limit_is_too_large(claude, model):
    with pytest.raises(anthropic.APIStatusError) as caught:
        say(claude, model, messages=[{"role": "user", "content": "x" * (9 << 20)}])
    check_error(caught.value, 413, "request_too_large")


def test_a_suspended_org_is_a_permission_error(claude, account, model):
    account.gateway.tollgate("org", "suspend", account.org)
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        say(claude, model)
    check_error(caught.value, 403, "permission_error")


def test_an_exhausted_balance_is_asked_for_once(open_account, target, model):
    account = open_account(credit="0.000001")
    answers = []
    http = anthropic.DefaultHttpxClient(event_hooks={"response": [answers.append]})
    claude = anthropic.Anthropic(base_url=target.gateway.root_url, api_key=account.key["key"], http_client=http)
    with pytest.raises(anthropic.APIStatusError) as caught:
        say(claude, model, max_tokens=1000)
    check_error(caught.value, 429, "billing_error")
    assert len(answers) == 1


def test_a_reached_limit_is_a_rate_limit_error(open_account, target, model):
    account = open_account(key_limits=("--rpm", "1"))
    claude = anthropic.Anthropic(base_url=target.gateway.root_url, api_key=account.key["key"], max_retries=0)
    say(claude, model)
    with pytest.raises(anthropic.RateLimitError) as caught:
        say(claude, model)
    check_error(caught.value, 429, "rate_limit_error")
    assert int(caught.value.response.headers["retry-after-ms"]) > 0


@pytest.mark.simulated
def test_a_loading_node_is_an_overloaded_error(claude, target, faulty, model):
    faulty.set_fault("loading:3s")
    wait_until("the gateway has seen it", lambda: target.node_states()["faulty"] != "ready", 10)
    with pytest.raises(anthropic.InternalServerError) as caught:
        say(claude, "sim-faulty")
    check_error(caught.value, 503, "overloaded_error")


@pytest.mark.simulated
@pytest.mark.parametrize("fault", ["die:3", "no_done"])
def test_a_stream_that_breaks_raises_in_the_client(claude, faulty, fault, model):
    faulty.set_fault(fault)
    kinds = []
    with pytest.raises(anthropic.APIError):
        for event in say(
            claude, "sim-faulty", max_tokens=40, stream=True, extra_body={"ignore_eos": True}
        ):
            kinds.append(event.type)
    assert "message_stop" not in kinds
