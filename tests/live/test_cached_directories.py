"""Directories under a lease: nothing is asked while it holds, and what others change is seen when it is taken back."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from .conftest import Mounter, until

# Attributes are held where they are not those of the POSIX extensions, whose modes change without a break.
PLAIN = "noposix"


@pytest.fixture
def place(later_samba: Samba, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new directory on the share, with forty files in it.

    What another test has removed may go with the last close of a mount that has just ended, which breaks leases.
    """
    until(lambda: not open_directories(later_samba))
    name = f"d-{os.urandom(4).hex()}"
    folder = later_samba.directory() / name
    folder.mkdir()
    for number in range(40):
        (folder / f"file{number}").write_bytes(b"x" * number)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, UNIX_ACCOUNT)
    yield name
    shutil.rmtree(folder, ignore_errors=True)


def cached(mount: Mount) -> dict[str, int]:
    """What is kept of directories."""
    told: dict[str, int] = mount.status()["directories"]
    return told


def trips(mount: Mount, deed: Callable[[], object]) -> int:
    """How many round trips something costs."""
    before = int(mount.status()["round_trips"])
    deed()
    return int(mount.status()["round_trips"]) - before


def listed(path: Path) -> dict[str, int]:
    """The names in a directory, and their sizes."""
    return {entry.name: entry.stat().st_size for entry in os.scandir(path)}


def warm(mount: Mount, name: str) -> Path:
    """Have a directory and the one above it kept, and its own attributes known."""
    path = mount.path / name
    for _ in range(2):
        os.listdir(mount.path)
        listed(path)
        os.stat(path)
        time.sleep(1.1)  # longer than the kernel would believe anything without a lease
    return path


def test_under_a_lease_nothing_is_asked(later_samba: Samba, mounted: Mounter, place: str) -> None:
    mount = mounted(PLAIN, server=later_samba)
    path = warm(mount, place)
    expected = {f"file{number}": number for number in range(40)}

    def look() -> None:
        assert listed(path) == expected
        assert os.stat(path / "file7").st_size == 7
        for absent in ("absent", ".gitignore"):
            assert not (path / absent).exists()

    look()
    assert trips(mount, look) == 0
    time.sleep(1.1)
    assert trips(mount, look) == 0
    told = cached(mount)
    assert told["directories"] == 2
    assert told["hits"] > 0
    assert told["breaks"] == 0
    assert mount.status()["leases"] == {}  # those are about files
    until(lambda: len(open_directories(later_samba)) >= 2)
    mounted.finish()
    until(lambda: not open_directories(later_samba))


def test_a_listing_tells_of_the_directory_itself_as_well(later_samba: Samba, mounted: Mounter, place: str) -> None:
    """What is known of it holds under its own lease and that of the directory that it is in."""
    mount = mounted(PLAIN, server=later_samba)
    path, behind = mount.path / place, later_samba.directory() / place
    os.listdir(mount.path)
    os.listdir(path)
    time.sleep(1.1)  # longer than the kernel believes what it was told by the listing above
    looks: list[os.stat_result] = []
    assert trips(mount, lambda: looks.extend(os.stat(one) for one in (mount.path, path))) == 0
    for told, true in zip(looks, (behind.parent.stat(), behind.stat()), strict=True):
        assert told.st_mtime_ns == true.st_mtime_ns // 100 * 100
        assert told.st_ino == true.st_ino or told.st_ino == 1
    os.utime(behind, (5, 5))  # breaks nothing
    other = mounted(PLAIN, server=later_samba)
    os.utime(other.path / place, (7, 7))
    until(lambda: path.stat().st_mtime == 7)
    # A server says the same of it whether it is listed or asked for.
    fresh = os.stat(other.path / place)
    os.listdir(mount.path)
    os.listdir(path)
    now = path.stat()
    assert (now.st_size, now.st_blocks, now.st_nlink, now.st_mode, now.st_mtime_ns, now.st_ctime_ns) == (
        *(fresh.st_size, fresh.st_blocks, fresh.st_nlink, fresh.st_mode, fresh.st_mtime_ns, fresh.st_ctime_ns),
    )
    mounted.finish()


def test_a_directory_that_was_listed_before_the_one_above_it(later_samba: Samba, mounted: Mounter, place: str) -> None:
    """It is asked for when it is read for the second time, and nobody waits."""
    mount = mounted(PLAIN, server=later_samba)
    path = mount.path / place
    os.listdir(path)
    os.listdir(mount.path)
    time.sleep(1.1)

    def again() -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.close(descriptor)

    again()
    time.sleep(1.1)
    assert trips(mount, lambda: os.stat(path)) == 0
    mounted.finish()


