"""What files and directories cost, in exchanges that somebody waits for: nothing where leases say that nothing is new.

The files are made on the server's own disk before anything is mounted, so nothing is known of them but what is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from smb3fs.status import query_status

from .conftest import Mounter, until
from .test_cached_directories import PLAIN, warm

SIZE = 4096
FILES = 20
# git without the user's own ways, and without a lock on the index.
GIT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    **{f"GIT_{who}_{what}": "somebody@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
BRANCHES = 60
# Longer than any test takes: what one question has answered is not asked again because the machine is slow.
BELIEVED = "actimeo=600"


def filled(server: Samba) -> Iterator[str]:
    """The name of a new directory with files in it."""
    name = f"trips-{os.urandom(4).hex()}"
    folder = server.directory() / name
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file{number}").write_bytes(bytes([number]) * SIZE)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, UNIX_ACCOUNT)
    yield name
    shutil.rmtree(folder)


@pytest.fixture
def place(server: Samba) -> Iterator[str]:
    """A directory on that server."""
    yield from filled(server)


@pytest.fixture
def place_without(samba: Samba) -> Iterator[str]:
    """A directory on the one without."""
    yield from filled(samba)


@pytest.fixture
def held_place(later_samba: Samba) -> Iterator[str]:
    """A directory on the one with directory leases."""
    yield from filled(later_samba)


def trips(mount: Mount, deed: Callable[[], object]) -> int:
    """How many round trips something costs; asked for here, as a program that does so takes a while to start."""
    before: int = query_status(str(mount.path))["round_trips"]
    deed()
    after: int = query_status(str(mount.path))["round_trips"]
    return after - before


def read(path: Path) -> bytes:
    """open(2), read(2), close(2), and nothing else."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, SIZE)
    finally:
        os.close(descriptor)


