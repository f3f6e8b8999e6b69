"""Runs suites of this folder with pytest, whose own closing line is the last: `run.py [--suite FILE...] [ARGUMENTS]`.

Arguments go to pytest. Without `--suite` all of them run but the one that needs an environment of its own.
"""

import pathlib
import signal
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ELSEWHERE = "test_litellm.py"


def main() -> int:
    arguments = sys.argv[1:]
    suites = []
    while "--suite" in arguments:
        at = arguments.index("--suite")
        suites.append(str(HERE / arguments[at + 1]))
        del arguments[at : at + 2]
    if not suites:
        suites = [str(HERE), f"--ignore={HERE / ELSEWHERE}"]
    # SIGTERM ends the run as Ctrl-C does: servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return int(pytest.main([f"--rootdir={HERE}", "-c", str(HERE / "pytest.ini"), "--durations=8", *arguments, *suites]))


if __name__ == "__main__":
    sys.exit(main())
