"""An org with credit and a key, and what its ledger must say in the end."""

import json
import math
from decimal import Decimal

from contract import Contract
from gateway import Gateway
from processes import wait_until

NANO = 1_000_000_000
CONTRACT = Contract()


def tokens_seen(usage) -> tuple[int, int, int]:
    """Prompt, cached and completion tokens of a usage as any of the clients gives it."""
    told = usage if isinstance(usage, dict) else usage.model_dump()
    if told.get("input_tokens") is not None:
        cached = (told.get("input_tokens_details") or {}).get("cached_tokens") or 0
        # Anthropic counts what was read from a cache apart from its input.
        apart = told.get("cache_read_input_tokens") or 0
        return told["input_tokens"] + apart, cached + apart, told.get("output_tokens") or 0
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return told["prompt_tokens"], cached, told.get("completion_tokens") or 0


class Account:
    """Expectations are told as requests end; `close` compares them with the ledger, entry by entry."""

    def __init__(self, gateway: Gateway, org: str, credit: str = "1", key_limits: tuple[str, ...] = ()):
        self.gateway = gateway
        self.org = org
        self.credit_nanousd = int(Decimal(credit) * NANO)
        self.topped_up_nanousd = 0
        self.key = self._create(credit, key_limits)
        self.charged: dict[str, dict] = {}
        self.refused: list[str] = []

    def _create(self, credit: str, key_limits: tuple[str, ...]) -> dict:
        self.gateway.tollgate("org", "create", self.org, "--credit", credit)
        return self.gateway.tollgate("key", "create", "--org", self.org, *key_limits)

    def client(self, api_key: str | None = None, **options):
        """The official client, without retries of its own. Every answer is held against openapi.yaml on its way."""
        import openai

        hooks = {"response": [CONTRACT.check]}
        http = openai.DefaultHttpxClient(event_hooks=hooks)
        return openai.OpenAI(
            **{
                "base_url": self.gateway.base_url,
                "api_key": api_key or self.key["key"],
                "max_retries": 0,
                "http_client": http,
                **options,
            }
        )

    # What the ledger must say.

    def expect_charge(self, request_id: str, model: str, usage=None, estimated: bool = False) -> dict:
        """Waits for the request's entry and checks it against the usage that the client saw, where it saw one."""
        entry = wait_until(f"a ledger entry of {request_id}", lambda: self._entry(request_id))
        assert entry["type"] == "settle"
        assert entry["model"] == model
        assert entry["key"] == self.key["id"]
        assert entry["estimated"] is estimated
        assert entry["price_version"] == 1
        if usage is not None:
            told = (entry["prompt_tokens"], entry["cached_tokens"], entry["completion_tokens"])
            assert tokens_seen(usage) == told
        tokens = (entry["prompt_tokens"], entry["cached_tokens"], entry["completion_tokens"])
        cost = self.gateway.cost_nanousd(model, *tokens)
        assert entry["amount_nanousd"] == -cost
        line = self.gateway.access_line(request_id)
        assert (line["org"], line["key_id"], line["model"]) == (self.org, self.key["id"], model)
        assert (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]) == (
            entry["prompt_tokens"],
            entry["cached_tokens"],
            entry["completion_tokens"],
        )
        assert line["cost_nanousd"] == cost
        assert line["estimated"] is estimated
        self.charged[request_id] = entry
        return entry

    def expect_refusal(
        self, error, status: int, code: str | None, retries: bool | None = None
    ) -> dict:
        """Checks a refused request's error object and headers; its request must leave no entry.

        `retries` says what the client must be told: true to wait, false not to try again, None nothing in particular.
        """
        assert error.status_code == status
        body = json.loads(error.response.text)
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["code"] == code
        assert body["error"]["message"]
        headers = error.response.headers
        if retries is False:
            assert headers["x-should-retry"] == "false"
        if retries is True:
            assert 0 < int(headers["retry-after-ms"]) <= 60_000
            assert int(headers["retry-after"]) == math.ceil(int(headers["retry-after-ms"]) / 1000)
        request_id = headers["x-request-id"]
        assert int(headers["openai-processing-ms"]) >= 0
        self.refused.append(request_id)
        line = self.gateway.access_line(request_id)
        assert line["status"] == status
        assert line["cost_nanousd"] is None and line["prompt_tokens"] is None
        return body["error"]

    def entries(self) -> list[dict]:
        return self.gateway.tollgate("ledger", "list", "--org", self.org)

    def settles(self) -> list[dict]:
        return [entry for entry in self.entries() if entry["type"] == "settle"]

    def show(self) -> dict:
        return self.gateway.tollgate("org", "show", self.org)

    def _entry(self, request_id: str) -> dict | None:
        found = [entry for entry in self.entries() if entry["request_id"] == request_id]
        assert len(found) <= 1, f"{request_id} was charged twice"
        return found[0] if found else None

    # The end.

    def close(self) -> None:
        """The top-ups, exactly the charges expected and nothing else; the balance is their sum."""
        wait_until("no hold is running", lambda: self.verify()["open_reservations"] == 0)
        entries = self.entries()
        credits = [entry["amount_nanousd"] for entry in entries if entry["type"] == "credit"]
        assert credits == [self.credit_nanousd] + ([self.topped_up_nanousd] if self.topped_up_nanousd else [])
        assert {entry["request_id"] for entry in entries if entry["type"] == "settle"} == set(self.charged)
        assert not set(self.refused) & {entry["request_id"] for entry in entries}
        assert len(entries) == len(credits) + len(self.charged)
        spent = sum(entry["amount_nanousd"] for entry in self.charged.values())
        org = self.show()
        assert org["balance_nanousd"] == sum(entry["amount_nanousd"] for entry in entries)
        assert org["balance_nanousd"] == sum(credits) + spent
        assert org["balance_nanousd"] >= 0
        assert org["reserved_nanousd"] == 0
        verification = self.verify()
        assert verification == {"entries": len(entries), "drift_nanousd": 0, "open_reservations": 0}
        self._check_usage(spent)

    def verify(self) -> dict:
        return self.gateway.tollgate("ledger", "verify", "--org", self.org)

    def _check_usage(self, spent: int) -> None:
        rows = self.gateway.tollgate("usage", "--org", self.org, "--by", "model")
        assert sum(row["requests"] for row in rows) == len(self.charged)
        assert sum(row["cost_nanousd"] for row in rows) == -spent
        for field in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            assert sum(row[field] for row in rows) == sum(entry[field] for entry in self.charged.values())


