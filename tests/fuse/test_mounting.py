"""mount(2) and fusermount3 where they refuse; real mounts by both are in tests/vfs and tests/live."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from smb3fs.errors import MountError
from smb3fs.fuse import mounting
from smb3fs.fuse.negotiation import WANTED, agree
from smb3fs.wire import fuse_session as session
from smb3fs.wire.fuse_session import InitIn

needs_device = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing")


@dataclass(frozen=True)
class Options:
    fsname: str = "//sérver/a, sh\\are"
    read_only: bool = True
    allow_other: bool = True
    noperm: bool = False
    kernel_flags: tuple[str, ...] = ("nosuid", "nodev")
    rasize: int = 1 << 20


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fusermount3 of the test's own, for a user who may not call mount(2)."""

    def refuse(target: str, options: object) -> int:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(mounting, "_by_system_call", refuse)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "fusermount3"


def write(helper: Path, script: str) -> None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(stat.S_IRWXU)


@needs_device
def test_what_the_helper_says_is_told(helper: Path) -> None:
    write(helper, 'echo "fusermount3: user has no write access to mountpoint /x" >&2; exit 1')
    with pytest.raises(MountError, match=r"^fusermount3 refused to mount at /x: user has no"):
        mounting.mount("/x", Options())


@needs_device
def test_a_helper_that_sends_nothing_is_asked_to_unmount(helper: Path, tmp_path: Path) -> None:
    write(helper, f'printf "%s\\n" "$*" >>{tmp_path}/asked')
    with pytest.raises(MountError, match="sent no descriptor"):
        mounting.mount("/x", Options())
    assert (tmp_path / "asked").read_text().splitlines() == [
        r"-o allow_other,default_permissions,fsname=//sérver/a\, sh\\are,nodev,nosuid,ro,subtype=smb3fs -- /x",
        "-u -q -z -- /x",
    ]


@needs_device
def test_a_helper_that_cannot_be_run(helper: Path) -> None:
    helper.write_text("this is no program")
    helper.chmod(stat.S_IRWXU)
    with pytest.raises(MountError, match="fusermount3 did not mount at /x"):
        mounting.mount("/x", Options())


@needs_device
def test_no_helper_at_all(helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(helper.parent))
    with pytest.raises(MountError, match="may not mount at /x: be root, or install fuse3, or give it CAP_SYS_ADMIN"):
        mounting.mount("/x", Options())


def test_a_mount_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was unmounted")

    monkeypatch.setattr(mounting, "_call", never)
    for device in ("0:41", None):
        monkeypatch.setattr(mounting, "device_number", lambda target, device=device: device)
        mounting.unmount("/x", "0:40")
        mounting.unmount("/x", None)


EVERYTHING = (1 << 64) - 1


def test_what_is_negotiated() -> None:
    agreed = agree(InitIn(7, 45, 131072, EVERYTHING), locks=False)
    assert agreed.flags == WANTED
    assert agreed.max_write == agreed.max_pages * os.sysconf("SC_PAGESIZE") == 1 << 20
    assert not agreed.flags & (session.WRITEBACK_CACHE | session.EXPORT_SUPPORT | session.POSIX_LOCKS)
    with_locks = agree(InitIn(7, 45, 131072, EVERYTHING), locks=True)
    assert with_locks.flags == WANTED | session.POSIX_LOCKS | session.FLOCK_LOCKS


def test_nothing_is_taken_that_was_not_offered() -> None:
    old = agree(InitIn(7, 31, 4096, session.ASYNC_READ | session.PARALLEL_DIROPS), locks=True)
    assert (old.minor, old.flags) == (31, session.ASYNC_READ | session.PARALLEL_DIROPS)
    assert agree(InitIn(7, 99, 4096, 0), locks=False).minor == session.MINOR


@pytest.mark.parametrize("version", [(7, 30), (6, 50), (8, 1)])
def test_other_kernels_are_refused_in_a_sentence(version: tuple[int, int]) -> None:
    with pytest.raises(MountError, match=r"smb3fs needs 7\.31 \(Linux 5\.4\)"):
        agree(InitIn(*version, 0, 0), locks=False)
