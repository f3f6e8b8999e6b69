"""A private Redis, `tollgate serve` in front of nodes, and the command line that looks after it."""

import json
import os
import pathlib
import secrets
import subprocess
import urllib.request

import yaml

from processes import Child, answers, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
TOLLGATE = os.environ.get("TOLLGATE_BINARY") or str(ROOT / ".build/release/tollgate")


def nano_per_million(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


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
    """`tollgate serve` with the configuration given, on free ports.

    `prices` are USD per million tokens by model: input, cached input, output. They go into the configuration, and the
    bills are held against them. `sections` become the file; `absent` names nodes that are not there on purpose.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        redis: Redis,
        prices: dict[str, tuple[str, str, str]],
        sections: dict,
        name: str = "gateway",
        absent: frozenset[str] = frozenset(),
        pepper: str | None = None,
    ):
        self.directory = directory
        self.name = name
        self.absent = absent
        self.prices = {model: tuple(nano_per_million(price) for price in usd) for model, usd in prices.items()}
        self.port, self.admin_port = free_port(), free_port()
        scheme = "https" if "tls" in sections else "http"
        self.root_url = f"{scheme}://127.0.0.1:{self.port}"
        self.base_url = f"{self.root_url}/v1"
        self.access_log = directory / f"{name}-access.log"
        self.configuration = directory / f"{name}.yaml"
        self.env = {
            "TOLLGATE_PEPPER": pepper or f"p1:{secrets.token_hex(32)}",
            "TOLLGATE_ADMIN_TOKEN": secrets.token_hex(32),
            "TOLLGATE_ADMIN_URL": f"http://127.0.0.1:{self.admin_port}",
            "TOLLGATE_REDIS_URL": redis.url,
        }
        document = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": {"listen": f"127.0.0.1:{self.admin_port}", "token": "${TOLLGATE_ADMIN_TOKEN}"},
            "journal": {"directory": str(directory / f"{name}-journal")},
            "access_log": str(self.access_log),
            **sections,
        }
        for model in document["models"]:
            keys = ("input", "cached_input", "output")
            model["price"] = dict(zip(keys, map(Exact, prices[model["id"]]), strict=True))
        self.configuration.write_text(yaml.dump(document, Dumper=Dumper, sort_keys=False))
        self.start()

    def start(self) -> None:
        self.tollgate("config", "check", str(self.configuration))
        command = [TOLLGATE, "serve", "--config", str(self.configuration)]
        self.child = Child(self.name, command, self.directory, self.env)
        # A debug build reads a large vocabulary for long.
        self.child.wait_ready(lambda: answers(f"{self.env['TOLLGATE_ADMIN_URL']}/readyz"), 120)
        self.wait_nodes_ready()

    def wait_nodes_ready(self, seconds: float = 30) -> None:
        def all_ready() -> bool:
            nodes = [node for node in self.tollgate("node", "list") if node["id"] not in self.absent]
            return {node["state"] for node in nodes} == {"ready"}

        wait_until("all nodes are ready", all_ready, seconds)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TOLLGATE, *arguments, "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **self.env},
        )

    def tollgate(self, *arguments: str):
        """Runs the command line with `--json`; returns its one document."""
        result = self.run(*arguments)
        assert result.returncode == 0, f"tollgate {' '.join(arguments)}: {result.stderr}"
        return json.loads(result.stdout)

    def admin(self, method: str, path: str, body: dict | None = None):
        """The control plane itself: a process less than the command line."""
        request = urllib.request.Request(
            f"{self.env['TOLLGATE_ADMIN_URL']}/admin/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self.env['TOLLGATE_ADMIN_TOKEN']}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def cost_nanousd(self, model: str, prompt: int, cached: int, completion: int) -> int:
        """The bill by hand: one ceiling, in whole nano-dollars."""
        uncached_price, cached_price, completion_price = self.prices[model]
        exact = (prompt - cached) * uncached_price + cached * cached_price + completion * completion_price
        return -(-exact // 1_000_000)

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


class Exact(str):
    """A number as it is written: a float would round it."""


class Dumper(yaml.SafeDumper):
    pass


Dumper.add_representer(Exact, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:float", str(text)))
