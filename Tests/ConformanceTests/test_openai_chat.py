"""`/v1/chat/completions`, plain, with the official client: every parameter that clients send."""

import asyncio
import json

import openai
import pydantic
import pytest

from talk import COLOUR, PERSON, QUESTION, SCHEMA, TOOL, ask


def test_a_question_is_answered_and_charged(client, account, target):
    answer = ask(client, target.chat_model)
    assert answer.model == target.chat_model
    assert answer.object == "chat.completion"
    assert (answer.choices[0].index, answer.choices[0].message.role) == (0, "assistant")
    assert answer.choices[0].message.content
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_on_tokens_holds_under_both_names(client, target, name):
    options = {"max_tokens": None, name: 3}
    if not target.is_real:
        options["extra_body"] = {"ignore_eos": True}
    answer = ask(client, target.chat_model, **options)
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_a_model_named_no_limit_by_the_client_keeps_its_own(client, target):
    answer = ask(client, target.chat_model, max_tokens=None)
    assert 0 < answer.usage.completion_tokens <= 64


def test_two_choices_are_two_answers_and_both_are_charged(client, account, target):
    answer = ask(client, target.chat_model, n=2, extra_body={"ignore_eos": True})
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.message.content for choice in answer.choices)
    if target.is_real:
        # llama.cpp reports the tokens of one of them.
        entry = account.expect_charge(answer._request_id, target.chat_model, estimated=True)
        assert answer.usage.completion_tokens < entry["completion_tokens"] <= 16
        return
    assert answer.usage.completion_tokens == 16
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


def test_logprobs_come_for_each_token(client, target):
    answer = ask(client, target.chat_model, logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs.content
    assert "".join(item.token for item in told).strip() == answer.choices[0].message.content.strip()
    assert all(item.logprob <= 0 and len(item.top_logprobs) == 2 for item in told)


def test_no_logprobs_come_unasked(client, target):
    assert ask(client, target.chat_model).choices[0].logprobs is None


def test_the_same_seed_gives_the_same_answer(client, target):
    first, second = (ask(client, target.chat_model, seed=11).choices[0].message.content for _ in range(2))
    assert first == second
    if not target.is_real:
        assert ask(client, target.chat_model, seed=12).choices[0].message.content != first


def test_a_stop_string_ends_the_answer(client, target):
    whole = ask(client, target.chat_model, max_tokens=24).choices[0].message.content
    stop = whole.split()[3]
    answer = ask(client, target.chat_model, max_tokens=24, stop=[stop])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == whole[: whole.index(stop)]


def test_a_json_object_is_json(client, target):
    messages = [{"role": "user", "content": "Give me a JSON object with a name and an age."}]
    answer = ask(client, target.chat_model, messages=messages, max_tokens=64, response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        # The limit may cut it off; it began as one.
        assert target.is_real and answer.choices[0].message.content.lstrip().startswith("{")


def test_a_json_schema_is_kept(client, target):
    import jsonschema

    format = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = ask(client, target.chat_model, messages=PERSON, max_tokens=64, response_format=format)
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)


class Colour(pydantic.BaseModel):
    red: bool
    green: bool


def test_parse_gives_the_clients_own_type(client, target):
    answer = client.chat.completions.parse(
        model=target.chat_model, messages=COLOUR, max_tokens=48, temperature=0, response_format=Colour
    )
    assert isinstance(answer.choices[0].message.parsed, Colour)


@pytest.mark.simulated
def test_a_required_tool_is_called_with_arguments_that_fit(client, account, target):
    answer = ask(client, target.chat_model, max_tokens=64, tools=[TOOL], tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str) and arguments["unit"] in ("celsius", "fahrenheit")
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


@pytest.mark.simulated
def test_a_named_tool_is_called(client, target):
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = ask(client, target.chat_model, max_tokens=64, tools=[TOOL], tool_choice=choice)
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


def test_a_history_with_tool_calls_is_answered(client, target):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
    ]
    if target.is_real:
        # The small model's template knows no tools; their results come as text.
        messages = [*QUESTION, {"role": "assistant", "content": "One moment."}, {"role": "user", "content": "12"}]
    assert ask(client, target.chat_model, messages=messages).choices[0].message.content


def test_content_in_several_parts_is_answered(client, target):
    parts = [{"type": "text", "text": "Which colour"}, {"type": "text", "text": "is a heliotrope?"}]
    assert ask(client, target.chat_model, messages=[{"role": "user", "content": parts}]).choices[0].message.content


@pytest.mark.simulated
def test_an_image_part_counts_as_the_node_counts_it(client, account, target):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    answer = ask(client, target.chat_model, messages=messages)
    assert answer.usage.prompt_tokens > 256
    account.expect_charge(answer._request_id, target.chat_model, answer.usage)


def test_a_system_and_a_developer_message_are_answered(client, target):
    roles = ["system"] if target.is_real else ["system", "developer"]
    messages = [{"role": role, "content": "Be brief."} for role in roles] + QUESTION
    assert ask(client, target.chat_model, messages=messages).choices[0].message.content


def test_unknown_parameters_pass(client, target):
    assert ask(client, target.chat_model, extra_body={"frobnicate": {"deeply": [1, None, "x"]}}).choices


def test_user_metadata_and_store_are_taken(client, target):
    answer = ask(client, target.chat_model, user="u-1", metadata={"job": "7"}, store=False)
    assert answer.choices[0].message.content


def test_sampling_parameters_are_taken(client, target):
    options = {"top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {}, "temperature": 0.2}
    answer = ask(client, target.chat_model, **options)
    assert answer.choices[0].message.content


def test_raw_responses_carry_the_headers(open_account, target):
    account = open_account(key_limits=("--rpm", "50", "--tpm", "20000"))
    raw = account.client().chat.completions.with_raw_response.create(
        model=target.chat_model, messages=QUESTION, max_tokens=1
    )
    headers = raw.headers
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("50", "49")
    assert headers["x-ratelimit-limit-tokens"] == "20000"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 20000
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert headers["x-ratelimit-reset-tokens"].endswith("s")
    assert raw.parse()._request_id == headers["x-request-id"]


def test_limits_that_are_not_set_are_not_told(client, target):
    raw = client.chat.completions.with_raw_response.create(model=target.chat_model, messages=QUESTION, max_tokens=1)
    assert not [name for name in raw.headers if name.startswith("x-ratelimit")]


def test_the_async_client_gets_ten_answers_at_once(account, target):
    async def talk():
        options = {"base_url": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            asked = {"model": target.chat_model, "messages": QUESTION, "max_tokens": 2}
            count = 3 if target.is_real else 10
            return await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(count)))

    answers = asyncio.run(talk())
    assert len({answer._request_id for answer in answers}) == len(answers)
    for answer in answers:
        account.expect_charge(answer._request_id, target.chat_model, answer.usage)
