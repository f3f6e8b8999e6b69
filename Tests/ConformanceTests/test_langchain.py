"""langchain-openai as a client: what applications built on it call."""

import asyncio

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

QUESTION = "Which colour is a heliotrope?"
COLOUR = 'Repeat exactly: {"red":true,"green":false}'


@pytest.fixture
def chat(account, target):
    return ChatOpenAI(
        model=target.chat_model,
        base_url=target.gateway.base_url,
        api_key=account.key["key"],
        max_tokens=16,
        temperature=0,
        max_retries=0,
    )


def test_invoke_answers_with_usage(chat):
    message = chat.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert message.content
    assert message.usage_metadata["output_tokens"] > 0
    assert message.response_metadata["model_name"] == chat.model_name


def test_stream_gives_the_text_in_parts_and_the_usage_last(chat, target):
    # Off by default where the base URL is not OpenAI's own.
    parts = list(chat.stream(QUESTION, stream_usage=True))
    assert len([part for part in parts if part.content]) > 1
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) > 0
    assert "".join(part.content for part in parts)


def test_batch_answers_each(chat, account, target):
    count = 2 if target.is_real else 5
    answers = chat.batch([f"{number}: {QUESTION}" for number in range(count)])
    assert all(answer.content for answer in answers)
    assert len(account.settles()) == count


def test_ainvoke_and_astream_answer(chat):
    async def talk():
        answer = await chat.ainvoke(QUESTION)
        return answer, [part async for part in chat.astream(QUESTION)]

    answer, parts = asyncio.run(talk())
    assert answer.content and "".join(part.content for part in parts)


class Colour(pydantic.BaseModel):
    """A colour's parts."""

    red: bool
    green: bool


def test_structured_output_by_schema_is_the_callers_type(chat):
    chat.max_tokens = 48
    answer = chat.with_structured_output(Colour, method="json_schema").invoke(COLOUR)
    assert isinstance(answer, Colour)


@pytest.mark.simulated
def test_structured_output_by_function_call_is_the_callers_type(chat):
    assert isinstance(chat.with_structured_output(Colour, method="function_calling").invoke(QUESTION), Colour)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


@pytest.mark.simulated
def test_bound_tools_are_called_and_their_results_taken(chat):
    bound = chat.bind_tools([weather], tool_choice="weather")
    message = bound.invoke(QUESTION)
    (call,) = message.tool_calls
    assert call["name"] == "weather" and isinstance(call["args"]["city"], str)
    history = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call]), ToolMessage("12", tool_call_id=call["id"])]
    assert chat.invoke(history).content


def test_a_text_is_completed(account, target):
    model = OpenAI(
        model=target.chat_model,
        base_url=target.gateway.base_url,
        api_key=account.key["key"],
        max_tokens=6,
        temperature=0,
        max_retries=0,
    )
    assert model.invoke("One, two, three,")


def test_documents_and_queries_are_embedded(account, target):
    embeddings = OpenAIEmbeddings(
        model=target.embedding_model,
        base_url=target.gateway.base_url,
        api_key=account.key["key"],
        # It would fetch a tokenizer from the network for models of OpenAI's own.
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    vectors = embeddings.embed_documents(["a cat", "a kitten"])
    assert len(vectors) == 2 and len(vectors[0]) == len(embeddings.embed_query("a cat")) > 1


def test_errors_are_openais_classes(chat, target):
    wrong = ChatOpenAI(
        model=target.chat_model, base_url=target.gateway.base_url, api_key="sk-someone-elses", max_retries=0
    )
    with pytest.raises(openai.AuthenticationError):
        wrong.invoke(QUESTION)
    with pytest.raises(openai.NotFoundError):
        chat.model_copy(update={"model_name": "nonsense"}).invoke(QUESTION)


@pytest.mark.simulated
def test_the_responses_endpoint_is_used_where_asked(account, target):
    chat = ChatOpenAI(
        model="sim-small",
        base_url=target.gateway.base_url,
        api_key=account.key["key"],
        use_responses_api=True,
        max_retries=0,
    )
    assert chat.invoke(QUESTION).text
    assert "".join(part.text for part in chat.stream(QUESTION))
