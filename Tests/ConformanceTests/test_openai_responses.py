"""`/v1/responses` with the official client: stateless, plain and streaming."""

import json

import openai
import pytest

QUESTION = "Which colour is a heliotrope?"
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def model(target):
    return target.chat_model


def respond(client, model, **options):
    return client.responses.create(**{"model": model, "input": QUESTION, "max_output_tokens": 16, **options})


def test_a_question_is_answered_and_charged(client, account, model):
    raw = client.responses.with_raw_response.create(model=model, input=QUESTION, max_output_tokens=16)
    answer = raw.parse()
    assert answer.object == "response"
    assert answer.model == model
    assert answer.output_text
    assert answer.status in ("completed", "incomplete")
    account.expect_charge(raw.headers["x-request-id"], model, answer.usage)


@pytest.mark.simulated
def test_instructions_and_items_count_as_prompt(client, model):
    items = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Purple."},
        {"role": "user", "content": [{"type": "input_text", "text": "Are you sure?"}]},
    ]
    short, long = respond(client, model), respond(client, model, input=items, instructions="Be brief, and be right.")
    assert long.usage.input_tokens > short.usage.input_tokens


@pytest.mark.simulated
def test_a_limit_that_is_met_makes_the_response_incomplete(client, model):
    answer = respond(client, model, max_output_tokens=3, extra_body={"ignore_eos": True})
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 3


def test_events_stream_in_order_and_the_last_has_the_usage(client, account, target, model):
    stream = respond(client, model, stream=True)
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    if not target.is_real:
        # llama.cpp leaves the numbers out.
        assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert text == final.output_text
    # llama.cpp's first events leave the model out.
    assert {event.response.model for event in events if hasattr(event, "response")} - {None} == {model}
    account.expect_charge(stream.response.headers["x-request-id"], model, final.usage)


@pytest.mark.simulated
def test_the_stream_helper_joins_the_answer(client, model):
    # It wants a response that is complete: far more tokens than the node makes of its own accord.
    with client.responses.stream(model=model, input=QUESTION, max_output_tokens=3_900) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text


@pytest.mark.simulated
def test_a_function_tool_is_taken(client, model):
    assert respond(client, model, tools=[TOOL]).status in ("completed", "incomplete")


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": 7}, "input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_state_or_a_server_side_tool_is_refused(client, model, options, parameter):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, model, **options)
    assert caught.value.code == "invalid_request"
    assert caught.value.param.split("[")[0] == parameter


@pytest.mark.simulated
def test_a_node_that_dies_in_mid_stream_raises_in_the_client(client, faulty):
    faulty.set_fault("die:3")
    events = []
    with pytest.raises(openai.APIError):
        for event in respond(
            client, "sim-faulty", max_output_tokens=40, stream=True, extra_body={"ignore_eos": True}
        ):
            events.append(event.type)
    assert "response.completed" not in events


@pytest.mark.simulated
def test_an_end_without_the_last_event_raises_in_the_client(client, faulty):
    faulty.set_fault("no_done")
    with pytest.raises(openai.APIError):
        list(respond(client, "sim-faulty", max_output_tokens=4, stream=True))


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        respond(client, "gpt-nonsense")
    assert json.loads(caught.value.response.text)["error"]["code"] == "model_not_found"