def test_the_root_of_a_mount_below_the_share_is_asked_for(later_samba: Samba, mounted: Mounter, place: str) -> None:
    """What others change of it breaks the lease on the directory that it is in, which nobody here has."""
    mount = mounted(PLAIN, share=f"share/{place}", server=later_samba)
    other = mounted(PLAIN, server=later_samba)
    for _ in range(2):
        os.listdir(mount.path)
        os.stat(mount.path)
        time.sleep(1.1)
    os.utime(other.path / place, (7, 7))
    until(lambda: os.stat(mount.path).st_mtime == 7)
    mounted.finish()


@pytest.mark.parametrize("options", [(PLAIN,), ()], ids=["plain", "posix"])
def test_a_directory_of_many_pages_is_kept_too(later_samba: Samba, mounted: Mounter, options: tuple[str, ...]) -> None:
    there = mounted(server=later_samba)
    folder = there.path / f"many-pages-{len(options)}"
    folder.mkdir()
    for number in range(1200):
        (folder / f"{number:04}-{'x' * 100}").touch()
    mount = mounted(*options, server=later_samba)
    os.listdir(mount.path / folder.name)
    assert cached(mount)["entries"] >= 1200
    shutil.rmtree(folder)
    until(lambda: not (mount.path / folder.name).exists())
    mounted.finish()


def test_what_is_not_there_is_known_after_the_first_look(later_samba: Samba, mounted: Mounter, place: str) -> None:
    """A directory that nobody lists is listed behind the scenes, when something has been looked for in vain."""
    mount, other = mounted(PLAIN, server=later_samba), mounted(PLAIN, server=later_samba)
    path = mount.path / place

    def look() -> None:
        assert not (path / "absent").exists()
        assert not (path / "none").exists()

    look()
    until(lambda: cached(mount)["directories"] == 2)
    look()
    time.sleep(1.1)  # longer than the kernel would believe anything without a lease
    look()
    assert trips(mount, look) == 0
    (other.path / place / "none").write_bytes(b"there now")
    until((path / "none").exists)
    mounted.finish()


def test_a_new_directory_is_known_to_have_nothing_in_it(later_samba: Samba, mounted: Mounter) -> None:
    # However slow the machine is, nothing is asked again of the directory above.
    mount = mounted(PLAIN, "actimeo=600", server=later_samba)
    folder = mount.path / f"new-{os.urandom(4).hex()}"
    folder.mkdir()
    assert not (folder / "first").exists()
    assert trips(mount, lambda: [(folder / f"{number}").exists() for number in range(20)]) == 0
    (folder / "first").write_bytes(b"1")
    (folder / "second").write_bytes(b"2")
    assert listed(folder) == {"first": 1, "second": 1}
    # Samba takes the lease back for a link of our own as well, so it is given up before that.
    os.link(folder / "first", folder / "third")
    assert sorted(os.listdir(folder)) == ["first", "second", "third"]
    assert cached(mount)["breaks"] == 0
    shutil.rmtree(folder)
    mounted.finish()


