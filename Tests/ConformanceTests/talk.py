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

# Bounded, and the question shows an answer: a small model would fill it with blanks until the limit cuts it off.
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer"},
        "tags": {"type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 4}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
PERSON = [{"role": "user", "content": 'Repeat exactly: {"name":"Ada","age":36,"tags":["x"]}'}]
COLOUR = [{"role": "user", "content": 'Repeat exactly: {"red":true,"green":false}'}]


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
