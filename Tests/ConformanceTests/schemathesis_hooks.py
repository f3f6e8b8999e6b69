"""What openapi.yaml says in words rather than in schemas, for the data that schemathesis makes.

Valid requests ask for a model that is there and for few tokens, and keep the rules between two fields. Invalid ones get
the same, where what they say about it is valid, so that they are refused for their fault and not for their model.
"""

import os

import schemathesis

MODEL = os.environ["CONFORMANCE_MODEL"]
TOKENS = 8
CHOICES = 3
# The simulated node takes fewer prompts at once than the gateway lets through.
PROMPTS = 1_024


def bounded(body: dict, name: str, limit: int) -> None:
    value = body.get(name)
    if isinstance(value, float) and value.is_integer():
        # To JSON Schema an integer; the gateway wants it written as one.
        value = body[name] = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**31 - 1:
        body[name] = min(value, limit)


def whole(item):
    """Tokens as integers are written."""
    if isinstance(item, list):
        return [whole(inner) for inner in item]
    return int(item) if isinstance(item, float) else item


def parts_of(messages):
    """The parts of all contents that are lists, those of tool results too."""
    for message in messages or []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, dict))
            yield from parts_of(content)


@schemathesis.hook
def before_call(context, case, **kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and 1 <= len(body["model"].encode(errors="replace")) <= 256:
        body["model"] = MODEL
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        bounded(body, name, TOKENS)
    for name in ("n", "best_of"):
        if isinstance(body.get(name), (int, float)) and body[name] <= 128:
            bounded(body, name, CHOICES)
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or not mode.is_positive:
        return
    for name in ("prompt", "input", "tokens", "documents", "text_1", "text_2"):
        if isinstance(body.get(name), list):
            body[name] = [whole(item) for item in body[name][:PROMPTS]]
    if case.path == "/v1/messages":
        # Where in a part no engine looks, any object passes; in a tool's result it must be a part.
        for part in parts_of([*body["messages"], {"content": body.get("system")}]):
            part.setdefault("type", "text")
    arguments = body.get("chat_template_kwargs") or {}
    for name, short in (("thinking_budget", 1000), ("thinking_mode", "on"), ("reasoning_effort", "low")):
        if arguments.get(name) is not None:
            arguments[name] = short
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        body["max_completion_tokens"] = body["max_tokens"]
    if body.get("best_of") is not None:
        body["best_of"] = max(body["best_of"], body.get("n") or 1)
    if body.get("stream_options") is not None and body.get("stream") is not True:
        del body["stream_options"]
    if case.path == "/tokenize" and not {"prompt", "messages"} & set(body):
        # The other word for it, of another engine.
        body["prompt"] = body.pop("content")
    if case.path == "/v1/score" and isinstance(body["text_1"], list):
        # Lists are compared pair by pair, or one text with each of a list.
        if not isinstance(body["text_2"], list):
            body["text_1"] = body["text_1"][0]
        else:
            count = min(len(body["text_1"]), len(body["text_2"]))
            body["text_1"], body["text_2"] = body["text_1"][:count], body["text_2"][:count]
