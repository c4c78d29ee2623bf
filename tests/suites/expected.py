"""The list of expected failures: which tests, why, and what their failure shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

LIST: Final = Path(__file__).with_name("expected_failures.toml")


class Expectation(NamedTuple):
    """Tests that fail for one reason, in a way that the list names."""

    tests: tuple[str, ...]
    reason: str
    shows: str
    # The configuration that the entry is not about, whatever its patterns say.
    without: str = ""
    # The first version of Samba with which they pass; none when they fail with all.
    before: tuple[int, ...] = ()

    def applies(self, version: tuple[int, ...]) -> bool:
        """Whether they fail with this version of Samba."""
        return not self.before or version < self.before

    def matches(self, test: str) -> bool:
        """Whether the test, named by its path below tests/suites, is one of them."""
        if self.without and any(f"[{self.without}{end}" in test for end in "-]"):
            return False
        return any(fnmatchcase(test, escape(pattern)) for pattern in self.tests)


def version_of(text: str) -> tuple[int, ...]:
    """Major and minor number from what `smbd --version` prints."""
    found = re.search(r"Version (\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def escape(pattern: str) -> str:
    """Only * stands for something else: names of tests have brackets of their own."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def read(text: str) -> list[Expectation]:
    """Parse the list; whatever is missing or unknown in an entry raises ValueError."""
    document = tomllib.loads(text)
    if set(document) - {"failure"}:
        raise ValueError(f"unknown tables: {sorted(set(document) - {'failure'})}")
    found = []
    for entry in document.get("failure", []):
        if set(entry) - {"without", "before"} != {"tests", "reason", "shows"} or not all(entry.values()):
            raise ValueError(f"an entry has tests, reason and shows, all of them filled: {entry}")
        before = tuple(map(int, entry["before"].split("."))) if "before" in entry else ()
        tests, without = tuple(entry["tests"]), entry.get("without", "")
        found.append(Expectation(tests, entry["reason"], entry["shows"], without, before))
    return found


def unmatched(expectations: Iterable[Expectation], tests: Iterable[str]) -> list[str]:
    """The patterns that stand for no test, of those whose file is among the tests' files."""
    names = list(tests)
    files = {name.partition("::")[0] for name in names}
    return [
        pattern
        for expectation in expectations
        for pattern in expectation.tests
        if pattern.partition("::")[0] in files and not any(fnmatchcase(name, escape(pattern)) for name in names)
    ]
