"""docs/expectations.md: each row names a test that exists, and says what the list of expected failures says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from suites.configurations import CONFIGURATIONS
from suites.expected import LIST, read

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs/expectations.md"
REFERENCE = re.compile(r"`([\w/]+\.py)::(test_\w+)(?:\[(.+)\])?`")
VERDICTS = ("yes", "partly", "no")


class Row(NamedTuple):
    """One expectation."""

    what: str
    plain: str
    posix: str
    file: str
    test: str
    case: str | None


def rows() -> list[Row]:
    """Every row of the tables."""
    found = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if not line.startswith("| ") or cells[0] == "| Expectation":
            continue
        assert len(cells) == 4, line
        reference = REFERENCE.fullmatch(cells[3].removesuffix(" |"))
        assert reference is not None, f"no test is named: {line}"
        found.append(Row(cells[0].removeprefix("| "), cells[1], cells[2], *reference.groups()))
    return found


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a module."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def texts(path: Path) -> frozenset[str]:
    """The literal texts of a module."""
    found = nodes(path)
    return frozenset(node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str))


def names(row: Row) -> set[str]:
    """The literal texts of a test's module, and of the tables that it imports: its cases are among them."""
    paths = [TESTS / row.file, *(TESTS / row.file).parent.glob("*_table.py")]
    return {text for path in paths for text in texts(path)}


def expected_to_fail(row: Row, configuration: str) -> bool:
    """Whether the list has the row's test, or its case, in a configuration."""
    name = f"{row.file.removeprefix('suites/')}::{row.test}[{configuration}{'-' + row.case if row.case else ''}"
    candidates = [f"{name}]"] if row.case else [f"{name}]", f"{name}-*]"]
    # The POSIX extensions come with the newest of servers.
    version = (4, 25) if configuration == "posix" else (4, 17)
    expectations = [expectation for expectation in read(LIST.read_text()) if expectation.applies(version)]
    return any(
        expectation.matches(candidate) or (candidate in expectation.tests and configuration != expectation.without)
        for expectation in expectations
        for candidate in candidates
    )


def test_there_are_enough() -> None:
    found = rows()
    assert len(found) >= 80
    assert len({row.what for row in found}) == len(found)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_each_row_names_a_test_that_exists(row: Row) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert row.test in {node.name for node in nodes(TESTS / row.file) if isinstance(node, functions)}
    if row.case is not None:
        found, words = names(row), row.case.split(" ")
        # A table's case is called by its system call and what is said of it.
        halves = ((" ".join(words[:place]), " ".join(words[place:])) for place in range(1, len(words)))
        assert row.case in found or any(first in found and rest in found for first, rest in halves)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_each_row_says_what_the_suites_say(row: Row) -> None:
    for cell in (row.plain, row.posix):
        assert re.match(rf"({'|'.join(VERDICTS)})(: .+)?$", cell), cell
        assert cell == "yes" or cell.startswith("yes:") or ":" in cell, f"say how: {cell}"
    if not row.file.startswith("suites/posix/"):
        return
    for configuration, cell in (("plain", row.plain), ("posix", row.posix)):
        if configuration in {known.name for known in CONFIGURATIONS}:
            fails = expected_to_fail(row, configuration)
            assert not (fails and cell.startswith("yes")), f"{configuration}: the test is expected to fail"
            assert fails or not cell.startswith("no"), f"{configuration}: the test is expected to pass"
