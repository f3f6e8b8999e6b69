"""One fleet for the whole run; an org with a key for each test."""

import itertools
import os

import pytest

import fleet as fleets  # First: it says where the shared modules are. isort: skip
from accounts import QuickAccount
from processes import wait_until

numbers = itertools.count(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "simulated: needs simulated nodes: faults, exact lengths, or another engine")


def pytest_collection_modifyitems(items):
    if fleets.IS_REAL:
        skip = pytest.mark.skip(reason="needs simulated nodes")
        for item in items:
            if "simulated" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fleet")
    fleet = (fleets.RealFleet if fleets.IS_REAL else fleets.SimulatedFleet)(directory)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="session")
def target(fleet):
    return fleet.target


@pytest.fixture
def open_account(target):
    """Opens orgs with a key each; in the end their ledgers must be in order and nothing may run."""
    opened: list[QuickAccount] = []

    def open(credit: str = "100", key_limits: tuple[str, ...] = ()) -> QuickAccount:
        # The process id: two runs may share a Redis that they were given, never one org.
        account = QuickAccount(target.gateway, f"org-{os.getpid()}-{next(numbers)}", credit, key_limits)
        opened.append(account)
        return account

    yield open
    for account in opened:
        wait_until("no hold is running", lambda account=account: account.verify()["open_reservations"] == 0)
        assert account.verify()["drift_nanousd"] == 0
        assert account.show()["balance_nanousd"] >= 0


@pytest.fixture
def account(open_account):
    return open_account()


@pytest.fixture
def client(account):
    """The official client without retries; each answer is held against openapi.yaml."""
    with account.client() as client:
        yield client


@pytest.fixture
def http(account, target):
    """Plain HTTP with the key, for what no client sends; held against openapi.yaml too."""
    import httpx2
    from accounts import CONTRACT

    headers = {"Authorization": f"Bearer {account.key['key']}"}
    hooks = {"response": [CONTRACT.check]}
    with httpx2.Client(base_url=target.gateway.root_url, headers=headers, event_hooks=hooks, timeout=30) as http:
        yield http


@pytest.fixture
def faulty(target):
    """Gives the one node of `sim-faulty` a fault plan; healthy again before the next test."""
    node = target.nodes["faulty"]
    yield node
    node.set_fault("")
    wait_until("the faulty node is ready again", lambda: target.node_states()["faulty"] == "ready", 20)


@pytest.fixture
def pair(target):
    """The two nodes of `sim-pair`."""
    nodes = [target.nodes["pair-1"], target.nodes["pair-2"]]
    yield nodes
    for node in nodes:
        node.set_fault("")
    wait_until(
        "the pair is ready again",
        lambda: {target.node_states()[node.name] for node in nodes} == {"ready"},
        20,
    )
