"""A sample of tools/faults: some thirty faults under its workload, on shares that promise much, little and nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from faultlib.plan import KINDS, faults
from faultlib.promises import DURABLE, NEITHER
from faultlib.report import as_text
from faultlib.run import Report, Run
from lab.server import Samba

from .conftest import DRIVER

# Long outages are for the full run.
LONGEST = 0.6
LINK = {kind: KINDS[kind] for kind in ("link", "drop", "reset", "frame", "unanswered", "late")}
ALL = {**LINK, "kill": 20, "restart": 5}


def sample(server: Samba, share: str, seed: int, count: int, kinds: dict[str, int]) -> Report:
    """Run a few faults."""
    run = Run(server, share, seed, 3, ["timeout=30", *DRIVER], lambda _: None)
    return run.run(list(faults(seed, count, kinds, LONGEST)))


@pytest.fixture(scope="module")
def plain_samba() -> Iterator[Samba]:
    with Samba() as server:
        yield server


@pytest.mark.parametrize("seed", [11, 12])
def test_errors_but_never_a_wrong_byte(own_samba: Samba, seed: int) -> None:
    """Handles end with their connection: calls on them fail, and what succeeded was done."""
    report = sample(own_samba, NEITHER, seed, 10, ALL)
    assert len(report.happened) == 10
    assert not report.violations, as_text(report)
    assert sum(report.errors.values()) > 0, "no fault was noticed"
    assert sum(report.done.values()) > 100