class QuickAccount(Account):
    """The same by the control plane's own requests: the suites of hundreds of tests have an org for each."""

    def _create(self, credit: str, key_limits: tuple[str, ...]) -> dict:
        self.gateway.admin("POST", "orgs", {"id": self.org, "opening_credit_usd": credit})
        limits = dict(zip((name.removeprefix("--") for name in key_limits[::2]), key_limits[1::2], strict=True))
        values = {name: value.split(",") if name == "models" else int(value) for name, value in limits.items()}
        return self.gateway.admin("POST", "keys", {"org": self.org, **values})

    def entries(self) -> list[dict]:
        entries, after = [], ""
        while True:
            page = self.gateway.admin("GET", f"orgs/{self.org}/ledger?limit=1000{after}")
            entries += page
            if len(page) < 1000:
                return entries
            after = f"&after={page[-1]['id']}"

    def show(self) -> dict:
        return self.gateway.admin("GET", f"orgs/{self.org}")

    def verify(self) -> dict:
        return self.gateway.admin("GET", f"orgs/{self.org}/ledger/verify")


def raw_client(gateway: Gateway):
    """Plain HTTP, for what the official client does not send."""
    import httpx2

    return httpx2.Client(base_url=gateway.base_url, timeout=60, event_hooks={"response": [CONTRACT.check]})
