"""A sample of tools/coherence: two mounts and smbclient, each of which sees what the others have done.

One after the other, the same under faults, and both mounts at the same time.
"""

from __future__ import annotations

import time

import pytest
from coherencelib.outages import Plan
from coherencelib.promises import MODES
from coherencelib.report import as_text
from coherencelib.run import Report, Run
from faultlib.plan import KINDS
from lab.server import Samba

from .conftest import DRIVER

# Far beyond what is promised: a busy machine may take its time, a cache that nobody clears takes for ever.
BOUND = 20.0
OPERATIONS = 100
FAULTS = 6
# Seconds.
RACE = 6.0


def sample(server: Samba, cache: str, seed: int, *options: str) -> Report:
    """Do one history, as promised; one that showed nothing has failed as well."""
    promise = MODES[cache]
    with Run(server, cache, promise, bound=BOUND, options=[*DRIVER, *options], disk=promise.server_disk) as run:
        run.sequential(seed, OPERATIONS, tries=0)
        report = run.finish(time.monotonic())
    assert report.passed, as_text(report)
    assert sum(report.done.values()) == OPERATIONS
    return report


def test_what_leases_permit_is_true(samba: Samba) -> None:
    report = sample(samba, "strict", 1)
    assert sum(sum(mount["breaks"].values()) for mount in report.mounts) > 0, "no lease was in the way"


@pytest.mark.parametrize("cache", ["none", "nolease"])
def test_the_servers_own_disk_takes_part(samba: Samba, cache: str) -> None:
    sample(samba, cache, 2, "actimeo=0")


def test_on_the_later_samba(later_samba: Samba) -> None:
    sample(later_samba, "strict", 3)


def under_faults(server: Samba, share: str, seed: int) -> Report:
    """One history with some faults, none of which goes without a reconnection."""
    plan = Plan(FAULTS, {kind: KINDS[kind] for kind in ("link", "drop", "reset", "frame", "unanswered", "kill")}, 0.4)
    options = [*DRIVER, "actimeo=0"]
    with Run(server, "strict", MODES["strict"], bound=BOUND, options=options, share=share, plan=plan) as run:
        run.sequential(seed, OPERATIONS, tries=0)
        report = run.finish(time.monotonic())
    assert report.passed, as_text(report)
    assert report.felt is not None
    assert sum(report.felt.kinds.values()) == FAULTS
    assert sum(mount["reconnects"] for mount in report.mounts) >= 2, "the faults were not noticed"
    return report


def test_what_was_acknowledged_is_there_after_faults(samba: Samba) -> None:
    under_faults(samba, "neither", 4)


def test_the_same_where_files_outlive_their_connection(samba: Samba) -> None:
    under_faults(samba, "durable", 5)


def test_two_mounts_at_the_same_time(samba: Samba) -> None:
    concurrently(samba, 6)


def test_two_mounts_at_the_same_time_with_leases_on_directories(later_samba: Samba) -> None:
    concurrently(later_samba, 7)


def concurrently(server: Samba, seed: int) -> None:
    """A short race; all verbs have had their turn."""
    with Run(server, "strict", MODES["strict"], bound=BOUND, options=DRIVER) as run:
        run.concurrent(seed, RACE)
        report = run.finish(time.monotonic())
    assert report.passed, as_text(report)
    verbs = {word.split()[-1] for word in report.done}
    assert verbs >= {"write", "read", "append", "log", "make", "remove", "move"}
