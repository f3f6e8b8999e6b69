"""`/v1/models` with the official client."""

import asyncio
import time

import openai
import pytest

from fleet import ALIAS


def test_models_are_listed_with_their_public_ids(client, target):
    listed = [model.id for model in client.models.list()]
    assert target.chat_model in listed
    assert not [name for name in listed if "on-the-node" in name]


def test_a_model_is_retrieved(client, target):
    model = client.models.retrieve(target.chat_model)
    assert (model.id, model.object, model.owned_by) == (target.chat_model, "model", "tollgate")
    assert abs(model.created - time.time()) < 3600


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-nonsense")
    assert (caught.value.status_code, caught.value.code) == (404, "model_not_found")
    assert caught.value.request_id.startswith("req_")


def test_models_cost_nothing(client, account):
    client.models.list()
    assert account.settles() == []


def test_the_async_client_lists_models(account, target):
    async def listed():
        options = {"base_url": target.gateway.base_url, "api_key": account.key["key"], "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            return [model.id async for model in await client.models.list()]

    assert target.chat_model in asyncio.run(listed())


@pytest.mark.simulated
def test_an_alias_answers_as_its_model(client, account):
    assert client.models.retrieve(ALIAS).id == "sim-small"
    answer = client.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "Hello"}], max_tokens=2
    )
    assert answer.model == "sim-small"
    account.expect_charge(answer._request_id, "sim-small", answer.usage)


@pytest.mark.simulated
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_serves_in_place_of_a_model_that_is_down(client, account, stream):
    raw = client.chat.completions.with_raw_response.create(
        model="sim-down", messages=[{"role": "user", "content": "Hello"}], max_tokens=2, stream=stream
    )
    assert raw.headers["x-tollgate-fallback"] == "sim-small"
    answer = raw.parse()
    models = {chunk.model for chunk in answer} if stream else {answer.model}
    assert models == {"sim-small"}
    account.expect_charge(raw.headers["x-request-id"], "sim-small")


@pytest.mark.simulated
def test_a_key_sees_only_the_models_that_it_may_use(open_account):
    account = open_account(key_limits=("--models", "sim-pair"))
    client = account.client()
    assert [model.id for model in client.models.list()] == ["sim-pair"]
    with pytest.raises(openai.NotFoundError) as hidden:
        client.models.retrieve("sim-small")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("sim-nothing")
    assert hidden.value.message.replace("sim-small", "sim-nothing") == unknown.value.message
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=ALIAS, messages=[{"role": "user", "content": "Hello"}])
