"""The gateway's own counts, by the model's vocabulary, against what the model reports: token by token.

The node writes conversations in Gemma's own form. Its marks are tokens of their own and texts between them are trimmed,
so a prompt is exactly its texts, which have no blanks at their ends here, and a + b for each message.
"""

import itertools
import json
import os
import pathlib
import sys
import urllib.request

import openai
import pytest

from accounts import QuickAccount
from stack import CHAT_MODEL, HERE, TOLLGATE, Gateway, ModelServer, Redis

sys.path.insert(0, str(HERE.parent / "Tokens"))
from ours import Live, Ours  # noqa: E402

CONTEXT = 2048
CODE = "def fold(items, start=0):\n    for item in items:\n        start += item['price'] * 1.19\n    return start"
LONG = "The heliotrope turns its flowers to the sun; at night it turns back and waits for 7 o'clock. " * 12
TEXTS = [
    "Which colour is a heliotrope?", "Say one word.", "日本の首都はどこですか?", "Какого цвета гелиотроп?",
    "ما هو لون زهرة رقيب الشمس؟", "हेलियोट्रोप किस रंग का होता है?", "헬리오트로프는 무슨 색입니까?",
    "Ποιο χρώμα έχει το ηλιοτρόπιο;",
    "Write three emoji 👩‍👩‍👧🏳️‍🌈👍🏽 more.", CODE, '{"city": "Zürich", "days": [1, 2, 3], "note": "a\\tb\\n"}',
    "1234567890 + 0987654321 = ?", "a\u0301 cafe\u0301 nai\u0308ve", "SELECT * FROM t WHERE a <> 'b'; -- ¿qué?",
]  # fmt: skip


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


