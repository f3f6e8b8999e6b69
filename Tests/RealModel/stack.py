"""A real model behind a real gateway: two llama.cpp servers, a private Redis, `tollgate serve`."""

import os
import pathlib
import re
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ConformanceTests/common"))

import gateway as common  # noqa: E402
from gateway import TOLLGATE, Redis  # noqa: E402, F401
from processes import Child, answers, free_port  # noqa: E402

CHAT_MODEL = "gemma-3-270m"
EMBEDDING_MODEL = "gemma-3-270m-embedding"

# USD per million tokens. Odd on purpose: rounding must show.
PRICES_USD = {
    CHAT_MODEL: ("0.050000300", "0.010000700", "0.080000900"),
    EMBEDDING_MODEL: ("0.020000100", "0.020000100", "0"),
}


class ModelServer:
    """llama.cpp with the model; `url` without `/v1`."""

    def __init__(self, name: str, model_path: str, directory: pathlib.Path, *arguments: str):
        port = free_port()
        # The conformance suites run without llama.cpp in their own environment and name one that has it.
        python = os.environ.get("REAL_PYTHON", sys.executable)
        command = [python, str(HERE / "model_server.py"), model_path, str(port)]
        self.child = Child(name, [*command, *arguments], directory)
        self.url = f"http://127.0.0.1:{port}"
        self.child.wait_ready(lambda: answers(f"{self.url}/health"), 120)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            text = response.read().decode()
        found = re.search(rf"^llamacpp:{name} (\S+)$", text, re.MULTILINE)
        assert found, f"llama.cpp has no metric {name}"
        return float(found.group(1))


class Gateway(common.Gateway):
    """In front of one server for conversations and one for embeddings."""

    def __init__(self, directory: pathlib.Path, redis: Redis, chat: ModelServer, embedding: ModelServer, **sections):
        def model(name: str, output_tokens: int) -> dict:
            counts = {"tokenizer": os.environ["REAL_TOKENIZER"]} if name == CHAT_MODEL else {}
            return {"id": name, "context_tokens": 2048, "max_output_tokens": output_tokens, **counts}

        def node(name: str, server: ModelServer, served: str) -> dict:
            return {
                "id": name,
                "site": "here",
                "url": server.url,
                "engine": "llamacpp",
                "models": {served: "gemma-on-the-node"},
            }

        sections = {
            "timeouts": {"first_byte": "120s", "drain": "5s"},
            # The suites send more wrong keys from one address than any client would.
            "failed_keys": {"per_address": "unlimited"},
            "models": [model(CHAT_MODEL, 64), model(EMBEDDING_MODEL, 1)],
            "sites": [{"id": "here", "rtt": "1ms"}],
            "nodes": [node("here-chat", chat, CHAT_MODEL), node("here-embedding", embedding, EMBEDDING_MODEL)],
            **sections,
        }
        super().__init__(directory, redis, PRICES_USD, sections)
