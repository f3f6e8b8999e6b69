"""Clients that leave: the node stops at once, and what was delivered is charged by the gateway's own count."""

import openai
import pytest

from processes import wait_until
from stack import CHAT_MODEL

STORY = [{"role": "user", "content": "Write a very long story about a heliotrope."}]
# This node's template writes its marks as text, which may join a token with what stands beside them.
MARKS_OFF_MAX = 2


def reported_prompt(account, messages):
    """The tokens of a prompt as the model itself counts them."""
    answer = account.client().chat.completions.create(model=CHAT_MODEL, messages=messages, max_tokens=1)
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    return answer.usage.prompt_tokens


def test_a_disconnect_in_mid_stream_charges_what_was_delivered_and_stops_the_node(stack, account):
    prompt_tokens = reported_prompt(account, STORY)
    generated_before = stack.chat.metric("tokens_predicted_total")
    stream = account.client().chat.completions.create(
        model=CHAT_MODEL,
        messages=STORY,
        max_tokens=1500,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    read = 0
    for chunk in stream:
        assert chunk.usage is None
        read += bool(chunk.choices and chunk.choices[0].delta.content)
        if read == 5:
            break
    stream.close()
    entry = account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, estimated=True)
    assert abs(entry["prompt_tokens"] - prompt_tokens) <= MARKS_OFF_MAX
    assert 5 <= entry["completion_tokens"] < 200
    # 1,500 tokens would take a minute and more.
    wait_until("the node is idle", lambda: stack.chat.metric("requests_processing") == 0, 10)
    assert stack.chat.metric("tokens_predicted_total") - generated_before < 300
    assert account.gateway.access_line(entry["request_id"])["status"] == 499


def test_a_disconnect_before_the_first_token_charges_the_prompt(account):
    prompt = [{"role": "user", "content": "Tell me about " + "heliotropes and " * 300}]
    with pytest.raises(openai.APITimeoutError):
        account.client(timeout=1.0).chat.completions.create(
            model=CHAT_MODEL, messages=prompt, max_tokens=8
        )
    settles = wait_until("the charge of the request that nobody waited for", account.settles)
    assert len(settles) == 1
    entry = account.expect_charge(settles[0]["request_id"], CHAT_MODEL, estimated=True)
    assert entry["completion_tokens"] == 0
    # Asked only now: before, the node would have had it cached, and have answered in time.
    assert abs(entry["prompt_tokens"] - reported_prompt(account, prompt)) <= MARKS_OFF_MAX


def test_the_next_request_of_one_who_left_is_served(stack, account):
    client = account.client()
    for _ in range(2):
        stream = client.chat.completions.create(model=CHAT_MODEL, messages=STORY, max_tokens=500, stream=True)
        next(stream)
        stream.close()
        entry = account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, estimated=True)
        assert entry["completion_tokens"] < 200
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=STORY, max_tokens=2)
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
