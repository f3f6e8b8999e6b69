"""What the suites run against: a gateway in front of simulated nodes, or in front of the real model."""

import dataclasses
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "common"))

from certificates import Certificate  # noqa: E402
from gateway import Gateway, Redis  # noqa: E402
from processes import free_port  # noqa: E402
from simulator import SimulatedNode  # noqa: E402

IS_REAL = os.environ.get("CONFORMANCE_TARGET", "simulated") == "real"

PRICE = ("0.050000300", "0.010000700", "0.080000900")
CONTEXT_TOKENS = 16_384
ORIGIN = "https://app.example"
MODELS = ("sim-small", "sim-slow", "sim-faulty", "sim-pair", "sim-down")
ALIAS = "gpt-4o-mini"


@dataclasses.dataclass
class Target:
    """The gateway under test and the public names of its models."""

    gateway: Gateway
    chat_model: str
    embedding_model: str
    is_real: bool
    # Only where the nodes are simulated.
    nodes: dict[str, SimulatedNode] = dataclasses.field(default_factory=dict)
    # A second gateway on the same nodes: TLS, CORS, short time-outs and small limits.
    edge: Gateway | None = None
    certificate: Certificate | None = None

    def node_states(self) -> dict[str, str]:
        return {node["id"]: node["state"] for node in self.gateway.admin("GET", "nodes")}


class SimulatedFleet:
    """Five nodes for four models, a model whose only node is down, and two gateways."""

    def __init__(self, directory: pathlib.Path):
        self.parts = []
        try:
            self.target = self._start(directory)
        except BaseException:
            self.stop()
            raise

    def _start(self, directory: pathlib.Path) -> Target:
        redis = self._keep(Redis(directory))
        self.redis = redis
        context = ("--context-tokens", str(CONTEXT_TOKENS))
        nodes = {
            name: self._keep(SimulatedNode(name, model, directory, speed, *context, "--seed", str(seed)))
            for seed, (name, model, speed) in enumerate(
                [
                    ("small", "org/small-on-the-node", "inf"),
                    ("slow", "org/slow-on-the-node", "1"),
                    ("faulty", "org/faulty-on-the-node", "inf"),
                    ("pair-1", "org/pair-on-the-node", "inf"),
                    ("pair-2", "org/pair-on-the-node", "inf"),
                ],
                start=1,
            )
        }
        prices = dict.fromkeys(MODELS, PRICE)
        gateway = self._keep(Gateway(directory, redis, prices, self.sections(nodes), absent=frozenset({"down"})))
        certificate = Certificate(directory)
        sections = self.sections(nodes) | {
            "tls": {"certificate": certificate.certificate.name, "key": certificate.key.name},
            "cors": {"origins": [ORIGIN]},
            "limits": {"body_bytes": "256KiB", "header_bytes": "8KiB"},
            "timeouts": {"idle": "1s", "header": "2s", "body": "2s", "drain": "3s", "first_byte": "2s"},
        }
        edge = self._keep(
            Gateway(
                directory,
                redis,
                prices,
                sections,
                name="edge",
                absent=frozenset({"down"}),
                pepper=gateway.env["TOLLGATE_PEPPER"],
            )
        )
        return Target(gateway, "sim-small", "sim-small", False, nodes, edge, certificate)

    @staticmethod
    def sections(nodes: dict[str, SimulatedNode]) -> dict:
        def model(name: str, **more) -> dict:
            return {"id": name, "context_tokens": CONTEXT_TOKENS, "max_output_tokens": 64, **more}

        def node(name: str, url: str, public: str, private: str) -> dict:
            return {"id": name, "site": "here", "url": url, "engine": "vllm", "models": {public: private}}

        return {
            # A run makes thousands of requests with wrong keys, all from one address.
            "failed_keys": {"per_address": "unlimited"},
            "org_defaults": {"rpm": "unlimited", "tpm": "unlimited", "concurrency": "unlimited"},
            "timeouts": {"first_byte": "10s", "stream_idle": "5s", "drain": "3s"},
            "models": [
                model("sim-small", aliases=[ALIAS]),
                model("sim-slow"),
                model("sim-faulty"),
                model("sim-pair"),
                model("sim-down", fallbacks=["sim-small"]),
            ],
            "sites": [{"id": "here", "rtt": "1ms"}],
            "nodes": [
                node(name, part.url, f"sim-{name.split('-')[0]}", part.model) for name, part in nodes.items()
            ]
            + [node("down", f"http://127.0.0.1:{free_port()}", "sim-down", "org/down")],
        }

    def _keep(self, part):
        self.parts.append(part)
        return part

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.child.stop()


class RealFleet:
    """The stack of Tests/RealModel: llama.cpp's server with a small model, once for text and once for embeddings."""

    def __init__(self, directory: pathlib.Path):
        sys.path.insert(0, str(HERE.parent / "RealModel"))
        import stack as real

        self.parts = []
        try:
            self.redis = self._keep(real.Redis(directory))
            model = os.environ["REAL_MODEL"]
            chat = self._keep(real.ModelServer("chat", model, directory))
            embedding = self._keep(real.ModelServer("embedding", model, directory, "--embedding"))
            limits = {"rpm": "unlimited", "tpm": "unlimited", "concurrency": "unlimited"}
            gateway = self._keep(
                real.Gateway(directory, self.redis, chat, embedding, org_defaults=limits)
            )
        except BaseException:
            self.stop()
            raise
        self.target = Target(gateway, real.CHAT_MODEL, real.EMBEDDING_MODEL, True)

    _keep = SimulatedFleet._keep
    stop = SimulatedFleet.stop
