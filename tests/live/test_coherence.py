"""A sample of tools/coherence: two mounts and smbclient, each of which sees what the others have done."""

from __future__ import annotations

import time

import pytest
from coherencelib.promises import MODES
from coherencelib.report import as_text
from coherencelib.run import Report, Run
from lab.server import Samba

from .conftest import DRIVER

# Far beyond what is promised: a busy machine may take its time, a cache that nobody clears takes for ever.
BOUND = 20.0
OPERATIONS = 100


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
