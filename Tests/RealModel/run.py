"""Runs the suite; the last line says how many passed and failed. Arguments go to pytest."""

import pathlib
import signal
import sys

import pytest

# The last file looks at the books of all that came before it.
FILES = [
    "test_inference.py",
    "test_tokens.py",
    "test_refusals.py",
    "test_disconnects.py",
    "test_demo.py",
    "test_documents.py",
    "test_books.py",
]


class Counter:
    passed = failed = 0

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed += 1
        elif report.when == "call" and report.passed:
            self.passed += 1

    def pytest_collectreport(self, report) -> None:
        self.failed += report.failed


def main() -> int:
    here = pathlib.Path(__file__).resolve().parent
    # SIGTERM ends the run as Ctrl-C does: servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    counter = Counter()
    code = pytest.main(
        ["-v", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={here}", *sys.argv[1:]]
        + [str(here / name) for name in FILES],
        plugins=[counter],
    )
    print(f"{counter.passed} passed, {counter.failed} failed")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
