"""One stack for the whole run; an account for each test, whose books are closed when the test ends."""

import itertools
import os
import pathlib

import pytest

# First: it says where the modules are that the suites share.
from stack import Gateway, ModelServer, Redis  # isort: skip
from accounts import Account


class Stack:
    def __init__(self, directory: pathlib.Path, model_path: str):
        self.children = []
        self.accounts: list[Account] = []
        try:
            self.redis = self._keep(Redis(directory))
            self.chat = self._keep(ModelServer("chat", model_path, directory))
            self.embedding = self._keep(ModelServer("embedding", model_path, directory, "--embedding"))
            self.gateway = Gateway(directory, self.redis, self.chat, self.embedding)
        except BaseException:
            self.stop()
            raise

    def _keep(self, part):
        self.children.append(part.child)
        return part

    def stop(self) -> None:
        if hasattr(self, "gateway"):
            self.gateway.child.stop()
        for child in reversed(self.children):
            child.stop()


class Accounts:
    """Opens accounts under names of their own, and closes the books of all of them."""

    numbers = itertools.count(1)

    def __init__(self, stack: Stack):
        self.stack = stack
        self.opened: list[Account] = []

    def open(self, credit: str = "1", key_limits: tuple[str, ...] = ()) -> Account:
        account = Account(self.stack.gateway, f"org-{next(self.numbers)}", credit, key_limits)
        self.opened.append(account)
        self.stack.accounts.append(account)
        return account

    def close(self) -> None:
        for account in self.opened:
            account.close()


@pytest.fixture(scope="session")
def model_path() -> str:
    return os.environ["REAL_MODEL"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory, model_path):
    stack = Stack(tmp_path_factory.mktemp("stack"), model_path)
    yield stack
    stack.stop()


@pytest.fixture
def accounts(stack):
    return Accounts(stack)


@pytest.fixture
def account(accounts):
    return accounts.open()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """The books are part of each test: what does not balance fails it."""
    result = yield
    accounts = pyfuncitem.funcargs.get("accounts")
    if accounts is not None:
        accounts.close()
    return result
