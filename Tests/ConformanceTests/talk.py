"""What most tests ask, and how they read streams."""

QUESTION = [{"role": "user", "content": "Which colour is a heliotrope? Answer in one sentence."}]

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def ask(client, model, **options):
    """A chat completion; None takes a default away."""
    asked = {"model": model, "messages": QUESTION, "max_tokens": 8, "temperature": 0, "seed": 7, **options}
    return client.chat.completions.create(**{name: value for name, value in asked.items() if value is not None})


def content_of(chunks, index: int = 0) -> str:
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index
    )


def text_of(chunks) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)
