"""Locks that two clients want, when a connection is lost: nobody loses more than the lock that he had.

Samba before 4.23 counts a lock that it has refused among those of the open, and its process ends in a panic when it
puts such an open away for later. Everything else that the client has open is lost with it.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.mounting import wait_until
from lab.server import Samba

from .conftest import DRIVER, Mounter
from .locker import Locker
from .test_recovery import PATIENT, cut_link, recovery_of, suffer

pytestmark = pytest.mark.skipif("fuse=pyfuse3" in DRIVER, reason="pyfuse3 leaves locks to the kernel")

NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
RANGE = (0, 10)


@contextmanager
def lockers(*paths: Path) -> Iterator[list[Locker]]:
    """Processes with the same file open."""
    there: list[Locker] = []
    try:
        for path in paths:
            there.append(Locker(path))
        yield there
    finally:
        for one in there:
            one.end()


def test_who_was_refused_a_lock_keeps_the_file(samba: Samba, mounted: Mounter) -> None:
    """And whatever else he has open."""
    mounts = [mounted(*PATIENT, share="durable") for _ in range(2)]
    (mounts[0].path / "wanted").write_text("0123456789")
    panics = samba.panics()
    with (
        (mounts[0].path / "other").open("w+b", buffering=0) as other,
        lockers(*(mount.path / "wanted" for mount in mounts)) as (ours, theirs),
    ):
        assert other.write(b"before, ") == 8
        assert theirs.ask("lock", NOW, *RANGE) == 0
        assert ours.ask("reopen") == 0  # each lock breaks the leases of the others, and without one nothing is kept
        assert ours.ask("lock", NOW, *RANGE) == errno.EAGAIN
        assert theirs.ask("close") == 0
        mounts[1].unmount()
        suffer(mounts[0], lambda noticed: cut_link(samba, noticed))
        assert other.write(b"after") == 5
        assert ours.ask("lock", NOW, *RANGE) == 0
        assert ours.ask("write", 3, "held") == 4
    assert samba.panics() == panics
    assert recovery_of(mounts[0])["lost"] == 0
    assert (samba.directory("durable") / "other").read_text() == "before, after"
    assert (samba.directory("durable") / "wanted").read_text() == "012held789"


@pytest.mark.parametrize("late", [False, True], ids=["opened before", "opened after"])
def test_who_waits_for_a_lock_goes_on_waiting(samba: Samba, mounted: Mounter, late: bool) -> None:
    """He had none that he could lose.

    Who opens a file in which somebody has locked something gets no lease, and an open that ends with its connection.
    """
    mounts = [mounted(*PATIENT, share="durable") for _ in range(2)]
    (mounts[0].path / "waited-for").write_text("0123456789")
    panics = samba.panics()
    with lockers(*(mount.path / "waited-for" for mount in mounts)) as (ours, theirs):
        assert ours.ask("there?") == 0
        assert theirs.ask("lock", NOW, *RANGE) == 0
        if late:
            assert ours.ask("reopen") == 0
        ours.begin("lock", fcntl.LOCK_EX, *RANGE)
        assert wait_until(lambda: bool(mounts[0].status()["locks"]["waiting_at_server"]), 10)
        suffer(mounts[0], lambda noticed: cut_link(samba, noticed))
        # Whoever has it has it alone.
        assert ours.result() == 0
        assert theirs.ask("write", 3, "lost") == errno.EIO
        assert theirs.ask("reopen") == 0
        assert theirs.ask("lock", NOW, *RANGE) == errno.EAGAIN
        assert ours.ask("write", 3, "held") == 4
        assert ours.ask("lock", fcntl.LOCK_UN, *RANGE) == 0
        assert theirs.ask("lock", NOW, *RANGE) == 0
    inode = (samba.directory("durable") / "waited-for").stat().st_ino
    assert {(lost["path"], lost["inode"]) for lost in recovery_of(mounts[1])["lost_files"]} == {("waited-for", inode)}
    # 4.25.1 dies of a claim if somebody else has locked anything in the file, where it is not for good (brlock.c:1483).
    assert samba.panics() == panics or samba.has_persistent_handles()
    assert (samba.directory("durable") / "waited-for").read_text() == "012held789"


def test_who_was_refused_a_lock_is_in_nobodys_way(samba: Samba, mounted: Mounter) -> None:
    """Not even of who wants to lock whatever there may ever be in the file."""
    mounts = [mounted(*PATIENT, share="durable") for _ in range(2)]
    (mounts[0].path / "whole").touch()
    with lockers(*(mount.path / "whole" for mount in mounts)) as (ours, theirs):
        for one, other in ((ours, theirs), (theirs, ours)):
            assert one.ask("lock", NOW, 0, 0) == 0
            assert other.ask("lock", NOW, 0, 0) == errno.EAGAIN
            assert one.ask("lock", fcntl.LOCK_UN, 0, 0) == 0
        for one, other in ((ours, theirs), (theirs, ours)):
            assert one.ask("flock", NOW) == 0
            assert other.ask("flock", NOW) == errno.EAGAIN
            assert one.ask("flock", fcntl.LOCK_UN) == 0
