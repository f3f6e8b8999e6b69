"""The end of the run: what all tests before this one left behind."""

import json

import pytest

from accounts import CONTRACT


@pytest.fixture
def everything(stack):
    if not stack.accounts:
        pytest.skip("no test before this one had an account")
    return stack


def test_metrics_add_up_to_the_bill(everything):
    metrics = everything.gateway.metrics()
    entries = [entry for account in everything.accounts for entry in account.settles()]

    def total(name: str, label: str = "") -> int:
        return round(sum(value for series, value in metrics.items() if series.startswith(name) and label in series))

    assert total("tollgate_cost_nanousd_total") == -sum(entry["amount_nanousd"] for entry in entries)
    for kind, field in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        told = total("gen_ai_client_token_usage_sum", f'gen_ai_token_type="{kind}"')
        assert told == sum(entry[field] for entry in entries)
    assert total("tollgate_estimated_charges_total") == sum(entry["estimated"] for entry in entries)
    assert total("tollgate_illegal_events_total") == 0
    assert total("tollgate_usage_distrusted_total") == 0
    assert total("tollgate_reservations_open") == 0
    # Labels are closed sets: never an org, a key or what a client wrote.
    text = "".join(metrics)
    assert "gpt-nonsense" not in text
    for account in everything.accounts:
        assert f'"{account.org}"' not in text and account.key["id"] not in text


def test_all_books_balance_through_a_restart(everything):
    gateway = everything.gateway
    before = {account.org: account.entries() for account in everything.accounts}
    assert gateway.child.stop() == 0
    gateway.start()
    for account in everything.accounts:
        assert account.entries() == before[account.org]
        account.close()


def test_every_operation_of_the_openai_client_was_held_against_its_description(everything):
    """The other endpoints are held against theirs by the conformance suites."""
    called = {"createChatCompletion", "createCompletion", "createEmbedding", "listModels", "retrieveModel"}
    assert {operation for operation, status in CONTRACT.seen if status == 200} == called
    assert {status for _, status in CONTRACT.seen} >= {200, 400, 401, 403, 404, 429}


def test_the_access_log_has_a_line_for_each_charge_and_no_texts_or_secrets(everything):
    gateway = everything.gateway
    text = gateway.access_log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    charged = {line["request_id"]: line["cost_nanousd"] for line in lines if line["cost_nanousd"] is not None}
    entries = [entry for account in everything.accounts for entry in account.settles()]
    assert charged == {entry["request_id"]: -entry["amount_nanousd"] for entry in entries}
    secrets = [account.key["key"].rsplit("-", 1)[1] for account in everything.accounts]
    secrets += [gateway.env["TOLLGATE_ADMIN_TOKEN"], gateway.env["TOLLGATE_PEPPER"].split(":")[1]]
    for output in (text, gateway.child.log, gateway.child.output):
        assert "eliotrope" not in output
        assert not [secret for secret in secrets if secret in output]
