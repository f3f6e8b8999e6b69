"""Child processes on free loopback ports, each ended by its own id, and with this process however that ends."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, condition: Callable[[], object], seconds: float = 10.0):
    """Polls until `condition` gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Child:
    """A child process; what it says goes to files in `directory`."""

    def __init__(self, name: str, command: list[str], directory: pathlib.Path, env: dict[str, str] | None = None):
        self.name = name
        self.output_path = directory / f"{name}.out"
        self.log_path = directory / f"{name}.log"

        def die_with_parent() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(self.output_path, "ab") as output, open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, **(env or {})},
                preexec_fn=die_with_parent,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_ready(self, condition: Callable[[], object], seconds: float = 60.0):
        def ready():
            assert self.process.poll() is None, f"{self.name} ended at its start:\n{self.log[-2000:]}"
            return condition()

        return wait_until(f"{self.name} is ready", ready, seconds)

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM, and SIGKILL where that is not enough. Returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode
