"""Small files opened ahead of a program that opens one after the other: what it saves, and that it is in nobody's way.

Counters say it, never times. Where other clients change what waits here, they are mounts of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Mounter, native_only, until

pytestmark = native_only

COUNT = 60
# Longer than any test: what is given up is given up for another reason.
KEPT = ("closetimeo=600", "actimeo=600")


def content(index: int) -> bytes:
    """What is in a file at first."""
    return b"%05d" % index * 800


def name(index: int) -> str:
    return f"file-{index:03}"


@pytest.fixture
def mounts(later_samba: Samba, mounted: Mounter) -> Iterator[Callable[..., Mount]]:
    """Mounts of the server that has directory leases."""
    yield lambda *options: mounted(*options, server=later_samba)
    mounted.finish()


@pytest.fixture
def files(mounts: Callable[..., Mount], request: pytest.FixtureRequest) -> tuple[Path, Callable[[Mount], Path]]:
    """A directory with many small files, as another client sees it and as a mount does."""
    there = mounts()
    folder = request.node.name.replace("[", "-").replace("]", "")
    (there.path / folder).mkdir()
    for index in range(COUNT):
        (there.path / folder / name(index)).write_bytes(content(index))
    return there.path / folder, lambda mount: mount.path / folder


def walk(folder: Path, indexes: range) -> None:
    """Read these, one after the other; the directory has been listed, so it is kept."""
    os.listdir(folder)
    for index in indexes:
        assert (folder / name(index)).read_bytes() == content(index)


def ahead(mount: Mount) -> tuple[int, int]:
    """How many were asked for ahead, and how many of these were of use."""
    opens = mount.status()["opens"]
    return opens["ahead"], opens["ahead_used"]


def waits(mount: Mount) -> int:
    """How many handles wait, once none is on its way."""
    asked, used = ahead(mount)
    until(lambda: mount.status()["deferred_handles"] >= asked)
    return asked - used


@pytest.mark.parametrize("order", ["up", "down"])
def test_who_opens_one_after_the_other_waits_for_few(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]], order: str
) -> None:
    mount = mounts(*KEPT)
    folder = files[1](mount)
    os.listdir(folder)
    for index in range(COUNT) if order == "up" else reversed(range(COUNT)):
        (folder / name(index)).stat()
    before = mount.status()
    walk(folder, range(COUNT) if order == "up" else range(COUNT - 1, -1, -1))
    after = mount.status()
    asked, used = ahead(mount)
    assert asked == used == COUNT - 3
    assert after["requests"]["CREATE"] - before["requests"]["CREATE"] <= COUNT + 2
    # The first three, and those that were still on their way when the program came to them.
    assert after["round_trips"] - before["round_trips"] < COUNT // 3
    assert after["open_handles"] == before["open_handles"]


@pytest.mark.parametrize("option", ["noposix", "actimeo=600"])
def test_the_kernel_does_not_ask_about_what_it_opens(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]], option: str
) -> None:
    mount = mounts("closetimeo=600", option)
    folder = files[1](mount)
    os.listdir(folder)
    for index in range(COUNT):
        (folder / name(index)).stat()
    before = mount.status()["operations"]
    for index in range(COUNT):
        assert (folder / name(index)).read_bytes() == content(index)
    # open, flush and release, and what a few of the first have to read.
    assert mount.status()["operations"] - before < 3 * COUNT + COUNT // 2


@pytest.mark.parametrize("opened", ["held open", "closed"])
@pytest.mark.parametrize("option", ["noposix", "posix"])
def test_the_size_is_that_of_what_another_client_has_written(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]], option: str, opened: str
) -> None:
    there, of = files
    mount = mounts("closetimeo=600", option)
    folder = of(mount)
    os.listdir(folder)
    for index in range(COUNT):
        (folder / name(index)).stat()
    with contextlib.ExitStack() as stack:
        for index in range(12):
            file = stack.enter_context((folder / name(index)).open("rb"))
            assert file.read() == content(index)
            if opened == "closed":
                file.close()
            with (there / name(index)).open("ab") as other:
                other.write(b"more" * (index + 1))
                other.flush()
                size = len(content(index)) + 4 * (index + 1)
                if opened == "held open":
                    until(lambda file=file, size=size: os.fstat(file.fileno()).st_size == size)  # type: ignore[misc]
            until(lambda index=index, size=size: (folder / name(index)).stat().st_size == size)  # type: ignore[misc]
            assert (folder / name(index)).read_bytes() == content(index) + b"more" * (index + 1)


def test_in_the_order_of_the_listing(mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]) -> None:
    mount = mounts(*KEPT)
    folder = files[1](mount)
    for entry in os.listdir(folder):
        assert (folder / entry).read_bytes() == content(int(entry[-3:]))
    asked, used = ahead(mount)
    assert asked == used == COUNT - 3


def test_in_no_order_nothing_is_asked_for(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]
) -> None:
    mount = mounts(*KEPT)
    folder = files[1](mount)
    os.listdir(folder)
    for index in range(0, COUNT * 7, 7):
        assert (folder / name(index % COUNT)).read_bytes() == content(index % COUNT)
    assert ahead(mount) == (0, 0)


def test_what_another_client_writes_is_read(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]
) -> None:
    there, of = files
    mount = mounts(*KEPT)
    folder = of(mount)
    walk(folder, range(4))
    assert waits(mount) > 0
    for index in range(4, 8):
        (there / name(index)).write_bytes(b"new" * 2000)
        assert (folder / name(index)).read_bytes() == b"new" * 2000
    (there / name(8)).unlink()
    with pytest.raises(FileNotFoundError):
        (folder / name(8)).read_bytes()
    os.rename(there / name(9), there / name(10))
    with pytest.raises(FileNotFoundError):
        (folder / name(9)).read_bytes()
    assert (folder / name(10)).read_bytes() == content(9)
    (there / name(8)).write_bytes(b"another file")
    assert (folder / name(8)).read_bytes() == b"another file"


def test_what_waits_is_not_in_our_own_way(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]
) -> None:
    there, of = files
    mount = mounts(*KEPT)
    folder = of(mount)
    walk(folder, range(4))
    assert waits(mount) > 0
    (folder / name(4)).write_bytes(b"ours")
    assert (folder / name(4)).read_bytes() == b"ours"
    with (folder / name(5)).open("r+b") as file:
        file.write(b"begins so")
    assert (folder / name(5)).read_bytes() == b"begins so" + content(5)[9:]
    os.truncate(folder / name(6), 3)
    assert (folder / name(6)).read_bytes() == content(6)[:3]
    os.replace(folder / name(7), folder / name(8))
    assert (folder / name(8)).read_bytes() == content(7)
    (folder / name(9)).unlink()
    assert not (there / name(9)).exists()
    walk(folder, range(10, 14))
    assert waits(mount) > 0
    os.rename(folder, folder.with_name(folder.name + "-moved"))
    moved = folder.with_name(folder.name + "-moved")
    assert (moved / name(14)).read_bytes() == content(14)
    for entry in os.listdir(moved):
        (moved / entry).unlink()
    moved.rmdir()
    assert mount.status()["deferred_handles"] == 0


def test_what_nobody_uses_is_closed(mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]) -> None:
    mount = mounts("closetimeo=1")
    folder = files[1](mount)
    os.listdir(folder)
    inodes = mount.status()["inodes"]
    walk(folder, range(4))
    assert ahead(mount)[0] > 0
    until(lambda: mount.status()["deferred_handles"] == 0)
    status = mount.status()
    assert (status["open_handles"], status["directories"]["directories"]) == (0, 1)
    # What the kernel was never told of is not remembered for ever.
    assert mount.status()["inodes"] <= inodes + 4 + COUNT


def test_large_files_are_left_alone(mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]]) -> None:
    there, of = files
    mount = mounts(*KEPT)
    for index in range(0, COUNT, 2):
        (there / name(index)).write_bytes(bytes(70_000))
    folder = of(mount)
    os.listdir(folder)
    for index in range(10):
        assert len((folder / name(index)).read_bytes()) == (len(content(index)) if index % 2 else 70_000)
    asked, used = ahead(mount)
    assert asked >= used > 0
    opens = mount.status()["requests"]["CREATE"]
    for index in range(1, 9, 2):
        assert (folder / name(index)).read_bytes() == content(index)
    assert mount.status()["requests"]["CREATE"] == opens


@pytest.mark.parametrize("option", ["cache=none", "nohandlecache", "max_cached_handles=0", "nolease"])
def test_where_nothing_may_wait_nothing_is_asked_for(
    mounts: Callable[..., Mount], files: tuple[Path, Callable[[Mount], Path]], option: str
) -> None:
    mount = mounts(option)
    walk(files[1](mount), range(COUNT))
    assert ahead(mount) == (0, 0)


def test_nor_where_nobody_says_who_removes_it(samba: Samba, mounted: Mounter) -> None:
    if samba.has_persistent_handles():
        pytest.skip("this server says so")
    mount = mounted(server=samba)
    folder = mount.path / "opened-one-by-one"
    folder.mkdir()
    for index in range(20):
        (folder / name(index)).write_bytes(content(index))
    walk(folder, range(20))
    assert ahead(mount) == (0, 0)
    mounted.finish()
