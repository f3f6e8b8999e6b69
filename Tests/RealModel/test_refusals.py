"""What is refused: the right error class, OpenAI's error object, and no entry in the ledger."""

import openai
import pytest

from accounts import raw_client
from processes import wait_until
from stack import CHAT_MODEL, EMBEDDING_MODEL

QUESTION = [{"role": "user", "content": "Say heliotrope."}]


def ask(client, **options):
    return client.chat.completions.create(**{"model": CHAT_MODEL, "messages": QUESTION, "max_tokens": 2, **options})


def refused(account, error, status, code, retries=None, client=None, **options) -> dict:
    with pytest.raises(error) as caught:
        ask(client or account.client(), **options)
    return account.expect_refusal(caught.value, status, code, retries)


def test_a_mistyped_key_is_refused(account):
    key = account.key["key"]
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(account.client(api_key=wrong))
    assert caught.value.status_code == 401
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["x-should-retry"] == "false"
    # Whose it is cannot be known: no limits are told.
    assert not [name for name in caught.value.response.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic dTpw", "Bearer sk-someone-elses"])
def test_what_is_no_key_is_refused(account, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    with raw_client(account.gateway) as http:
        answer = http.post("/chat/completions", json={"model": CHAT_MODEL, "messages": QUESTION}, headers=headers)
        listing = http.get("/models", headers=headers)
    assert (answer.status_code, listing.status_code) == (401, 401)
    assert answer.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")


def test_a_revoked_key_is_refused_within_a_second(account):
    client = account.client()
    answer = ask(client)
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    account.gateway.tollgate("key", "revoke", account.key["id"])

    def is_refused():
        try:
            answer = ask(client, max_tokens=1)
        except openai.AuthenticationError as error:
            return error
        account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
        return None

    error = wait_until("the revoked key is refused", is_refused, 2)
    assert error.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(account):
    refusal = refused(account, openai.NotFoundError, 404, "model_not_found", model="gpt-nonsense")
    assert refusal["param"] == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        account.client().models.retrieve("gpt-nonsense")
    assert caught.value.code == "model_not_found"


def test_the_nodes_own_name_is_unknown(account):
    refused(account, openai.NotFoundError, 404, "model_not_found", model="gemma-on-the-node")


def test_an_exhausted_request_limit(accounts):
    account = accounts.open(key_limits=("--rpm", "2"))
    client = account.client()
    for _ in range(2):
        answer = ask(client)
        account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    refusal = account.expect_refusal(caught.value, 429, "rate_limit_exceeded", retries=True)
    assert refusal["type"] == "requests"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "2"
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_an_org_limit_holds_for_all_its_keys(accounts):
    account = accounts.open()
    account.gateway.tollgate("org", "update", account.org, "--rpm", "1")
    second = account.gateway.tollgate("key", "create", "--org", account.org)
    answer = ask(account.client())
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    refused(account, openai.RateLimitError, 429, "rate_limit_exceeded", True, account.client(api_key=second["key"]))


def test_a_request_larger_than_the_token_limit_is_not_to_be_repeated(accounts):
    account = accounts.open(key_limits=("--tpm", "100"))
    refusal = refused(account, openai.RateLimitError, 429, "rate_limit_exceeded", False, max_tokens=200)
    assert refusal["type"] == "tokens"
    answer = ask(account.client())
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def test_a_second_request_at_once_is_refused_where_one_may_run(accounts):
    account = accounts.open(key_limits=("--concurrency", "1"))
    client = account.client()
    stream = ask(client, max_tokens=40, stream=True, stream_options={"include_usage": True})
    chunks = [next(stream)]
    refused(account, openai.RateLimitError, 429, "rate_limit_exceeded", True, client)
    chunks += list(stream)
    account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, chunks[-1].usage)
    answer = wait_until("the slot is free again", lambda: retried(client), 5)
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


def retried(client):
    try:
        return ask(client)
    except openai.RateLimitError:
        return None


def test_an_exhausted_balance_never_goes_below_zero(accounts):
    account = accounts.open(credit="0.000020")
    client = account.client()
    for _ in range(30):
        try:
            answer = ask(client)
        except openai.RateLimitError as error:
            refusal = account.expect_refusal(error, 429, "insufficient_quota")
            # Told once nothing runs that could give money back.
            assert error.response.headers["x-should-retry"] == "false"
            break
        account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    else:
        pytest.fail("the balance was never exhausted")
    assert refusal["type"] == "insufficient_quota"
    assert len(account.charged) >= 1
    account.gateway.tollgate("org", "credit", account.org, "1", "--ref", "top-up")
    answer = ask(client)
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
    account.topped_up_nanousd += 1_000_000_000


def test_a_request_dearer_than_the_balance_is_refused_before_the_node_works(accounts):
    account = accounts.open(credit="0.000020")
    refused(account, openai.RateLimitError, 429, "insufficient_quota", False, max_tokens=2000)
    assert account.show()["balance_nanousd"] == 20_000


def test_a_suspended_org_is_forbidden(account):
    account.gateway.tollgate("org", "suspend", account.org)
    refused(account, openai.PermissionDeniedError, 403, "org_suspended", False)
    account.gateway.tollgate("org", "resume", account.org)
    answer = ask(account.client())
    account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"n": 129}, "n"),
        ({"extra_body": {"n_predict": 9}}, "n_predict"),
        ({"extra_body": {"cache_salt": "mine"}}, "cache_salt"),
        ({"extra_body": {"id_slot": 1}}, "id_slot"),
        ({"extra_body": {"max_completion_tokens": 3}}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_what_the_gateway_cannot_bill_or_read_is_a_bad_request(account, options, parameter):
    refusal = refused(account, openai.BadRequestError, 400, "invalid_request", **options)
    assert refusal["param"] == parameter
    assert refusal["type"] == "invalid_request_error"


def test_a_stream_of_embeddings_is_refused(account):
    with pytest.raises(openai.BadRequestError) as caught:
        account.client().embeddings.create(model=EMBEDDING_MODEL, input="one", extra_body={"stream": True})
    assert account.expect_refusal(caught.value, 400, "invalid_request")["param"] == "stream"


def test_what_the_node_refuses_costs_nothing(account):
    """An answer format that llama.cpp cannot make: its own words, fit for a customer, and the hold goes back."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(account.client(), extra_body={"grammar": "root ::= no such rule ::= ["})
    error = caught.value
    assert isinstance(error.body, dict) and set(error.body) == {"message", "type", "param", "code"}
    assert error.code is None or isinstance(error.code, str)
    account.refused.append(error.response.headers["x-request-id"])


def test_a_prompt_beyond_the_models_context_costs_nothing(account):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(account.client(), messages=[{"role": "user", "content": "heliotrope " * 3000}])
    assert "context" in caught.value.message
    account.refused.append(caught.value.response.headers["x-request-id"])


def test_malformed_json_says_where(account):
    headers = {"Authorization": f"Bearer {account.key['key']}", "Content-Type": "application/json"}
    with raw_client(account.gateway) as http:
        answer = http.post("/chat/completions", content=b'{"model": "m", "messages": [}', headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert "byte 28" in answer.json()["error"]["message"]
    account.refused.append(answer.headers["x-request-id"])


def test_unknown_paths_and_methods(account):
    headers = {"Authorization": f"Bearer {account.key['key']}"}
    with raw_client(account.gateway) as http:
        assert http.get("/nothing", headers=headers).json()["error"]["code"] == "unknown_url"
        wrong = http.get("/chat/completions", headers=headers)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["code"] == "method_not_allowed"
