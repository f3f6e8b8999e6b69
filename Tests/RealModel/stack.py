"""A real model behind a real gateway: two llama.cpp servers, a private Redis, `tollgate serve`, the command line."""

import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import urllib.request

from processes import Child, answers, free_port, wait_until

HERE = pathlib.Path(__file__).resolve().parent
TOLLGATE = os.environ.get("TOLLGATE_BINARY") or str(HERE.parent.parent / ".build/release/tollgate")

CHAT_MODEL = "gemma-3-270m"
EMBEDDING_MODEL = "gemma-3-270m-embedding"

# USD per million tokens, and the same in nano-dollars. Odd on purpose: rounding must show.
PRICES_USD = {
    CHAT_MODEL: ("0.050000300", "0.010000700", "0.080000900"),
    EMBEDDING_MODEL: ("0.020000100", "0.020000100", "0"),
}


def nano_per_million(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


PRICES = {model: tuple(nano_per_million(price) for price in prices) for model, prices in PRICES_USD.items()}


def cost_nanousd(model: str, prompt: int, cached: int, completion: int) -> int:
    """The bill by hand: one ceiling, in whole nano-dollars."""
    uncached_price, cached_price, completion_price = PRICES[model]
    exact = (prompt - cached) * uncached_price + cached * cached_price + completion * completion_price
    return -(-exact // 1_000_000)


class ModelServer:
    """llama.cpp with the model; `url` without `/v1`."""

    def __init__(self, name: str, model_path: str, directory: pathlib.Path, embedding: bool = False):
        port = free_port()
        command = [sys.executable, str(HERE / "model_server.py"), model_path, str(port)]
        self.child = Child(name, command + (["--embedding"] if embedding else []), directory)
        self.url = f"http://127.0.0.1:{port}"
        self.child.wait_ready(lambda: answers(f"{self.url}/health"), 120)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            text = response.read().decode()
        found = re.search(rf"^llamacpp:{name} (\S+)$", text, re.MULTILINE)
        assert found, f"llama.cpp has no metric {name}"
        return float(found.group(1))


class Redis:
    def __init__(self, directory: pathlib.Path):
        data = directory / "redis"
        data.mkdir()
        port, password = free_port(), secrets.token_hex(16)
        configuration = data / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {data}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        )
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self.child = Child("redis", ["redis-server", str(configuration)], directory)
        self.child.wait_ready(lambda: "Ready to accept connections" in self.child.output, 20)


class Gateway:
    """`tollgate serve`, and the command line that looks after it."""

    def __init__(self, directory: pathlib.Path, redis: Redis, chat: ModelServer, embedding: ModelServer):
        self.directory = directory
        self.port, self.admin_port = free_port(), free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.access_log = directory / "access.log"
        self.configuration = directory / "tollgate.yaml"
        self.env = {
            "TOLLGATE_PEPPER": f"p1:{secrets.token_hex(32)}",
            "TOLLGATE_ADMIN_TOKEN": secrets.token_hex(32),
            "TOLLGATE_ADMIN_URL": f"http://127.0.0.1:{self.admin_port}",
            "TOLLGATE_REDIS_URL": redis.url,
        }
        self.configuration.write_text(self.yaml(chat, embedding))
        self.start()

    def yaml(self, chat: ModelServer, embedding: ModelServer) -> str:
        def model(name: str, output_tokens: int) -> str:
            price = "input: {}, cached_input: {}, output: {}".format(*PRICES_USD[name])
            return (
                f"  - id: {name}\n    context_tokens: 2048\n    max_output_tokens: {output_tokens}\n"
                f"    price: {{ {price} }}\n"
            )

        def node(name: str, site: str, server: ModelServer, served: str) -> str:
            return (
                f"  - id: {name}\n    site: {site}\n    url: {server.url}\n    engine: llamacpp\n"
                f"    models: {{ {served}: gemma-on-the-node }}\n"
            )

        return (
            f"listen: 127.0.0.1:{self.port}\n"
            f"admin: {{ listen: '127.0.0.1:{self.admin_port}', token: '${{TOLLGATE_ADMIN_TOKEN}}' }}\n"
            f"journal: {{ directory: {self.directory / 'journal'} }}\n"
            f"access_log: {self.access_log}\n"
            "timeouts: { first_byte: 120s, drain: 5s }\n"
            "failed_keys: { per_address: unlimited }\n"
            f"models:\n{model(CHAT_MODEL, 64)}{model(EMBEDDING_MODEL, 1)}"
            "sites:\n  - { id: here, rtt: 1ms }\n"
            f"nodes:\n{node('here-chat', 'here', chat, CHAT_MODEL)}"
            f"{node('here-embedding', 'here', embedding, EMBEDDING_MODEL)}"
        )

    def start(self) -> None:
        self.tollgate("config", "check", str(self.configuration))
        command = [TOLLGATE, "serve", "--config", str(self.configuration)]
        self.child = Child("gateway", command, self.directory, self.env)
        self.child.wait_ready(lambda: answers(f"{self.env['TOLLGATE_ADMIN_URL']}/readyz"))
        self.wait_nodes_ready()

    def wait_nodes_ready(self) -> None:
        wait_until("both nodes are ready", lambda: {n["state"] for n in self.tollgate("node", "list")} == {"ready"}, 30)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TOLLGATE, *arguments, "--json"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, **self.env},
        )

    def tollgate(self, *arguments: str):
        """Runs the command line with `--json`; returns its one document."""
        result = self.run(*arguments)
        assert result.returncode == 0, f"tollgate {' '.join(arguments)}: {result.stderr}"
        return json.loads(result.stdout)

    def metrics(self) -> dict[str, float]:
        """Every series of `/metrics` with its value."""
        with urllib.request.urlopen(f"{self.env['TOLLGATE_ADMIN_URL']}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        samples = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {series: float(value) for series, value in samples}

    def access_line(self, request_id: str) -> dict:
        """The access log's line of a request; there must be exactly one."""

        def find():
            lines = [line for line in self.access_log.read_text().splitlines() if f'"{request_id}"' in line]
            return lines if lines else None

        lines = wait_until(f"an access-log line of {request_id}", find, 5)
        assert len(lines) == 1
        return json.loads(lines[0])
