"""Fixtures of every level: a test that leaves an unexpected warning in the log has failed."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # the lab (tools/lab) serves the live tests and the tools alike


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers that pyproject.toml does not, and have fewer random examples unless all tests are wanted."""
    if "not slow" in config.option.markexpr:
        settings.register_profile("quick", max_examples=40, deadline=None)
        settings.load_profile("quick")
    config.addinivalue_line("markers", "slow: full size, minutes rather than seconds (tools/test --full runs these)")


def pytest_collection_finish() -> None:
    """Spare the collector thousands of tests and their parameters, which live to the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with the failure of a live test where its servers' logs are kept: their folders are gone in the end."""
    report = yield
    if report.failed and item.get_closest_marker("live") is not None:
        from lab.kept_logs import keep_logs

        place = keep_logs(f"{item.nodeid.partition('::')[2]}-{report.when}")
        if place is not None:
            report.sections.append(("the servers' logs", f"kept in {place}"))
    return report


class LogCheck(logging.Handler):
    """Collects what the package logs at WARNING or above, and which of it the test announced."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []
        self.expected: list[re.Pattern[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the formatted record: its arguments may change before the test ends."""
        self.records.append(f"{record.levelname} {record.name}: {self.format(record)}")

    def expect(self, pattern: str) -> None:
        """Announce a record that this test causes on purpose; one that then never comes fails the test."""
        self.expected.append(re.compile(pattern))

    def verdict(self) -> list[str]:
        """One sentence for each surprise."""
        surprises = [
            f"unexpected in the log: {record}"
            for record in self.records
            if not any(pattern.search(record) for pattern in self.expected)
        ]
        surprises += [
            f"expected in the log and not there: {pattern.pattern}"
            for pattern in self.expected
            if not any(pattern.search(record) for record in self.records)
        ]
        return surprises


@pytest.fixture(autouse=True)
def _log_check() -> Iterator[LogCheck]:
    """Fail the test on a WARNING or worse from the package that `expect_log` did not announce."""
    check = LogCheck()
    logger = logging.getLogger("smb3fs")
    logger.addHandler(check)
    try:
        yield check
    finally:
        logger.removeHandler(check)
    surprises = check.verdict()
    assert not surprises, "\n".join(surprises)


@pytest.fixture
def expect_log(_log_check: LogCheck) -> Callable[[str], None]:
    """`expect_log(regex)`: the test causes a WARNING or worse that matches, and fails when it does not come."""
    return _log_check.expect
