"""Streams of chat completions with the official client, sync, async and with its helpers."""

import asyncio
import json

import openai
import pydantic
import pytest

from processes import wait_until
from talk import COLOUR, QUESTION, TOOL, ask, content_of


def test_the_role_comes_first_and_one_id_throughout(client, target):
    chunks = list(ask(client, target.chat_model, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", target.chat_model)}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert content_of(chunks)


def test_usage_comes_last_and_once_where_asked(client, account, target):
    stream = ask(client, target.chat_model, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    account.expect_charge(stream.response.headers["x-request-id"], target.chat_model, chunks[-1].usage)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}], ids=["absent", "empty", "false"])
def test_no_usage_comes_unasked_and_the_charge_is_the_nodes(client, account, target, options):
    stream = ask(client, target.chat_model, stream=True, stream_options=options)
    chunks = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    entry = account.expect_charge(stream.response.headers["x-request-id"], target.chat_model)
    plain = ask(client, target.chat_model)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (
        plain.usage.prompt_tokens,
        plain.usage.completion_tokens,
    )


def test_a_stream_says_what_the_plain_answer_says(client, target):
    plain = ask(client, target.chat_model, max_tokens=24)
    chunks = list(ask(client, target.chat_model, max_tokens=24, stream=True))
    assert content_of(chunks) == plain.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == plain.choices[0].finish_reason


@pytest.mark.simulated
def test_two_choices_stream_side_by_side(client, target):
    plain = ask(client, target.chat_model, n=2)
    chunks = list(ask(client, target.chat_model, n=2, stream=True))
    for index in (0, 1):
        assert content_of(chunks, index) == plain.choices[index].message.content


def test_logprobs_stream_with_their_tokens(client, target):
    chunks = list(ask(client, target.chat_model, stream=True, logprobs=True, top_logprobs=1))
    told = [item for chunk in chunks for choice in chunk.choices if choice.logprobs for item in choice.logprobs.content]
    assert "".join(item.token for item in told).strip() == content_of(chunks).strip()


@pytest.mark.simulated
def test_a_tool_call_streams_in_parts_that_join(client, target):
    chunks = list(
        ask(client, target.chat_model, max_tokens=64, stream=True, tools=[TOOL], tool_choice="required")
    )
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [call.function.name for call in calls if call.function.name] == ["weather"]
    assert "city" in json.loads("".join(call.function.arguments or "" for call in calls))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


class Colour(pydantic.BaseModel):
    red: bool
    green: bool


def test_the_stream_helper_joins_the_answer(client, target):
    with client.chat.completions.stream(
        model=target.chat_model, messages=QUESTION, max_tokens=8, temperature=0, seed=7
    ) as stream:
        kinds = [event.type for event in stream]
        try:
            final = stream.get_final_completion()
        except openai.LengthFinishReasonError as error:
            # The helper raises where the limit cut the answer off, and hands it over.
            final = error.completion
    assert "content.delta" in kinds and "chunk" in kinds
    assert final.choices[0].message.content == ask(client, target.chat_model).choices[0].message.content


def test_the_stream_helper_parses_the_clients_own_type(client, target):
    with client.chat.completions.stream(
        model=target.chat_model, messages=COLOUR, max_tokens=48, temperature=0, response_format=Colour
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Colour)


def test_the_async_client_streams(account, target):
    async def talk():
        options = {"base_url": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            stream = await ask(client, target.chat_model, stream=True, stream_options={"include_usage": True})
            chunks = [chunk async for chunk in stream]
            return stream.response.headers["x-request-id"], chunks

    request_id, chunks = asyncio.run(talk())
    assert content_of(chunks)
    account.expect_charge(request_id, target.chat_model, chunks[-1].usage)


@pytest.mark.simulated
def test_chunks_arrive_as_they_are_made(client, target):
    """A gateway that held the stream back would show the node idle when the first chunk arrives."""
    stream = ask(client, "sim-slow", max_tokens=200, stream=True, extra_body={"ignore_eos": True})
    iterator = iter(stream)
    while not next(iterator).choices[0].delta.content:
        pass
    assert target.nodes["slow"].metric("vllm:num_requests_running") == 1
    stream.close()
    target.nodes["slow"].wait_idle()


def test_a_client_that_leaves_in_mid_stream_pays_what_came_and_stops_the_node(client, account, target):
    model = target.chat_model if target.is_real else "sim-slow"
    # Within the real model's context.
    options = {"max_tokens": 1500, "stream": True, "extra_body": {"ignore_eos": True}}
    before = 0 if target.is_real else target.nodes["slow"].aborted
    stream = ask(client, model, **options)
    iterator = iter(stream)
    for _ in range(4):
        next(iterator)
    stream.close()
    entry = account.expect_charge(stream.response.headers["x-request-id"], model, estimated=True)
    assert 1 <= entry["completion_tokens"] < 400
    if not target.is_real:
        wait_until("the node heard of it", lambda: target.nodes["slow"].aborted == before + 1, 2)
        target.nodes["slow"].wait_idle()


@pytest.mark.simulated
def test_a_client_that_times_out_stops_the_node(account, target, client):
    before = target.nodes["slow"].aborted
    with pytest.raises(openai.APITimeoutError):
        ask(client, "sim-slow", max_tokens=2000, timeout=0.5, extra_body={"ignore_eos": True})
    wait_until("the node heard of it", lambda: target.nodes["slow"].aborted == before + 1, 2)
    target.nodes["slow"].wait_idle()
    (entry,) = wait_until("the charge of the prompt", account.settles)
    assert entry["estimated"] and entry["completion_tokens"] == 0


@pytest.mark.simulated
def test_the_death_of_the_node_in_mid_stream_raises_in_the_client(client, faulty):
    faulty.set_fault("die:5")
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in ask(client, "sim-faulty", max_tokens=40, stream=True, extra_body={"ignore_eos": True}):
            got.append(chunk)
    assert content_of(got)
    assert caught.value.body["code"] in ("upstream_unavailable", "upstream_invalid_response")


@pytest.mark.simulated
def test_an_end_without_done_raises_in_the_client(client, faulty):
    faulty.set_fault("no_done")
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, "sim-faulty", max_tokens=4, stream=True))
    assert caught.value.body["code"] == "upstream_invalid_response"


@pytest.mark.simulated
def test_a_stream_that_stalls_ends_with_an_error(client, faulty):
    faulty.set_fault("stall:3")
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, "sim-faulty", max_tokens=40, stream=True, extra_body={"ignore_eos": True}))
    assert caught.value.body["code"] == "upstream_timeout"


@pytest.mark.simulated
def test_a_node_that_generates_past_the_limit_is_stopped(client, account, faulty):
    faulty.set_fault("overrun:30")
    got = []
    with pytest.raises(openai.APIError):
        for chunk in ask(client, "sim-faulty", max_tokens=4, stream=True):
            got.append(chunk)
    (entry,) = wait_until("its charge", account.settles)
    assert entry["completion_tokens"] <= 4


@pytest.mark.simulated
def test_a_stream_without_the_nodes_usage_is_charged_by_count(client, account, faulty):
    faulty.set_fault("no_usage")
    stream = ask(client, "sim-faulty", max_tokens=6, stream=True, extra_body={"ignore_eos": True})
    assert content_of(list(stream))
    entry = account.expect_charge(stream.response.headers["x-request-id"], "sim-faulty", estimated=True)
    assert entry["completion_tokens"] == 6
