"""Previous versions of a share, as Samba's vfs_shadow_copy2 keeps them in directories that are named by time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from lab.commands import run
from lab.mounting import MountFailedError, program
from lab.server import Samba

from .conftest import Mounter
from .oracle import outcome, tree

OLD, MIDDLE, NEW = "@GMT-2024.01.01-00.00.00", "@GMT-2025.06.01-12.30.00", "@GMT-2026.03.31-06.00.00"
MODULE = """
vfs objects = shadow_copy2
shadow:snapdir = .snapshots
shadow:format = @GMT-%Y.%m.%d-%H.%M.%S
shadow:sort = desc
shadow:localtime = no
"""
SECOND = 10_000_000
UNIX_EPOCH = 116_444_736_000_000_000


@pytest.fixture(scope="module")
def samba() -> Iterator[Samba]:
    """A server with three previous versions of its share, in place of the one that most tests have in common."""
    server = Samba()
    # The directory of the versions is looked for from the one that is named last.
    with server, server.settings(f"{MODULE}\nshadow:mountpoint = {server.directory()}"):
        for number, token in enumerate((OLD, MIDDLE, NEW)):
            folder = server.directory() / ".snapshots" / token / "folder"
            folder.mkdir(parents=True)
            (folder / "file").write_text(f"version {number}")
            (folder.parent / f"only-in-{number}").write_bytes(b"x" * number)
        (server.directory() / "folder").mkdir()
        server.put("folder/file", b"now")
        yield server


def listed(mountpoint: object) -> list[str]:
    """What `smb3fs snapshots` prints, without the local times."""
    done = run(program("smb3fs"), "snapshots", str(mountpoint))
    return [line.split("  ")[0] for line in done.stdout.splitlines()]


def test_each_version_is_what_it_was(samba: Samba, mounted: Mounter) -> None:
    mounts = {token: mounted(f"snapshot={token}") for token in (OLD, MIDDLE, NEW)}
    for number, mount in enumerate(mounts.values()):
        assert tree(mount.path) == {
            "folder": None,
            "folder/file": f"version {number}".encode(),
            f"only-in-{number}": b"x" * number,
        }
        assert (mount.path / f"only-in-{number}").stat().st_size == number
        assert (mount.path / "folder/file").read_text() == f"version {number}"
    now = mounted()
    assert (now.path / "folder/file").read_bytes() == b"now"


def test_it_is_read_only_whatever_else_is_asked_for(samba: Samba, mounted: Mounter) -> None:
    mount = mounted("rw", f"snapshot={MIDDLE}", "rw")
    for action in (
        lambda: (mount.path / "new").write_bytes(b""),
        lambda: (mount.path / "folder/file").write_bytes(b""),
        (mount.path / "folder/file").unlink,
        lambda: os.setxattr(mount.path / "folder/file", "user.one", b"1"),
        (mount.path / "more").mkdir,
    ):
        assert outcome(action) == "EROFS"
    assert (samba.directory() / ".snapshots" / MIDDLE / "folder/file").read_text() == "version 1"


def test_a_number_of_100_ns_means_the_same(mounted: Mounter) -> None:
    moment = int(run("date", "-u", "-d", "2025-06-01 12:30:00", "+%s").stdout)
    mount = mounted(f"snapshot={moment * SECOND + UNIX_EPOCH}")
    assert (mount.path / "only-in-1").exists()


def test_below_a_directory_of_the_share(samba: Samba, mounted: Mounter) -> None:
    assert (mounted(f"snapshot={NEW}", "prefixpath=folder").path / "file").read_bytes() == b"version 2"


def test_a_version_that_there_is_not(mounted: Mounter) -> None:
    """The sentence names those that come closest."""
    with pytest.raises(MountFailedError) as caught:
        mounted("snapshot=@GMT-2025.07.01-00.00.00")
    assert "no previous version @GMT-2025.07.01-00.00.00" in caught.value.output
    assert all(token in caught.value.output for token in (OLD, MIDDLE, NEW))


def test_a_server_without_any_does_not_show_the_share_as_it_is(own_samba: Samba, mounted: Mounter) -> None:
    """Samba without the module ignores the time, and would."""
    own_samba.put("file", b"now")
    with pytest.raises(MountFailedError, match="no previous versions of this share"):
        mounted(f"snapshot={OLD}", server=own_samba)
    assert listed(mounted(server=own_samba).path) == ["the server has no previous versions of this share"]


def test_a_list_of_them(samba: Samba, mounted: Mounter) -> None:
    now, then = mounted(), mounted(f"snapshot={MIDDLE}")
    assert listed(now.path) == listed(now.path / "folder") == [NEW, MIDDLE, OLD]
    shown = run(program("smb3fs"), "snapshots", str(then.path)).stdout.splitlines()
    assert [line.endswith("(mounted)") for line in shown] == [False, True, False]
    found = json.loads(run(program("smb3fs"), "snapshots", "--json", str(then.path)).stdout)
    assert (found["snapshots"], found["mounted"]) == ([NEW, MIDDLE, OLD], MIDDLE)
    # What is new is listed at once, and can be mounted.
    newest = "@GMT-2026.06.30-06.00.00"
    (samba.directory() / ".snapshots" / newest).mkdir()
    assert listed(now.path) == [newest, NEW, MIDDLE, OLD]
    assert os.listdir(mounted(f"snapshot={newest}").path) == []
    (samba.directory() / ".snapshots" / newest).rmdir()
