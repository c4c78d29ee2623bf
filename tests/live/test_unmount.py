"""The end of a mount: nothing is left on the server, on this machine, or in the air."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from lab.mounting import DAEMON_SECONDS, Mount, wait_until
from lab.server import Samba

from .conftest import Mounter
from .oracle import outcome

# What the kernel answers for a mount whose daemon has gone.
GONE = ("ENOTCONN", "ECONNABORTED")


def use(mount: Mount) -> None:
    """Leave everything behind that a mount could: files, listings, deferred closes."""
    for number in range(20):
        (mount.path / f"used-{number}").write_bytes(b"x" * number * 1000)
        (mount.path / f"used-{number}").read_bytes()
    os.listdir(mount.path)
    os.scandir(mount.path).close()
    for number in range(20):
        (mount.path / f"used-{number}").unlink()


def nothing_left(samba: Samba) -> None:
    """No session, no tree connect, no open file, as the server tells it."""
    found = samba.status()
    assert not found["open_files"]
    assert not found["tcons"]
    assert not found["sessions"]


def test_umount_leaves_nothing(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=own_samba)
    use(mount)
    assert own_samba.sessions() == 1
    subprocess.run(["umount", mount.path], check=True)
    assert wait_until(lambda: not mount.daemons(), DAEMON_SECONDS)
    nothing_left(own_samba)


def test_closed_files_are_closed_on_the_server(own_samba: Samba, mounted: Mounter) -> None:
    """While the mount goes on: nobody waits for a CLOSE, but each is sent; a directory that is kept stays open."""
    mount = mounted(server=own_samba)
    use(mount)

    def kept() -> int:
        """How many directories are kept, which those that are open are to agree with."""
        return int(mount.status()["directories"]["directories"])

    with (mount.path / "held").open("wb"):
        assert [os.path.basename(name) for name in own_samba.open_files()] == ["held"]
        assert mount.status()["open_handles"] == 1
    assert wait_until(lambda: own_samba.open_files() == [], 5)
    assert wait_until(lambda: len(own_samba.open_files(directories=True)) == kept(), 5)
    assert kept() <= 1
    assert mount.status()["open_handles"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(own_samba: Samba, mounted: Mounter, number: int) -> None:
    mount = mounted(server=own_samba)
    use(mount)
    (daemon,) = mount.daemons()
    os.kill(daemon, number)
    assert wait_until(lambda: not mount.daemons(), DAEMON_SECONDS)
    assert not mount.mounted
    nothing_left(own_samba)


def test_a_signal_unmounts_a_busy_mount(own_samba: Samba, mounted: Mounter) -> None:
    """A file is open: SIGTERM ends the daemon all the same, what was written is there, the file answers an error."""
    mount = mounted(server=own_samba)
    descriptor = os.open(mount.path / "busy", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"written before the end")
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGTERM)
    assert wait_until(lambda: not mount.daemons(), DAEMON_SECONDS)
    assert outcome(os.write, descriptor, b"after") in GONE
    assert outcome(os.close, descriptor) in (None, *GONE)
    assert not mount.mounted
    assert (own_samba.directory() / "busy").read_bytes() == b"written before the end"
    nothing_left(own_samba)


def test_a_busy_mount_is_not_unmounted(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=own_samba)
    with (mount.path / "busy").open("wb") as file:
        done = subprocess.run(["umount", mount.path], capture_output=True, text=True, check=False)
        assert done.returncode == 32
        assert "busy" in done.stderr
        file.write(b"goes on")
    assert (own_samba.directory() / "busy").read_bytes() == b"goes on"


def test_a_lazy_unmount_ends_with_the_last_file(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=own_samba)
    with (mount.path / "lazy").open("wb", buffering=0) as file:
        subprocess.run(["umount", "--lazy", mount.path], check=True)
        assert not mount.mounted
        file.write(b"still written")
        assert mount.daemons()
    assert wait_until(lambda: not mount.daemons(), DAEMON_SECONDS)
    assert (own_samba.directory() / "lazy").read_bytes() == b"still written"
    nothing_left(own_samba)


def test_a_killed_daemon_can_be_cleared_away(own_samba: Samba, mounted: Mounter) -> None:
    """kill -9: calls fail at once, umount works, the next mount too."""
    mount = mounted(server=own_samba)
    mount.kill()
    assert outcome(os.listdir, mount.path) in GONE
    subprocess.run(["umount", mount.path], check=True)
    mount.mount()
    use(mount)
    assert wait_until(lambda: own_samba.sessions() == 1, 10)


def test_two_mounts_of_one_share_are_independent(own_samba: Samba, mounted: Mounter) -> None:
    first, second = mounted(server=own_samba), mounted(server=own_samba)
    (first.path / "shared").write_bytes(b"by the first")
    assert (second.path / "shared").read_bytes() == b"by the first"
    first.unmount()
    assert (second.path / "shared").read_bytes() == b"by the first"
    assert own_samba.sessions() == 1
    (second.path / "shared").unlink()


def test_mounts_in_turn(own_samba: Samba, mounted: Mounter) -> None:
    """The same place, again and again; each finds what the one before wrote."""
    mount = mounted(server=own_samba)
    for number in range(5):
        (mount.path / "turn").write_bytes(str(number).encode())
        mount.unmount()
        nothing_left(own_samba)
        mount.mount()
        assert (mount.path / "turn").read_bytes() == str(number).encode()
