"""`tollgate demo`: what it prints works when pasted, with simulated nodes and with the real model behind it."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from processes import Child
from stack import TOLLGATE

# The demo prints `python` lines for people whose `python` has the client: here that is the suite's own.
PYTHON = sys.executable


class Demo:
    def __init__(self, directory: pathlib.Path, *arguments: str):
        directory.mkdir(exist_ok=True)
        data = directory / "data"
        command = [TOLLGATE, "demo", "--port", "0", "--admin-port", "0", "--data", str(data), *arguments]
        self.child = Child("demo", command, directory)
        marker = '"admin_token"' if "--json" in arguments else "Ctrl-C stops everything."
        self.text = self.child.wait_ready(lambda: self.child.output if marker in self.child.output else None)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        assert self.child.stop() == 0


def pasted_curl(line: str) -> dict:
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def pasted_python(lines: str) -> str:
    result = subprocess.run([PYTHON, "-"], input=lines, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def told(text: str, name: str) -> str:
    return re.search(rf"^  {name} +(\S+)$", text, re.MULTILINE).group(1)


def admin(text: str, *arguments: str):
    """A command line as printed, `tollgate` being the binary under test."""
    env = dict(re.findall(r"(TOLLGATE_\w+)=(\S+)", text))
    assert set(env) == {"TOLLGATE_ADMIN_URL", "TOLLGATE_ADMIN_TOKEN"}
    result = subprocess.run(
        [TOLLGATE, *arguments, "--json"], capture_output=True, text=True, timeout=30, env={**os.environ, **env}
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def check_printed_lines(text: str) -> None:
    lines = text.splitlines()
    curl = next(line for line in lines if line.startswith("curl "))
    start = lines.index("from openai import OpenAI")
    python = "\n".join(lines[start : start + 3]) + "\n"
    answer = pasted_curl(curl)
    assert answer["model"] == told(text, "model")
    assert answer["choices"][0]["message"]["content"]
    assert pasted_python(python)
    commands = [line.split()[1:] for line in lines if line.startswith("tollgate ")]
    assert len(commands) == 3
    org, ledger, nodes = [admin(text, *command) for command in commands]
    # What an earlier start of the same demo spent counts too.
    assert org["balance_nanousd"] == sum(entry["amount_nanousd"] for entry in ledger)
    assert len([entry for entry in ledger if entry["type"] == "settle"]) >= 2
    assert all(entry["estimated"] is False for entry in ledger)
    assert {node["state"] for node in nodes} == {"ready"}
    assert admin(text, "ledger", "verify", "--org", "demo")["drift_nanousd"] == 0


def test_what_the_demo_prints_works_when_pasted_and_after_a_restart(tmp_path):
    with Demo(tmp_path) as demo:
        first = told(demo.text, "API key")
        check_printed_lines(demo.text)
    (tmp_path / "demo.out").unlink()
    with Demo(tmp_path) as demo:
        assert told(demo.text, "API key") != first
        check_printed_lines(demo.text)
        revoked = [key for key in admin(demo.text, "key", "list", "--org", "demo") if key["status"] == "revoked"]
        assert [key["last4"] for key in revoked] == [first[-4:]]


def test_the_demos_json_says_the_same(tmp_path):
    with Demo(tmp_path, "--json") as demo:
        document = json.loads(demo.text)
        assert pasted_curl(document["curl"])["model"] == document["model"]
        assert pasted_python(document["python"])
        assert document["base_url"].endswith("/v1") and document["admin_url"] and document["org"] == "demo"


@pytest.mark.parametrize("engine", ["llamacpp", "openai"])
def test_the_demo_serves_a_real_model(stack, tmp_path, engine):
    backend = ["--backend", stack.chat.url, "--backend-model", "gemma", "--backend-engine", engine]
    with Demo(tmp_path, *backend) as demo:
        assert told(demo.text, "model") == "gemma"
        check_printed_lines(demo.text)
