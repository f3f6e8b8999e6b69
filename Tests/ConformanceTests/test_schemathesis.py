"""openapi.yaml against the live gateway: schemathesis makes requests out of it and holds every answer against it."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from contract import FILE

pytestmark = pytest.mark.simulated

HERE = pathlib.Path(__file__).resolve().parent
SEED = os.environ.get("SCHEMATHESIS_SEED", "20261122")
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "25")
SECONDS_MAX = 300


def test_the_document_is_valid_openapi():
    from openapi_spec_validator import validate

    validate(yaml.safe_load(FILE.read_text()))


def test_every_operation_answers_as_described(target, open_account, tmp_path):
    account = open_account(credit="1000")
    print(f"seed {SEED}, at most {EXAMPLES} examples an operation and phase")
    command = [str(pathlib.Path(sys.executable).parent / "st"), "run", str(FILE), "--url", target.gateway.root_url]
    command += ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--seed", SEED]
    command += ["--max-examples", EXAMPLES, "--continue-on-failure", "--no-shrink", "--warnings", "off"]
    command += ["--request-timeout", "20", "--suppress-health-check", "all"]
    command += ["--header", f"Authorization: Bearer {account.key['key']}"]
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text('hooks = "schemathesis_hooks"\n[cache]\nenabled = false\n')
    env = {**os.environ, "CONFORMANCE_MODEL": "sim-small", "PYTHONPATH": str(HERE), "NO_COLOR": "1"}
    command[1:1] = ["--config-file", str(configuration)]
    command += os.environ.get("SCHEMATHESIS_ARGUMENTS", "").split()
    result = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    for line in (result.stdout + result.stderr).splitlines():
        print(line[:1200])
    assert result.returncode == 0
    # The requests were no monologue: many of them were served.
    assert len(account.settles()) > 20
