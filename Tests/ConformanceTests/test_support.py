"""The table of what is supported names tests that are there."""

import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent


def test_every_row_of_the_support_table_names_tests_that_exist():
    rows = [line for line in (HERE / "SUPPORT.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        names = re.findall(r"`(\w+)(?:::(\w+))?`", cells[3])
        assert names, row
        for file, name in names:
            text = (HERE / f"test_{file}.py").read_text()
            assert not name or f"def {name}(" in text, f"{file}::{name} of: {row}"


def test_every_row_of_the_readmes_table_names_suites_that_exist():
    text = (HERE.parent.parent / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) >= 10
    for row in rows:
        for name in re.findall(r"`(test_\w+)`", row):
            assert (HERE / f"{name}.py").exists(), row
