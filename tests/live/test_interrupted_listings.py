"""A directory that is being listed when the connection is lost: every name once, or an error; never silently fewer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from lab.mounting import Mount
from lab.server import PERSISTENT, Samba

from .conftest import Mounter
from .test_recovery import PATIENT, Accident, cut_link, kill_session, suffer

# Far more than is asked for at once, by the kernel or by us.
NAMES = 30_000


def lay_out(samba: Samba, share: str, name: str) -> set[str]:
    """Make a directory with many names on the server's own disk."""
    place = samba.directory(share) / name
    place.mkdir()
    names = {f"a-name-that-fills-the-answers-{number:05}" for number in range(NAMES)}
    for one in names:
        (place / one).touch()
    return names


def interrupted(mount: Mount, samba: Samba, name: str, accident: Accident) -> list[str]:
    """List a directory, and lose the connection while it is done; the names, or an error."""
    with os.scandir(mount.path / name) as listing:
        entries: Iterator[os.DirEntry[str]] = iter(listing)
        found = [next(entries).name for _ in range(10)]
        suffer(mount, lambda noticed: accident(samba, noticed))
        found += [entry.name for entry in entries]
    return found


def check(mount: Mount, samba: Samba, name: str, accident: Accident, names: set[str]) -> None:
    """What comes of it, and that the next listing has everything."""
    try:
        found = interrupted(mount, samba, name, accident)
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 (an error is as good as all names)
    else:
        assert len(found) == len(names)
        assert set(found) == names
    assert set(os.listdir(mount.path / name)) == names


@pytest.mark.parametrize("share", ["durable", "neither"])
def test_a_lost_connection_hides_no_names(samba: Samba, mounted: Mounter, share: str) -> None:
    names = lay_out(samba, share, "interrupted")
    mount = mounted(*PATIENT, "actimeo=0", share=share)
    check(mount, samba, "interrupted", cut_link, names)


@pytest.mark.parametrize("accident", [cut_link, kill_session])
def test_nor_does_it_where_handles_persist(later_samba: Samba, mounted: Mounter, accident: Accident) -> None:
    name = f"interrupted-{accident.__name__}"
    names = lay_out(later_samba, PERSISTENT, name)
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    check(mount, later_samba, name, accident, names)
