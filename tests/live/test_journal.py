"""What a killed daemon has left open on the server is closed by the next mount at the same place."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError, wait_until
from lab.server import PERSISTENT, Samba

from smb3fs.status import state_path

from .conftest import Mounter

# With the POSIX extensions what carries locks is another open beside the file's own.
OPTIONS = ("noposix",)


def kill(mount: Mount) -> None:
    """End a mount's daemon with SIGKILL, and take away what it leaves on this machine."""
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGKILL)
    assert wait_until(lambda: not mount.daemons(), 10)
    subprocess.run(["umount", "--lazy", str(mount.path)], check=True)


def let_go(mount: Mount) -> None:
    """Unmount in an orderly way, though files are open."""
    subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGTERM)
    assert wait_until(lambda: not mount.daemons(), 30)


def journal(mount: Mount) -> Path:
    """Where the daemon of a mount of the persistent share writes down what is open."""
    return Path(state_path(str(mount.path), mount.source.replace("/", "\\") + "\\"))


def locks(path: Path) -> bool:
    """Whether somebody gets the lock on a file, at once; a refusal of the open counts as well."""
    try:
        with path.open("r+b", buffering=0) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


@contextmanager
def left_open(mount: Mount, *names: str) -> Iterator[None]:
    """Files are open and locked until the block has killed the daemon."""
    opened = [os.open(mount.path / name, os.O_RDWR | os.O_CREAT) for name in names]
    try:
        for descriptor in opened:
            os.write(descriptor, b"content")
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        for descriptor in opened:
            with suppress(OSError):  # there is nobody to close it
                os.close(descriptor)


def test_what_a_killed_daemon_left_is_closed_by_the_next_one(later_samba: Samba, mounted: Mounter) -> None:
    other = mounted("soft", "timeout=4", server=later_samba, share=PERSISTENT)
    mount = mounted(server=later_samba, share=PERSISTENT)
    names = ("one", "two", "three")
    with left_open(mount, *names):
        assert mount.status()["handles"]["persistent"] == len(names)
        kill(mount)
    assert sorted(os.path.basename(name) for name in later_samba.open_files()) == sorted(names)
    assert not locks(other.path / names[0])
    mount.mount()
    told = mount.status()["recovery"]["inherited"]
    assert told == {"closed": 3, "gone": 0, "left": 0}
    assert wait_until(lambda: later_samba.open_files() == [], 10)
    assert all(locks(other.path / name) for name in names)
    assert (mount.path / "two").read_bytes() == b"content"
    assert journal(mount).stat().st_mode & 0o077 == 0
    mount.unmount()
    assert not journal(mount).exists()


def test_what_was_renamed_while_it_was_open_is_closed_as_well(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=later_samba, share=PERSISTENT)
    descriptor = os.open(mount.path / "old", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, b"content")
        (mount.path / "old").rename(mount.path / "new")
        kill(mount)
    finally:
        with suppress(OSError):
            os.close(descriptor)
    mount.mount()
    # The open by the new name took the place of the one by the old name, whose CLOSE nobody waits for: the daemon may
    # have died before it wrote down that the server had done it.
    told = mount.status()["recovery"]["inherited"]
    assert (told["closed"], told["left"]) == (1, 0)
    assert told["gone"] <= 1
    assert wait_until(lambda: later_samba.open_files() == [], 10)


@pytest.mark.parametrize("ends", [kill, let_go])
def test_nothing_is_forgotten_while_the_server_is_away(
    later_samba: Samba, mounted: Mounter, ends: Callable[[Mount], None]
) -> None:
    mount = mounted("timeout=4", server=later_samba, share=PERSISTENT)
    with left_open(mount, "first", "second"):
        later_samba.stop()
        try:
            ends(mount)
            with pytest.raises(MountFailedError):
                mount.mount()
        finally:
            later_samba.start()
    mount.mount()
    assert mount.status()["recovery"]["inherited"] == {"closed": 2, "gone": 0, "left": 0}
    assert wait_until(lambda: later_samba.open_files() == [], 10)


def test_what_others_wrote_in_its_place_costs_a_line_in_the_log(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=later_samba, share=PERSISTENT)
    journal(mount).write_bytes(os.urandom(1000))
    kill(mount)
    mount.mount()
    assert mount.status()["recovery"]["inherited"] == {"closed": 0, "gone": 0, "left": 0}
    (mount.path / "after").write_bytes(b"content")
    mount.unmount()
    assert not journal(mount).exists()


def test_nothing_is_written_for_a_share_that_keeps_nothing_for_good(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=later_samba, share="durable")
    with (mount.path / "file").open("wb"):
        assert mount.status()["handles"]["durable_v2"] == 1
        assert not journal(mount).exists()
