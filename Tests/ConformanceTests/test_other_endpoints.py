"""Rerank, score, tokenize and detokenize, which no official client has, and the description itself; plain HTTP."""

import httpx2
import pytest
import yaml

from contract import FILE

MODEL = "sim-small"
DOCUMENTS = ["a cat sits on the mat", "interest rates rose", "a kitten on a rug"]


def test_the_description_is_served_without_a_key(target):
    answer = httpx2.get(f"{target.gateway.root_url}/openapi.yaml")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == "application/yaml"
    assert yaml.safe_load(answer.text) == yaml.safe_load(FILE.read_text())


@pytest.mark.simulated
def test_documents_are_reranked_and_charged(http, account):
    body = {"model": MODEL, "query": "cats", "documents": DOCUMENTS, "top_n": 2}
    answer = http.post("/v1/rerank", json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert len(told["results"]) == 2
    scores = [result["relevance_score"] for result in told["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {result["index"] for result in told["results"]} <= {0, 1, 2}
    assert told["model"] == MODEL
    account.expect_charge(answer.headers["x-request-id"], MODEL, told["usage"])


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("left", "right", "count"),
    [("a cat", "a kitten", 1), ("a cat", DOCUMENTS, 3), (["a cat", "rates"], ["a kitten", "interest"], 2)],
    ids=["text-text", "text-list", "list-list"],
)
def test_texts_are_scored_in_pairs_and_charged(http, account, left, right, count):
    answer = http.post("/v1/score", json={"model": MODEL, "text_1": left, "text_2": right})
    assert answer.status_code == 200
    told = answer.json()
    assert len(told["data"]) == count
    account.expect_charge(answer.headers["x-request-id"], MODEL, told["usage"])


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/v1/rerank", {"documents": DOCUMENTS}, "query"),
        ("/v1/rerank", {"query": "cats"}, "documents"),
        ("/v1/rerank", {"query": "cats", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "cats", "documents": [7]}, "documents[0]"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
        ("/v1/score", {"text_1": 7, "text_2": "b"}, "text_1"),
        ("/tokenize", {}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_missing_or_wrong_field_is_named(http, path, body, parameter):
    answer = http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == parameter


def test_tokens_give_the_text_back_and_cost_nothing(http, account, target):
    text = "One, two, drei, vier: heliotrope ✓"
    # llama.cpp's words for it are others.
    body = {"content": text} if target.is_real else {"prompt": text, "add_special_tokens": False}
    tokens = http.post("/tokenize", json={"model": target.chat_model, **body})
    assert tokens.status_code == 200
    told = tokens.json()["tokens"]
    assert len(told) > 0
    if not target.is_real:
        assert tokens.json()["count"] == len(told)
    back = http.post("/detokenize", json={"model": target.chat_model, "tokens": told})
    assert back.status_code == 200
    assert back.json()["content" if target.is_real else "prompt"].rstrip("\0") == text
    assert account.settles() == []


def test_an_endpoint_that_a_node_cannot_serve_does_not_take_the_node_out(http, target, account, request):
    """One customer's requests for it must not make the model unavailable to all others."""
    model = target.chat_model
    if not target.is_real:
        # llama.cpp without a reranker says 501; the simulated node serves everything, so the fault says it.
        model = "sim-faulty"
        request.getfixturevalue("faulty").set_fault("status:501")
    for _ in range(4):
        answer = http.post("/v1/rerank", json={"model": model, "query": "cats", "documents": DOCUMENTS})
        assert answer.status_code >= 400
    if not target.is_real:
        target.nodes["faulty"].set_fault("")
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert len(account.settles()) == 1


@pytest.mark.simulated
def test_a_conversation_is_tokenized(http):
    answer = http.post("/tokenize", json={"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    assert answer.status_code == 200
    assert answer.json()["count"] > 0


@pytest.mark.simulated
def test_tokenizing_counts_as_a_request(open_account, target):
    account = open_account(key_limits=("--rpm", "1"))
    headers = {"Authorization": f"Bearer {account.key['key']}"}
    with httpx2.Client(base_url=target.gateway.root_url, headers=headers) as http:
        body = {"model": MODEL, "prompt": "Hello"}
        assert http.post("/tokenize", json=body).status_code == 200
        assert http.post("/tokenize", json=body).status_code == 429
