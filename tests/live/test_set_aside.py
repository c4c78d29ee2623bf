"""A file that is removed or replaced while it is open stays there for who has it open, whatever breaks the link."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest
from faultlib.proxy import PORT, Proxy
from lab.mounting import Mount, wait_until
from lab.server import PERSISTENT, Samba

from .conftest import Mounter, Work
from .oracle import outcome

PATIENT = ("hard", "timeout=6", "echo_interval=1", f"port={PORT}")
KINDS = [("durable", ()), ("durable", ("noposix",)), (PERSISTENT, ()), (PERSISTENT, ("noposix",))]
kinds = pytest.mark.parametrize(
    ("share", "options"), KINDS, ids=["durable", "durable-noposix", "persistent", "persistent-noposix"]
)


class Reached(NamedTuple):
    """A mount through a relay, and a directory in it."""

    mount: Mount
    relay: Proxy
    work: Work

    def reset(self) -> None:
        """Reset the connection, and wait until the mount is over it."""
        before = self.mount.status()["recovery"]["generation"]
        assert self.relay.cut() > 0
        assert wait_until(lambda: self.mount.status()["recovery"]["generation"] > before, 30)

    def hidden(self) -> list[str]:
        """The names of ours on the server."""
        return [path.name for path in self.work.behind.parent.rglob(".smb3fs-*")]

    def gone(self) -> bool:
        """Whether there are none, soon."""
        return wait_until(lambda: not self.hidden(), 10)

    def lost(self) -> int:
        """How many handles were lost."""
        told: int = self.mount.status()["recovery"]["lost"]
        return told


@contextmanager
def reached(server: Samba, mounted: Mounter, share: str, options: tuple[str, ...]) -> Iterator[Reached]:
    """Mount through a relay."""
    with Proxy(server.network) as relay:
        mount = mounted(*PATIENT, *options, server=server, share=share)
        try:
            with working(mount, server, share) as work:
                yield Reached(mount, relay, work)
        finally:
            mount.unmount()


@contextmanager
def working(mount: Mount, server: Samba, share: str) -> Iterator[Work]:
    """Make a directory to work in."""
    name = f"work-{os.urandom(4).hex()}"
    work = Work(mount.path / name, server.directory(share) / name, name)
    work.path.mkdir()
    yield work
    shutil.rmtree(work.behind)


def goes_on(here: Reached, *, posix: bool) -> None:
    """Remove one open file and replace another, and use both over two losses."""
    removed, replaced = here.work.path / "removed", here.work.path / "replaced"
    for path in (removed, replaced):
        path.write_bytes(b"content of old")
    (here.work.path / "new").write_bytes(b"new")
    with removed.open("r+b", buffering=0) as one, replaced.open("r+b", buffering=0) as other:
        removed.unlink()
        os.replace(here.work.path / "new", replaced)
        assert sorted(os.listdir(here.work.path)) == ["replaced"]
        for number in range(2):
            here.reset()
            for file in (one, other):
                assert os.pread(file.fileno(), 100, 0)[:14] == b"content of old"
                assert os.pwrite(file.fileno(), b"written %d" % number, 14) == 9
                told = os.fstat(file.fileno())
                assert (told.st_size, told.st_nlink) == (23, 0)
            assert replaced.read_bytes() == b"new"
            assert outcome(removed.stat) == "ENOENT"
            assert sorted(os.listdir(here.work.path)) == ["replaced"]
        os.ftruncate(one.fileno(), 5)
        assert os.pread(one.fileno(), 100, 0) == b"conte"
        if posix:
            os.fchmod(one.fileno(), 0o600)
        assert here.lost() == 0
    assert here.gone()
    assert os.listdir(here.work.behind) == ["replaced"]
    assert (here.work.behind / "replaced").read_bytes() == b"new"
    replaced.unlink()


@kinds
def test_it_goes_on_over_losses(later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]) -> None:
    with reached(later_samba, mounted, share, options) as here:
        goes_on(here, posix=not options)


def test_so_it_does_on_the_server_of_before(samba: Samba, mounted: Mounter) -> None:
    with reached(samba, mounted, "durable", ()) as here:
        goes_on(here, posix=False)


def still_read(here: Reached) -> None:
    """Remove and replace what is open for reading alone, and read it over two losses."""
    names = ("removed", "replaced", "fresh")
    for name in names:
        (here.work.behind / name).write_bytes(name.encode() * 10)
    with (
        (here.work.path / "removed").open("rb", buffering=0) as one,
        (here.work.path / "replaced").open("rb", buffering=0) as other,
    ):
        (here.work.path / "removed").unlink()
        os.replace(here.work.path / "fresh", here.work.path / "replaced")
        for _ in range(2):
            here.reset()
            for file, name in ((one, "removed"), (other, "replaced")):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(file.fileno(), 1000, 0) == name.encode() * 10
            assert os.listdir(here.work.path) == ["replaced"]
        assert here.lost() == 0
    assert here.gone()
    assert os.listdir(here.work.behind) == ["replaced"]
    assert (here.work.path / "replaced").read_bytes() == b"fresh" * 10


@kinds
def test_what_is_only_read_goes_on_too(
    later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]
) -> None:
    """It is not asked to be kept when it is opened: it could be opened anew by its name, which it has no more."""
    with reached(later_samba, mounted, share, options) as here:
        still_read(here)


def test_so_it_does_on_the_server_of_before_when_it_is_only_read(samba: Samba, mounted: Mounter) -> None:
    with reached(samba, mounted, "durable", ()) as here:
        still_read(here)


@kinds
def test_its_directory_can_be_removed(
    later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]
) -> None:
    with reached(later_samba, mounted, share, options) as here:
        folder = here.work.path / "folder"
        (folder / "deep").mkdir(parents=True)
        with (folder / "deep/file").open("w+b", buffering=0) as file, (folder / "other").open("wb") as other:
            file.write(b"content")
            other.write(b"other")
            shutil.rmtree(folder)
            assert not (here.work.behind / "folder").exists()
            assert os.listdir(here.work.path) == []
            here.reset()
            assert os.pread(file.fileno(), 100, 0) == b"content"
            assert here.lost() == 0
        assert here.gone()
        # What was closed right before is in nobody's way either.
        folder.mkdir()
        with (folder / "file").open("wb"):
            (folder / "file").unlink()
        folder.rmdir()
        assert here.gone()
        assert os.listdir(here.work.behind) == []


@kinds
def test_its_directory_can_be_replaced(
    later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]
) -> None:
    with reached(later_samba, mounted, share, options) as here:
        old, new = here.work.path / "old", here.work.path / "new"
        old.mkdir()
        new.mkdir()
        with (old / "file").open("w+b", buffering=0) as file:
            file.write(b"content")
            (old / "file").unlink()
            os.replace(new, old)
            here.reset()
            assert os.pread(file.fileno(), 100, 0) == b"content"
            assert here.lost() == 0
        assert here.gone()
        assert os.listdir(here.work.behind) == ["old"]


def test_its_directory_can_be_renamed(later_samba: Samba, mounted: Mounter) -> None:
    """Nothing is left, though the server has the file under another name than it was given."""
    with reached(later_samba, mounted, "durable", ()) as here:
        (here.work.path / "old").mkdir()
        with (here.work.path / "old/file").open("w+b", buffering=0) as file:
            file.write(b"content")
            (here.work.path / "old/file").unlink()
            (here.work.path / "old").rename(here.work.path / "new")
            assert len(list((here.work.behind / "new").iterdir())) == 1
            assert os.pread(file.fileno(), 100, 0) == b"content"
        assert here.gone()
        (here.work.path / "new").rmdir()


@pytest.mark.parametrize(("share", "options"), KINDS[1:])
def test_one_that_is_locked(later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]) -> None:
    """As far as one that has its name is kept with its locks, which is not so on durable shares with the extensions."""
    with reached(later_samba, mounted, share, options) as here:
        path = here.work.path / "file"
        with path.open("w+b", buffering=0) as file:
            file.write(b"content")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            here.reset()
            assert os.pread(file.fileno(), 100, 0) == b"content"
            assert file.write(b"!") == 1
            fcntl.lockf(file, fcntl.LOCK_UN)
            assert here.lost() == 0
        assert here.gone()


def test_one_name_of_several(later_samba: Samba, mounted: Mounter) -> None:
    with reached(later_samba, mounted, "durable", ()) as here:
        one, two = here.work.path / "one", here.work.path / "two"
        one.write_bytes(b"content")
        os.link(one, two)
        with one.open("r+b", buffering=0) as file:
            one.unlink()
            assert os.fstat(file.fileno()).st_nlink == 1
            here.reset()
            assert os.pread(file.fileno(), 100, 0) == b"content"
            assert os.fstat(file.fileno()).st_nlink == two.stat().st_nlink == 1
        assert here.gone()
        assert two.read_bytes() == b"content"
        assert (here.work.behind / "two").stat().st_nlink == 1
        two.unlink()


@pytest.mark.parametrize("share", ["durable", PERSISTENT])
def test_a_daemon_that_is_killed_leaves_nothing(later_samba: Samba, mounted: Mounter, share: str) -> None:
    mount = mounted(server=later_samba, share=share)
    with working(mount, later_samba, share) as work:
        opened = [os.open(work.path / name, os.O_RDWR | os.O_CREAT) for name in ("removed", "replaced")]
        try:
            os.write(opened[0], b"content")
            (work.path / "removed").unlink()
            (work.path / "new").write_bytes(b"new")
            os.replace(work.path / "new", work.path / "replaced")
            assert len(list(work.behind.glob(".smb3fs-*"))) == 2
            (daemon,) = mount.daemons()
            os.kill(daemon, signal.SIGKILL)
            assert wait_until(lambda: not mount.daemons(), 10)
            subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
        finally:
            for descriptor in opened:
                with suppress(OSError):  # there is nobody to close it
                    os.close(descriptor)
        mount.mount()
        assert wait_until(lambda: os.listdir(work.behind) == ["replaced"], 20)
        assert os.listdir(work.path) == ["replaced"]
        assert (work.path / "replaced").read_bytes() == b"new"


@kinds
def test_an_unmount_leaves_nothing(later_samba: Samba, mounted: Mounter, share: str, options: tuple[str, ...]) -> None:
    mount = mounted(*options, server=later_samba, share=share)
    with working(mount, later_samba, share) as work:
        descriptor = os.open(work.path / "file", os.O_RDWR | os.O_CREAT)
        try:
            os.write(descriptor, b"content")
            (work.path / "file").unlink()
            assert len(os.listdir(work.behind)) == 1
            subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
            (daemon,) = mount.daemons()
            os.kill(daemon, signal.SIGTERM)
            assert wait_until(lambda: not mount.daemons(), 30)
        finally:
            with suppress(OSError):
                os.close(descriptor)
        assert os.listdir(work.behind) == []
