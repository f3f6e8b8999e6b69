"""What customers ask for, with the official client; each answer's usage is what the ledger charges."""

import math
import time

import pytest

from stack import CHAT_MODEL, EMBEDDING_MODEL

QUESTION = [{"role": "user", "content": "Which colour is a heliotrope? Answer in one sentence."}]


def ask(client, **options):
    return client.chat.completions.create(
        **{"model": CHAT_MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0, **options}
    )


def content_of(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_chat_answers_and_is_charged_what_the_client_sees(account):
    answer = ask(account.client())
    assert answer.model == CHAT_MODEL
    assert answer.choices[0].message.content
    assert 0 < answer.usage.completion_tokens <= 12
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_a_repeated_prompt_is_charged_the_cached_price(account):
    client = account.client()
    first = ask(client, max_tokens=2)
    second = ask(client, max_tokens=2)
    assert second.usage.prompt_tokens_details.cached_tokens > 0
    account.expect_charge(first._request_id, CHAT_MODEL, first.usage)
    account.expect_charge(second._request_id, CHAT_MODEL, second.usage)


def test_max_completion_tokens_bounds_the_answer_too(account):
    answer = ask(account.client(), max_tokens=None, max_completion_tokens=3)
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_a_request_that_names_no_limit_gets_the_models_own(account):
    answer = account.client().chat.completions.create(
        model=CHAT_MODEL, messages=[{"role": "user", "content": "Count from 1 to 1000."}], temperature=0
    )
    assert answer.usage.completion_tokens <= 64
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_unknown_fields_reach_the_model(account):
    """llama.cpp answers with `grammar` obeyed: a field that the gateway does not know."""
    answer = ask(account.client(), extra_body={"grammar": 'root ::= "tollgate"'})
    assert answer.choices[0].message.content == "tollgate"
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_answers_carry_request_id_processing_time_and_rate_limits(accounts):
    account = accounts.open(key_limits=("--rpm", "50", "--tpm", "20000"))
    raw = account.client().chat.completions.with_raw_response.create(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=1
    )
    headers = raw.headers
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) > 0
    assert headers["x-ratelimit-limit-requests"] == "50"
    assert headers["x-ratelimit-remaining-requests"] == "49"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert headers["x-ratelimit-limit-tokens"] == "20000"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 20000
    account.expect_charge(headers["x-request-id"], CHAT_MODEL, raw.parse().usage)


def test_streaming_with_usage_tells_it_last(account):
    stream = ask(account.client(), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert {chunk.model for chunk in chunks} == {CHAT_MODEL}
    assert content_of(chunks)
    account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, chunks[-1].usage)


def test_streaming_without_usage_shows_none_and_charges_the_same(account):
    client = account.client()
    plain = ask(client)
    account.expect_charge(plain._request_id, CHAT_MODEL, plain.usage)
    stream = ask(client, stream=True)
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert content_of(chunks) == plain.choices[0].message.content
    entry = account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL)
    assert entry["prompt_tokens"] == plain.usage.prompt_tokens
    assert entry["completion_tokens"] == plain.usage.completion_tokens


def test_chunks_come_as_the_model_makes_them(account):
    client = account.client()
    started = time.monotonic()
    stream = ask(client, max_tokens=24, stream=True, stream_options={"include_usage": True})
    times, usage = [], None
    for chunk in stream:
        usage = chunk.usage or usage
        if chunk.choices and chunk.choices[0].delta.content:
            times.append(time.monotonic() - started)
    assert len(times) > 4
    # A gateway that waited for the end would deliver all of them at once.
    assert times[-1] - times[0] > 0.25 * times[-1]
    account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, usage)


def test_streams_at_once_are_charged_one_by_one(account):
    client = account.client()
    streams = [ask(client, stream=True, max_tokens=6, stream_options={"include_usage": True}) for _ in range(4)]
    for stream in streams:
        chunks = list(stream)
        account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, chunks[-1].usage)
    assert len(account.charged) == 4


def test_completion_continues_a_text(account):
    answer = account.client().completions.create(
        model=CHAT_MODEL, prompt="One, two, three, four,", max_tokens=6, temperature=0
    )
    assert answer.model == CHAT_MODEL
    assert answer.choices[0].text
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_several_choices_are_charged_by_the_gateways_own_count(account):
    """llama.cpp reports the tokens of one, whatever their number."""
    answer = ask(account.client(), n=2, extra_body={"ignore_eos": True})
    assert len(answer.choices) == 2
    entry = account.expect_charge(answer._request_id, CHAT_MODEL, estimated=True)
    assert answer.usage.completion_tokens < entry["completion_tokens"] <= 24


def test_several_prompts_are_charged_by_the_gateways_own_count(account):
    answer = account.client().completions.create(
        model=CHAT_MODEL, prompt=["One, two, three,", "Red, green,"], max_tokens=6, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    entry = account.expect_charge(answer._request_id, CHAT_MODEL, estimated=True)
    assert answer.usage.completion_tokens < entry["completion_tokens"] <= 12


@pytest.mark.parametrize("wants_usage", [True, False])
def test_completion_streams(account, wants_usage):
    client = account.client()
    options = {"model": CHAT_MODEL, "prompt": "One, two, three, four,", "max_tokens": 6, "temperature": 0}
    plain = client.completions.create(**options)
    account.expect_charge(plain._request_id, CHAT_MODEL, plain.usage)
    extra = {"stream_options": {"include_usage": True}} if wants_usage else {}
    stream = client.completions.create(**options, stream=True, **extra)
    chunks = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].text
    assert {chunk.model for chunk in chunks} == {CHAT_MODEL}
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(told) == (1 if wants_usage else 0)
    entry = account.expect_charge(
        stream.response.headers["x-request-id"], CHAT_MODEL, told[0] if told else None
    )
    assert entry["completion_tokens"] == plain.usage.completion_tokens


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_embeddings_of_a_list(account, encoding):
    texts = ["a cat sits on the mat", "a kitten sits on the rug", "interest rates rose sharply"]
    # The client asks for base64 unless told otherwise, and decodes it.
    extra = {"encoding_format": "float"} if encoding == "float" else {}
    raw = account.client().embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=texts, **extra)
    answer = raw.parse()
    assert answer.model == EMBEDDING_MODEL
    assert [item.index for item in answer.data] == [0, 1, 2]
    vectors = [item.embedding for item in answer.data]
    assert {len(vector) for vector in vectors} == {640}
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    entry = account.expect_charge(raw.headers["x-request-id"], EMBEDDING_MODEL, answer.usage)
    assert entry["completion_tokens"] == 0


def cosine(left, right) -> float:
    dot = sum(a * b for a, b in zip(left, right))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def test_models_are_listed_and_retrieved_for_free(account):
    client = account.client()
    assert [model.id for model in client.models.list()] == [CHAT_MODEL, EMBEDDING_MODEL]
    model = client.models.retrieve(CHAT_MODEL)
    assert (model.id, model.object, model.owned_by) == (CHAT_MODEL, "model", "tollgate")
    assert abs(model.created - time.time()) < 3600


def test_the_async_client_works_the_same(account):
    import asyncio

    import openai

    async def talk():
        async with openai.AsyncOpenAI(
            base_url=account.gateway.base_url, api_key=account.key["key"], max_retries=0
        ) as client:
            return await client.chat.completions.create(model=CHAT_MODEL, messages=QUESTION, max_tokens=2)

    answer = asyncio.run(talk())
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
