"""litellm as a client, in an environment of its own: its calls, and the exception classes that it makes of errors."""

import asyncio

import pytest

litellm = pytest.importorskip("litellm")

QUESTION = [{"role": "user", "content": "Which colour is a heliotrope?"}]


@pytest.fixture
def options(account, target):
    return {"api_base": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}


def complete(options, target, **more):
    asked = {"model": f"openai/{target.chat_model}", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    return litellm.completion(**{**asked, **options, **more})


def test_a_completion_answers_with_usage(options, target, account):
    answer = complete(options, target)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0
    (entry,) = account.settles()
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


def test_a_stream_gives_the_same_text(options, target):
    # Greedy and with a seed: the same request, the same words.
    plain = complete(options, target, seed=7)
    chunks = list(complete(options, target, seed=7, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content


def test_acompletion_answers_and_streams(options, target):
    async def talk():
        asked = {"model": f"openai/{target.chat_model}", "messages": QUESTION, "max_tokens": 8, **options}
        plain = await litellm.acompletion(**asked)
        stream = await litellm.acompletion(**asked, stream=True)
        return plain, [chunk async for chunk in stream]

    plain, chunks = asyncio.run(talk())
    assert plain.choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_text_is_completed(options, target):
    answer = litellm.text_completion(
        model=f"text-completion-openai/{target.chat_model}", prompt="One, two,", max_tokens=4, **options
    )
    assert answer.choices[0].text


def test_texts_are_embedded(options, target):
    answer = litellm.embedding(
        model=f"openai/{target.embedding_model}", input=["a cat", "a kitten"], encoding_format="float", **options
    )
    assert len(answer.data) == 2 and len(answer.data[0]["embedding"]) > 1


@pytest.mark.simulated
def test_a_tool_is_called(options, target):
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    answer = complete(options, target, max_tokens=64, tools=[tool], tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


@pytest.mark.simulated
def test_anthropics_protocol_answers_and_streams(options, target):
    asked = {"model": "anthropic/sim-small", "messages": QUESTION, "max_tokens": 8, "api_key": options["api_key"]}
    asked["api_base"] = target.gateway.root_url
    assert litellm.completion(**asked).choices[0].message.content
    chunks = list(litellm.completion(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.simulated
def test_documents_are_reranked(options, target):
    answer = litellm.rerank(
        model="hosted_vllm/sim-small",
        query="cats",
        documents=["a cat", "interest rates", "a kitten"],
        top_n=2,
        api_base=target.gateway.base_url,
        api_key=options["api_key"],
    )
    assert len(answer.results) == 2


def test_a_wrong_key_is_its_authentication_error(options, target):
    with pytest.raises(litellm.AuthenticationError):
        complete({**options, "api_key": "sk-someone-elses"}, target)


def test_an_unknown_model_is_its_not_found_error(options, target):
    with pytest.raises(litellm.NotFoundError):
        complete({**options, "model": "openai/gpt-nonsense"}, target)


def test_a_bad_request_is_its_bad_request_error(options, target):
    with pytest.raises(litellm.BadRequestError):
        complete(options, target, extra_body={"n_predict": 9})


def test_too_many_tokens_are_its_context_window_error(options, target):
    with pytest.raises(litellm.ContextWindowExceededError):
        complete(options, target, max_tokens=200_000)


@pytest.mark.parametrize("limits", [("--rpm", "1"), ("--tpm", "40")], ids=["rate", "too-large"])
def test_a_reached_limit_is_its_rate_limit_error(open_account, target, limits):
    account = open_account(key_limits=limits)
    options = {"api_base": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}
    with pytest.raises(litellm.RateLimitError):
        for _ in range(3):
            complete(options, target, max_tokens=60)


def test_an_exhausted_balance_is_its_rate_limit_error(open_account, target):
    account = open_account(credit="0.000001")
    options = {"api_base": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}
    with pytest.raises(litellm.RateLimitError):
        complete(options, target, max_tokens=1000)


@pytest.mark.simulated
def test_a_failing_node_is_its_server_error(options, target, faulty):
    faulty.set_fault("status:500")
    with pytest.raises((litellm.InternalServerError, litellm.BadGatewayError, litellm.ServiceUnavailableError)):
        complete({**options, "model": "openai/sim-faulty"}, target)


@pytest.mark.simulated
def test_a_stream_that_breaks_raises(options, target, faulty):
    faulty.set_fault("die:3")
    with pytest.raises(Exception) as caught:
        list(
            complete(
                {**options, "model": "openai/sim-faulty"},
                target,
                max_tokens=40,
                stream=True,
                extra_body={"ignore_eos": True},
            )
        )
    assert "lost" in str(caught.value) or "ended" in str(caught.value)