def make(path: Path, *, modified: int | None = None) -> None:
    """open(2) of a new file, write(2), its time of the last write in seconds if given, close(2), and nothing else."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        assert os.write(descriptor, b"x" * SIZE) == SIZE
        if modified is not None:
            os.utime(descriptor, (modified, modified))
    finally:
        os.close(descriptor)


def reads(mount: Mount, folder: Path, numbers: range) -> list[int]:
    """What each file costs that is read, and is what it should be."""

    def each(number: int) -> Callable[[], object]:
        def look() -> None:
            assert read(folder / f"file{number}") == bytes([number]) * SIZE

        return look

    return [trips(mount, each(number)) for number in numbers]


def test_a_cold_small_file_costs_one_where_its_name_is_known_else_two(
    server: Samba, mounted: Mounter, place: str
) -> None:
    """The name; and all of the file with its opening."""
    mount = mounted(BELIEVED, server=server)
    folder = mount.path / place
    os.stat(folder)
    assert reads(mount, folder, range(1)) == [2]
    # With leases on directories it is listed behind that, and the name of the next one is known, if that has come.
    assert reads(mount, folder, range(1, 2))[0] in ((1, 2) if server.has_persistent_handles() else (2,))
    assert [entry.stat().st_size for entry in os.scandir(folder)] == [SIZE] * FILES
    assert reads(mount, folder, range(2, 4)) == [1] * 2
    mounted.finish()


def test_what_is_held_costs_nothing(later_samba: Samba, mounted: Mounter, held_place: str) -> None:
    """Status, listing, opening and reading again, long after the kernel would have asked again without leases."""
    mount = mounted(PLAIN, server=later_samba)
    folder = warm(mount, held_place)
    assert reads(mount, folder, range(5)) == [1] * 5
    time.sleep(1.1)

    def again() -> None:
        for number in range(5):
            assert os.stat(folder / f"file{number}").st_size == SIZE
            assert read(folder / f"file{number}") == bytes([number]) * SIZE
        assert len(os.listdir(folder)) == FILES

    assert trips(mount, again) == 0
    mounted.finish()


def test_a_new_small_file_costs_two_where_its_name_is_known_to_be_free(
    later_samba: Samba, mounted: Mounter, held_place: str
) -> None:
    """The file, and its contents. The attributes of the directory, which the kernel needs next, come meanwhile."""
    mount, other = mounted(PLAIN, server=later_samba), mounted(PLAIN, "noperm", server=later_samba)
    folder, unjudged = warm(mount, held_place), warm(other, held_place)
    assert [trips(mount, lambda number=number: make(folder / f"a{number}")) for number in range(4)] == [2] * 4
    os.listdir(unjudged)
    until(lambda: trips(other, (unjudged / "absent").exists) == 0)
    assert [trips(other, lambda number=number: make(unjudged / f"b{number}")) for number in range(4)] == [2] * 4
    mounted.finish()


def test_one_that_is_given_its_times_costs_no_more(server: Samba, mounted: Mounter, place: str) -> None:
    """As when an archive is unpacked. The server has these times, also after the close, and what was written."""
    mount = mounted(BELIEVED, server=server)
    folder = warm(mount, place)
    os.stat(folder)
    each = 2 if server.has_persistent_handles() else 3  # where names are not held, whether this one is free
    for number in range(4):
        name = f"t{number}"
        assert trips(mount, lambda name=name: make(folder / name, modified=10**9)) == each
        made = server.directory() / place / name
        assert made.read_bytes() == b"x" * SIZE
        assert (mount.path / place / name).stat().st_mtime == 10**9
        until(lambda made=made: made.stat().st_mtime == 10**9)
    mounted.finish()


def test_a_new_small_file_costs_three_where_its_name_has_to_be_asked_for(
    samba: Samba, mounted: Mounter, place_without: str
) -> None:
    """Whether the name is free, the file, and its contents."""
    if samba.has_persistent_handles():
        pytest.skip("this Samba has leases on directories, so that it is known which names are free")
    mount = mounted(BELIEVED, server=samba)
    folder = mount.path / place_without
    os.stat(folder)
    assert [trips(mount, lambda number=number: make(folder / f"a{number}")) for number in range(4)] == [3] * 4
    mounted.finish()


def test_many_new_files_cost_two_each(samba: Samba, mounted: Mounter, place_without: str) -> None:
    """As when an archive is unpacked: a listing shows which names are free. What others make is seen in its time."""
    if samba.has_persistent_handles():
        pytest.skip("this Samba has leases on directories, so that it is known which names are free")
    mount = mounted("actimeo=3", server=samba)
    folder = mount.path / place_without / "new"
    folder.mkdir()

    def unpack() -> None:
        for number in range(FILES):
            make(folder / f"a{number}")

    # The first three names, and a listing; once more of each if that takes longer than three seconds.
    assert trips(mount, unpack) <= 2 * FILES + 8
    made = samba.directory() / place_without / "new"
    assert sorted(path.name for path in made.iterdir()) == sorted(f"a{number}" for number in range(FILES))
    (made / "theirs").write_bytes(b"")
    until((folder / "theirs").exists)
    mounted.finish()


def test_the_removal_of_a_file_costs_one(server: Samba, mounted: Mounter, place: str) -> None:
    """And what the kernel asks of the directory between two removals is under way when it asks."""
    mount = mounted(BELIEVED, server=server)
    folder = mount.path / place
    assert [entry.stat().st_size for entry in os.scandir(folder)] == [SIZE] * FILES
    os.stat(folder)
    times = []

    def remove(number: int) -> None:
        (folder / f"file{number}").unlink()
        times.append(folder.stat().st_mtime_ns)
        assert times[-1] == (server.directory() / place).stat().st_mtime_ns // 100 * 100

    assert [trips(mount, lambda number=number: remove(number)) for number in range(4)] == [1] * 4
    assert sorted(times) == times
    assert trips(mount, (folder / "file4").unlink) == 1
    mounted.finish()


def test_git_status_the_second_time_asks_for_nothing(
    later_samba: Samba, mounted: Mounter, tmp_path: Path, held_place: str
) -> None:
    """What git looks at is known by then, and so is what it looks for in vain."""
    mount = mounted(PLAIN, server=later_samba)
    work = mount.path / held_place / "work"
    for number in range(40):
        (tmp_path / f"d{number}").mkdir()
        for other in range(25):  # enough for git to ask with several threads
            (tmp_path / f"d{number}" / f"f{other}").write_text(f"{number} {other}\n")

    def git(*words: str, **environment: str) -> str:
        told = subprocess.run(["git", *words], check=True, capture_output=True, text=True, env=GIT | environment)
        return told.stdout

    git("init", "-q", str(tmp_path))
    git("-C", str(tmp_path), "add", ".")
    git("-C", str(tmp_path), "commit", "-qm", "all")
    git("clone", "-q", "--no-hardlinks", str(tmp_path), str(work))
    time.sleep(1.1)  # what was made in the second in which the index was written is looked into each time
    git("-C", str(work), "status", GIT_OPTIONAL_LOCKS="1")  # which notes what it has seen in the index
    mount.unmount()
    # A mount that knows nothing yet, where handles wait for as long as it takes two of git on a slow machine.
    mount = mounted(PLAIN, "closetimeo=600", server=later_samba)
    work = mount.path / held_place / "work"

    def status() -> int:
        return trips(mount, lambda: looks_clean(git("-C", str(work), "status", "--porcelain")))

    first = status()
    time.sleep(1.1)  # longer than the kernel would believe anything without a lease
    assert (status(), status()) == (0, 0)
    # Each directory was listed after some of the files in it had been asked for.
    assert first < 1000
    mounted.finish()


def test_attributes_that_no_lease_holds_cost_a_listing_and_not_each_file(
    server: Samba, mounted: Mounter, place: str
) -> None:
    """With the POSIX extensions, or without leases on directories, they are believed for a second."""
    mount = mounted(server=server)
    folder = mount.path / place
    (server.directory() / place / "another").mkdir()

    def look() -> None:
        for number in range(FILES):
            assert os.stat(folder / f"file{number}").st_size == SIZE

    look()
    costs = []
    for _ in range(3):
        time.sleep(1.1)
        costs.append(trips(mount, look))
    # The directory, a few files, and all of them by one listing; twice that if the machine is slow.
    assert max(costs) <= FILES // 2
    (server.directory() / place / "file7").write_bytes(b"new")
    until(lambda: os.stat(folder / "file7").st_size == len(b"new"))
    mounted.finish()


def test_a_walk_through_a_tree_costs_less_than_a_trip_a_directory(server: Samba, mounted: Mounter, place: str) -> None:
    """The next directories are listed ahead, and again when what they said is too old."""
    mount = mounted(server=server)
    tree, local = mount.path / place, server.directory() / place
    for number in range(BRANCHES):
        for path in (local / f"d{number:02}", local / f"d{number:02}" / f"leaf{number}"):
            path.mkdir()
            shutil.chown(path, UNIX_ACCOUNT)

    def walk() -> None:
        found = {entry.name: os.listdir(entry.path) for entry in os.scandir(tree) if entry.is_dir()}
        assert found == {f"d{number:02}": [f"leaf{number}"] for number in range(BRANCHES)}

    costs = []
    for _ in range(3):
        costs.append(trips(mount, walk))
        time.sleep(1.1)
    # Those before it is clear where the walk goes, and some whose answer was older than a second on a slow machine.
    assert max(costs) <= BRANCHES // 2
    told = mount.status()["directories"]
    assert told["ahead_used"] >= BRANCHES // 2
    (local / "d30" / "new").mkdir()
    until(lambda: set(os.listdir(tree / "d30")) == {"leaf30", "new"})
    mounted.finish()


def looks_clean(told: str) -> None:
    """git has found nothing to tell."""
    assert told == ""