def test_the_last_close_of_a_removed_file_shows_in_its_directory(
    later_samba: Samba, mounted: Mounter, place: str
) -> None:
    """The server removes it then, and the kernel, which believes what it was told, knows of no change."""
    mount = mounted(PLAIN, server=later_samba)
    path, behind = warm(mount, place), later_samba.directory() / place
    for number in range(3):
        with (path / f"file{number}").open("rb"):
            (path / f"file{number}").unlink()
            assert listed(path).keys() == {f"file{other}" for other in range(number + 1, 40)}
            os.stat(path)
        until(lambda number=number: len(os.listdir(behind)) == 39 - number)  # type: ignore[misc]
        until(lambda: os.stat(path).st_mtime_ns == behind.stat().st_mtime_ns // 100 * 100)
    assert len(os.listdir(behind)) == 37
    mounted.finish()


def open_directories(samba: Samba) -> list[str]:
    """The directories that the server has open."""
    return [str(file["filename"]) for file in samba.status()["open_files"].values()]


def test_with_the_posix_extensions_names_are_held_and_modes_are_not(
    later_samba: Samba, mounted: Mounter, place: str
) -> None:
    mount, other = mounted("posix", server=later_samba), mounted("posix", server=later_samba)
    (other.path / place / "own").write_bytes(b"")
    path = warm(mount, place)
    assert not (path / "absent").exists()
    hits = cached(mount)["hits"]
    assert not (path / "absent").exists()
    assert cached(mount)["hits"] > hits
    assert os.stat(path / "own").st_mode & 0o777 != 0o600
    (other.path / place / "own").chmod(0o600)
    until(lambda: os.stat(path / "own").st_mode & 0o777 == 0o600)
    assert cached(mount)["breaks"] == 0


CHANGES: dict[str, Callable[[Samba, str], str]] = {
    "create": lambda samba, name: f"put {samba.credentials} new",
    "delete": lambda samba, name: "rm file3",
    "rename": lambda samba, name: "rename file3 file3.old",
    "replace": lambda samba, name: f"put {samba.credentials} file3",
    "attribute": lambda samba, name: "setmode file3 +r",
    "mkdir": lambda samba, name: "mkdir new",
    "move away": lambda samba, name: f"rename file3 \\{name}.away",
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_others_change_is_seen(later_samba: Samba, mounted: Mounter, place: str, what: str) -> None:
    mount = mounted(PLAIN, server=later_samba)
    path = warm(mount, place)
    behind = later_samba.directory() / place
    assert not (path / "new").exists()
    before = cached(mount)["breaks"]
    later_samba.client(f"cd {place}; {CHANGES[what](later_samba, place)}")
    # The news is on its way when smbclient ends.
    until(lambda: cached(mount)["breaks"] > before)
    until(lambda: sorted(os.listdir(path)) == sorted(os.listdir(behind)))
    assert (path / "new").exists() == (what in ("create", "mkdir"))
    assert (path / "file3").exists() == (behind / "file3").exists()
    if what == "replace":
        assert os.stat(path / "file3").st_size == os.stat(behind / "file3").st_size
    if what == "attribute":
        assert not os.stat(path / "file3").st_mode & 0o222
    (behind.parent / f"{place}.away").unlink(missing_ok=True)
    assert mount.status()["breaks"].get("RH to none", 0) >= 1


def test_a_name_to_which_something_was_moved_is_not_believed_for_as_long_as_the_one_before(
    later_samba: Samba, mounted: Mounter, place: str
) -> None:
    """The kernel takes over how long the old name is good for, though nothing tells of changes of the new one."""
    mount, other = mounted(PLAIN, server=later_samba), mounted(PLAIN, server=later_samba)
    (other.path / place / "sub").mkdir()
    (other.path / place / "sub" / "file").write_bytes(b"moved")
    assert os.listdir(mount.path / place / "sub") == ["file"]
    (mount.path / place / "sub" / "file").rename(mount.path / f"{place}-new")
    until((other.path / f"{place}-new").exists)
    (other.path / f"{place}-new").rename(other.path / f"{place}-away")
    assert (mount.path / f"{place}-away").stat().st_size == 5
    until(lambda: not (mount.path / f"{place}-new").exists())
    (mount.path / f"{place}-away").unlink()


def test_a_kept_directory_is_in_nobodys_way(later_samba: Samba, mounted: Mounter, place: str) -> None:
    mount, other = mounted(PLAIN, server=later_samba), mounted(PLAIN, server=later_samba)
    (other.path / place / "sub").mkdir()
    path = warm(mount, place)
    os.listdir(path / "sub")
    (other.path / place / "sub").rmdir()
    until(lambda: not (path / "sub").exists())
    os.listdir(path)
    (other.path / place).rename(other.path / f"{place}.moved")
    until(lambda: not path.exists())
    assert "file1" in os.listdir(mount.path / f"{place}.moved")
    (mount.path / f"{place}.moved").rename(path)
    (path / "own").mkdir()
    os.listdir(path / "own")
    (path / "own").rmdir()
    assert sorted(os.listdir(path)) == sorted(os.listdir(later_samba.directory() / place))


def test_own_changes_break_nothing_and_are_seen(later_samba: Samba, mounted: Mounter, place: str) -> None:
    mount = mounted(PLAIN, server=later_samba)
    path = warm(mount, place)
    behind = later_samba.directory() / place
    (path / "new").write_bytes(b"12345")
    assert os.stat(path / "new").st_size == 5
    (path / "file1").unlink()
    (path / "file2").rename(path / "file2.new")
    (path / "sub").mkdir()
    (path / "file4").write_bytes(b"y" * 1000)
    os.utime(path / "file5", (1, 2))
    (path / "file6").chmod(0o555)
    os.truncate(path / "file7", 70)
    with (path / "file8").open("ab") as file:
        file.write(b"more")
        file.flush()
        assert os.stat(path / "file8").st_size == 12
    expected = {entry.name: entry.stat().st_size for entry in os.scandir(behind) if entry.is_file()}
    for _ in range(2):
        found = {entry.name: entry.stat().st_size for entry in os.scandir(path) if entry.is_file()}
        assert found == expected
        assert (path / "sub").is_dir()
        assert not (path / "file1").exists()
        assert not (path / "file2").exists()
        assert os.stat(path / "file5").st_mtime == 2
        assert not os.stat(path / "file6").st_mode & 0o222
    (path / "file6").chmod(0o755)
    assert cached(mount)["breaks"] == 0


def test_a_directory_that_is_removed_while_it_is_listed_is_gone(
    later_samba: Samba, mounted: Mounter, place: str
) -> None:
    """Who lists it again and again has it kept, and the server removes it with the last of its handles."""
    mount = mounted(PLAIN, server=later_samba)
    folder, behind = mount.path / place, later_samba.directory() / place

    def look(path: Path) -> None:
        while True:
            try:
                os.listdir(path)
            except OSError as error:
                ends.append(errno.errorcode[error.errno or 0])
                return

    ends: list[str] = []
    for number in range(30):
        (folder / f"d{number}").mkdir()
        readers = [threading.Thread(target=look, args=(folder / f"d{number}",), daemon=True) for _ in range(2)]
        for reader in readers:
            reader.start()
        (folder / f"d{number}").rmdir()
        for reader in readers:
            reader.join(30)
        gone = behind / f"d{number}"
        until(lambda gone=gone: not gone.exists())
    assert set(ends) == {"ENOENT"}
    assert not [name for name in os.listdir(folder) if name.startswith("d")]


@pytest.mark.parametrize("whose", ["our", "another"])
def test_what_was_opened_before_a_change_and_is_read_after_it_leaves_nothing_old(
    later_samba: Samba, mounted: Mounter, place: str, whose: str
) -> None:
    """The kernel keeps what is read of a directory, by whomever, and shows it to all who open it after that."""
    mount = mounted(PLAIN, server=later_samba)
    changing = mount if whose == "our" else mounted(PLAIN, server=later_samba)
    path = warm(mount, place)
    opened = [os.open(path, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        (changing.path / place / "new").touch()
        if whose == "another":
            until(lambda: cached(mount)["breaks"])
        opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        assert "new" in os.listdir(opened[0])
        assert "new" in os.listdir(path)
        assert "new" in os.listdir(opened[1])
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_nothing_is_kept_where_that_is_not_wanted(later_samba: Samba, mounted: Mounter, place: str) -> None:
    for option in ("nolease", "cache=none"):
        mount = mounted(PLAIN, option, server=later_samba)
        os.listdir(mount.path / place)
        os.listdir(mount.path / place)
        assert not any(cached(mount).values())


def test_a_server_without_directory_leases_is_served_as_before(samba: Samba, mounted: Mounter) -> None:
    if samba.version() >= "Version 4.22":
        pytest.skip("this server has directory leases")
    mount = mounted()
    os.listdir(mount.path)
    assert cached(mount)["directories"] == 0
    assert mount.status()["open_handles"] == 0


@pytest.mark.parametrize("option", [PLAIN, "posix"])
def test_two_mounts_agree_with_the_truth_at_every_step(
    later_samba: Samba, mounted: Mounter, place: str, option: str
) -> None:
    mounts = [mounted(option, server=later_samba), mounted(option, server=later_samba)]
    behind = later_samba.directory() / place
    chance = random.Random(7)
    names = [f"n{number}" for number in range(8)]
    for _ in range(40):
        doer, watcher = chance.sample(mounts, 2)
        name, other = doer.path / place / chance.choice(names), doer.path / place / chance.choice(names)
        deed = chance.choice(["write", "unlink", "rename", "look"])
        if deed == "write":
            name.write_bytes(b"z" * chance.randrange(500))
        elif deed == "unlink":
            name.unlink(missing_ok=True)
        elif deed == "rename" and name.exists():
            name.replace(other)
        truth = {entry.name: entry.stat().st_size for entry in os.scandir(behind)}
        assert listed(doer.path / place) == truth
        # To the other one the news is on its way; what it has not kept it may believe for a second.
        there = watcher.path / place
        until(lambda there=there, truth=truth: listed(there) == truth)
        until(lambda there=there, truth=truth: all((there / one).exists() == (one in truth) for one in names))
