"""What the documents show works when it is pasted."""

import base64
import os
import pathlib
import re
import subprocess

import yaml

from stack import TOLLGATE

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def test_the_readmes_configuration_is_accepted_without_warnings(tmp_path):
    (sample,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "tollgate.yaml"
    file.write_text(sample)
    result = subprocess.run(
        [TOLLGATE, "config", "check", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "TOLLGATE_ADMIN_TOKEN": "0" * 64},
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_readmes_commands_exist(tmp_path):
    text = (ROOT / "README.md").read_text()
    commands = [line.split("#")[0].split() for line in text.splitlines() if re.match(r"tollgate [a-z]", line)]
    assert len(commands) >= 8
    for command in commands:
        words = [word for word in command[1:3] if re.fullmatch(r"[a-z]+", word) and word != "acme"]
        help_text = subprocess.run([TOLLGATE, *words, "--help"], capture_output=True, text=True)
        assert help_text.returncode == 0, command
        for option in re.findall(r"--[a-z-]+", " ".join(command)):
            assert option in help_text.stdout, f"{option} of {' '.join(command)}"


def test_every_configuration_key_of_the_operations_manual_is_accepted(tmp_path):
    """The table's keys, each with its default or a value of its kind; an unknown key would be an error."""
    file = tmp_path / "tollgate.yaml"
    file.write_text(EVERYTHING)
    # A vocabulary of bytes.
    ranks = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (tmp_path / "bytes.tiktoken").write_text("".join(ranks))
    result = subprocess.run(
        [TOLLGATE, "config", "check", str(file)], capture_output=True, text=True, env=os.environ
    )
    assert (result.returncode, result.stderr) == (0, "")
    manual = (ROOT / "docs/operations.md").read_text()
    table = manual.split("## Configuration")[1].split("## Signals")[0]
    told = {name.rsplit(".", 1)[-1] for name in re.findall(r"`([a-z_.\[\]]+)`", table)}
    assert leaves(yaml.safe_load(EVERYTHING)) - told == set()


def leaves(value) -> set[str]:
    """The names of all keys that hold no further keys of ours."""
    if isinstance(value, list):
        return set().union(*map(leaves, value))
    names = set()
    for key, inner in value.items():
        # A node's models are keys that the operator chooses; a tokenizer's are told with it.
        is_one = key in ("models", "tokenizer") and isinstance(inner, dict)
        holds_ours = isinstance(inner, (dict, list)) and not is_one
        names |= leaves(inner) if holds_ours else {key}
    return names


EVERYTHING = """
listen: 0.0.0.0:8080
admin: { listen: 127.0.0.1:8081, token: 0000000000000000000000000000000000000000000000000000000000000000 }
redis: { url: redis://127.0.0.1:6379/0 }
journal: { directory: /var/lib/tollgate/journal, sync: interval }
limits: { body_bytes: 8MiB, header_bytes: 32KiB, buffered_bytes: 256MiB, connections: 20000 }
timeouts:
  { header: 10s, body: 60s, idle: 75s, connect: 1s, first_byte: 120s, stream_idle: 60s, request: 10m, drain: 30s }
retry: { attempts: 2, budget: 10% }
models:
  - id: llama-3.1-8b
    context_tokens: 131072
    max_output_tokens: 8192
    image_tokens_max: 1500
    template_tokens_max: 64
    tokenizer: { file: bytes.tiktoken, pattern: cl100k }
    timeouts: { first_byte: 120s, stream_idle: 30s }
    price: { input: 0.05, cached_input: 0.01, output: 0.08 }
sites:
  - { id: austin, region: us-tx, rtt: 12ms }
nodes:
  - id: austin-01
    site: austin
    url: http://10.0.0.5:8000
    engine: vllm
    class: h100
    models: { llama-3.1-8b: meta-llama/Llama-3.1-8B-Instruct }
    max_concurrency: 64
    api_key: secret-of-the-node
routing: { policy: least_tokens }
org_defaults: { rpm: 600, tpm: 200000, concurrency: unlimited, keys: 100 }
leases: { enabled: false }
event_loops: 2
access_log: stdout
"""