CHATS = [
    *([user(text)] for text in TEXTS),
    [user(LONG.strip())],
    [{"role": "system", "content": "Answer in one word."}, user("Which colour is a heliotrope?")],
    [user("Hello"), assistant("Hello! How can I help?"), user("Count to three.")],
    [user(CODE), assistant("It sums prices with tax:\n\n1. 19 %\n2. none else"), user("日本語で言ってください。")],
    [turn for i in range(4) for turn in (user(f"Number {i}?"), assistant(f"{i} is {'even' if i % 2 == 0 else 'odd'}."))]
    + [user("And 4?")],
    [{"role": "system", "content": LONG.strip()}, user("👍"), assistant("🙏"), user("Merci, et après ?")],
]
# Lengths that no chat above has.
OTHERS = [
    [turn for i in range(turns) for turn in (user(f"{text} {i}"), assistant("Yes."))] + [user(text * (1 + turns // 3))]
    for turns, text in enumerate(TEXTS[:10])
]


class Stack:
    """A gateway of its own, in front of a node that writes Gemma's turns."""

    def __init__(self, directory: pathlib.Path, model_path: str):
        self.accounts: list[QuickAccount] = []
        self.children = []
        vocabulary = pathlib.Path(os.environ["REAL_TOKENIZER"])
        try:
            redis = Redis(directory)
            self.children.append(redis.child)
            self.node = ModelServer("turns", model_path, directory, "--turns")
            self.children.append(self.node.child)
            self.gateway = Gateway(directory, redis, self.node, self.node)
            self.children.append(self.gateway.child)
            self.counter = Live(Ours(TOLLGATE, vocabulary), ("--count",))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if hasattr(self, "counter"):
            self.counter.close()
        for child in reversed(self.children):
            child.stop()

    def count(self, text: str) -> int:
        """By `tollgate tokenize --count`."""
        return int(self.counter.lines([text.encode()])[0])

    def texts(self, messages: list[dict]) -> int:
        return sum(self.count(message["content"]) for message in messages)

    def node_count(self, text: str) -> int:
        body = json.dumps({"content": text, "add_special": False}).encode()
        request = urllib.request.Request(f"{self.node.url}/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return len(json.load(response)["tokens"])


class Accounts:
    numbers = itertools.count(1)

    def __init__(self, stack: Stack):
        self.stack = stack
        self.opened: list[QuickAccount] = []

    def open(self, *key_limits: str) -> QuickAccount:
        self.opened.append(QuickAccount(self.stack.gateway, f"counted-{next(self.numbers)}", "1", key_limits))
        return self.opened[-1]

    def close(self) -> None:
        for account in self.opened:
            account.close()


@pytest.fixture(scope="module")
def turns(tmp_path_factory, model_path):
    turns = Stack(tmp_path_factory.mktemp("turns"), model_path)
    yield turns
    turns.stop()


@pytest.fixture
def accounts(turns):
    return Accounts(turns)


@pytest.fixture
def account(accounts):
    return accounts.open()


def ask(account: QuickAccount, messages: list[dict], **options):
    """An answer: its text, why it ended, its usage."""
    client = account.client()
    options = {"model": CHAT_MODEL, "messages": messages, "max_tokens": 12, "temperature": 0, **options}
    if not options.get("stream"):
        answer = client.chat.completions.create(**options)
        account.expect_charge(answer._request_id, CHAT_MODEL, answer.usage)
        choice = answer.choices[0]
        return choice.message.content or "", choice.finish_reason, answer.usage
    stream = client.chat.completions.create(**options, stream_options={"include_usage": True})
    chunks = list(stream)
    account.expect_charge(stream.response.headers["x-request-id"], CHAT_MODEL, chunks[-1].usage)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason, chunks[-1].usage


@pytest.fixture(scope="module")
def overhead(turns):
    """(a, b): from two requests, of one message and of three."""
    account = QuickAccount(turns.gateway, "derives")
    overheads = []
    for messages in ([user("One")], [user("One"), assistant("Two"), user("Three")]):
        _, _, usage = ask(account, messages, max_tokens=1)
        overheads.append(usage.prompt_tokens - turns.texts(messages))
    account.close()
    each, rest = divmod(overheads[1] - overheads[0], 2)
    assert rest == 0
    return overheads[0] - each, each


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_answers_have_as_many_tokens_as_are_reported(turns, account, stream):
    """And one more where the model ended by itself: the token that ends it is generated, and no text."""
    ends, spelt = set(), []
    for number, messages in enumerate(CHATS):
        # This model seldom ends by itself: every second time its end is made likelier (token 1, <eos>).
        bias = {"logit_bias": {"1": 12}} if number % 2 else {}
        content, reason, usage = ask(account, messages, stream=stream, **bias)
        count = turns.count(content)
        assert count == turns.node_count(content), content
        ends.add(reason)
        if usage.completion_tokens != count + (reason == "stop"):
            spelt.append((messages[-1]["content"][:40], content, reason, usage.completion_tokens, count))
    print(f"{len(CHATS)} chats, {len(CHATS) - len(spelt)} equal, ends: {sorted(ends)}")
    assert ends == {"stop", "length"}
    # A model may write a text in other tokens than its vocabulary would, or be cut off within a character.
    assert len(spelt) <= 2, spelt


def test_prompts_are_their_texts_and_a_constant_for_each_message(turns, account, overhead):
    around, each = overhead
    print(f"{around} + {each} x messages")
    for messages in CHATS + OTHERS:
        _, _, usage = ask(account, messages, max_tokens=1)
        assert usage.prompt_tokens == turns.texts(messages) + around + each * len(messages), messages


def test_the_gateway_learns_the_template_and_takes_from_the_rate_what_is_reported(turns, accounts, account):
    for messages in CHATS[:4] + CHATS[-4:]:
        ask(account, messages, max_tokens=1)
    for number, messages in enumerate(OTHERS):
        # A key of its own: nothing has flowed back into its rates.
        limited = accounts.open("--rpm", "100", "--tpm", "50000")
        raw = limited.client().chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=messages, max_tokens=2 + number, temperature=0
        )
        usage = raw.parse().usage
        limited.expect_charge(raw.headers["x-request-id"], CHAT_MODEL, usage)
        assert 50_000 - int(raw.headers["x-ratelimit-remaining-tokens"]) == usage.prompt_tokens + 2 + number, messages


def test_a_prompt_above_the_context_is_refused_before_the_node_sees_it(turns, account):
    # Served, though it has more bytes than the context has tokens.
    fits = " ".join(f"{number} sunflowers turn" for number in range(250))
    count = turns.count(fits)
    assert 1000 < count < CONTEXT - 64 and len(fits) > CONTEXT
    _, _, usage = ask(account, [user(fits)], max_tokens=1)
    assert usage.prompt_tokens > count
    overlong = fits + " and" * (CONTEXT + 32 - count)
    assert turns.count(overlong) > CONTEXT + 16
    before = turns.node.metric("prompt_tokens_total")
    with pytest.raises(openai.BadRequestError) as caught:
        account.client().chat.completions.create(model=CHAT_MODEL, messages=[user(overlong)], max_tokens=1)
    refusal = account.expect_refusal(caught.value, 400, "context_length_exceeded")
    assert str(CONTEXT) in refusal["message"]
    assert turns.node.metric("prompt_tokens_total") == before


def test_several_choices_are_charged_by_the_vocabulary(turns, account):
    """llama.cpp reports the tokens of one, whatever their number: the gateway counts all of them."""
    answer = account.client().chat.completions.create(
        model=CHAT_MODEL, messages=CHATS[0], n=2, max_tokens=8, temperature=0, extra_body={"ignore_eos": True}
    )
    entry = account.expect_charge(answer._request_id, CHAT_MODEL, estimated=True)
    told = sum(turns.count(choice.message.content) for choice in answer.choices)
    assert told <= entry["completion_tokens"] <= 16
