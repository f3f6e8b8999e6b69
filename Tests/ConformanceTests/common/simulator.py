"""A simulated GPU node: `tollgate simulate node`, with faults on demand."""

import json
import pathlib
import re
import urllib.request

from gateway import TOLLGATE
from processes import Child, answers, free_port, wait_until


class SimulatedNode:
    """`url` without `/v1`."""

    def __init__(self, name: str, model: str, directory: pathlib.Path, speed: str = "inf", *arguments: str):
        port = free_port()
        command = [TOLLGATE, "simulate", "node", "--port", str(port), "--model", model, "--speed", speed, *arguments]
        self.name = name
        self.model = model
        self.child = Child(name, command, directory)
        self.url = f"http://127.0.0.1:{port}"
        self.child.wait_ready(lambda: answers(f"{self.url}/health"), 20)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            text = response.read().decode()
        found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        assert found, f"the node has no metric {name}"
        return float(found.group(1))

    @property
    def requests(self) -> int:
        """Inference requests received since the node's start."""
        return round(self.metric("simulator:requests_total"))

    @property
    def aborted(self) -> int:
        """Those whose client went away before the answer's end."""
        return round(self.metric("simulator:aborted_requests_total"))

    def wait_idle(self, seconds: float = 5) -> None:
        wait_until(f"{self.name} is idle", lambda: self.metric("vllm:num_requests_running") == 0, seconds)

    def set_fault(self, plan: str) -> None:
        request = urllib.request.Request(f"{self.url}/fault", data=plan.encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            assert "fault" in json.load(response)
