"""`/v1/completions` and `/v1/embeddings` with the official client."""

import math

import openai
import pytest

from talk import text_of

PROMPT = "One, two, three, four,"


def complete(client, model, prompt=PROMPT, **options):
    return client.completions.create(
        **{"model": model, "prompt": prompt, "max_tokens": 6, "temperature": 0, "seed": 7, **options}
    )


def test_a_text_is_continued_and_charged(client, account, target):
    answer = complete(client, target.chat_model)
    assert (answer.object, answer.model) == ("text_completion", target.chat_model)
    assert answer.choices[0].text
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.simulated
def test_a_list_of_prompts_gives_a_choice_each(client, account, target):
    answer = complete(client, target.chat_model, ["One, two,", "Red, green,"], extra_body={"ignore_eos": True})
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.completion_tokens == 12
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


def test_a_list_of_one_prompt_is_a_prompt(client, target):
    answer = complete(client, target.chat_model, [PROMPT])
    assert answer.choices[0].text == complete(client, target.chat_model).choices[0].text


def test_a_prompt_of_token_ids_is_taken(client, account, target):
    answer = complete(client, target.chat_model, [101, 202, 303])
    assert answer.choices[0].text
    # llama.cpp puts its token for the beginning before them.
    assert answer.usage.prompt_tokens in (3, 4)
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.simulated
def test_lists_of_token_ids_are_prompts(client, target):
    answer = complete(client, target.chat_model, [[101, 202], [303]])
    assert len(answer.choices) == 2
    assert answer.usage.prompt_tokens == 3


def test_legacy_logprobs_come_in_the_old_shape(client, target):
    answer = complete(client, target.chat_model, logprobs=2)
    told = answer.choices[0].logprobs
    if target.is_real:
        # llama.cpp answers in the newer shape, which passes as it is.
        assert told is not None
        return
    assert "".join(told.tokens) == answer.choices[0].text
    assert len(told.token_logprobs) == len(told.tokens) == len(told.text_offset)
    assert all(value <= 0 for value in told.token_logprobs)


@pytest.mark.simulated
def test_echo_repeats_the_prompt(client, account, target):
    answer = complete(client, target.chat_model, echo=True)
    assert answer.choices[0].text.startswith(PROMPT)
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.simulated
def test_the_best_of_three_is_charged_as_three(client, account, target):
    answer = complete(client, target.chat_model, best_of=3, extra_body={"ignore_eos": True})
    assert len(answer.choices) == 1
    assert answer.usage.completion_tokens == 18
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_says_what_the_plain_answer_says(client, account, target, wants_usage):
    plain = complete(client, target.chat_model)
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    stream = complete(client, target.chat_model, stream=True, **options)
    chunks = list(stream)
    assert text_of(chunks) == plain.choices[0].text
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(told) == (1 if wants_usage else 0)
    account.expect_charge(
        stream.response.headers["x-request-id"], target.chat_model, told[0] if told else None
    )


# Embeddings.


def embed(client, target, input, **options):
    return client.embeddings.create(model=target.embedding_model, input=input, **options)


def test_float_and_base64_embeddings_agree(client, target):
    floats = embed(client, target, "a cat sits on the mat", encoding_format="float").data[0].embedding
    # The client asks for base64 unless told otherwise, and decodes it.
    decoded = embed(client, target, "a cat sits on the mat").data[0].embedding
    assert len(floats) == len(decoded) > 1
    # base64 carries 32 bits, decimal digits as many as the node writes.
    assert all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7) for a, b in zip(floats, decoded))


def test_a_list_of_inputs_gives_a_vector_each(client, account, target):
    raw = client.embeddings.with_raw_response.create(
        model=target.embedding_model, input=["a cat", "a kitten", "interest rates"]
    )
    answer = raw.parse()
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert len({len(item.embedding) for item in answer.data}) == 1
    assert answer.model == target.embedding_model
    entry = account.expect_charge(raw.headers["x-request-id"], target.embedding_model, answer.usage)
    assert entry["completion_tokens"] == 0


def test_token_ids_are_embedded(client, target):
    assert embed(client, target, [101, 202, 303]).usage.prompt_tokens in (3, 4, 5)


@pytest.mark.simulated
def test_dimensions_are_obeyed(client, target):
    assert len(embed(client, target, "a cat", dimensions=32).data[0].embedding) == 32


def test_a_stream_of_embeddings_is_refused(client, target):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(client, target, "a cat", extra_body={"stream": True})
    assert (caught.value.code, caught.value.param) == ("invalid_request", "stream")
