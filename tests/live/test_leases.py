"""Leases on a real server: granted as asked for, given back at once to others, and never broken by ourselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Mounter, Work, until


def leases(mount: Mount) -> dict[str, int]:
    """How many files have which lease, but for those that nobody here has open any more: such wait under R and H."""
    status = mount.status()
    found = Counter(status["leases"])
    found.subtract({"RH": status["deferred_handles"]})
    return dict(+found)


def breaks(mount: Mount) -> dict[str, int]:
    """What was taken back of files, by what it was and became; of directories it is all that they had."""
    status = mount.status()
    found = Counter(status["breaks"])
    found.subtract({"RH to none": status["break_causes"].get("directory", 0)})
    assert all(count >= 0 for count in found.values())
    return dict(+found)


def acknowledged(mount: Mount) -> int:
    """How many breaks were acknowledged."""
    return int(mount.status()["requests"].get("OPLOCK_BREAK", 0))


def granted(samba: Samba, name: str) -> list[str]:
    """The leases on a file as the server has them, one for each open."""
    files = samba.status()["open_files"].values()
    opens = [one for file in files if str(file["filename"]).endswith(name) for one in file["opens"].values()]
    return sorted(str(one["oplock"]["text"]) + str(one.get("lease", {}).get("text", "")) for one in opens)


def test_a_file_is_open_with_the_lease_that_suits_it(work: Work, mount: Mount, samba: Samba) -> None:
    (work.path / "read").write_bytes(b"x")
    assert leases(mount) == {}
    with (work.path / "written").open("wb"), (work.path / "read").open("rb"):
        assert leases(mount) == {"RWH": 1, "RH": 1}
        assert granted(samba, "written") == ["LEASERWH"] or "RWH" in granted(samba, "written")[0]
        # Another open of a file that is open has its key: it raises the lease, and breaks nothing.
        with (work.path / "read").open("r+b"), (work.path / "read").open("rb"):
            assert leases(mount) == {"RWH": 2}
        assert leases(mount) == {"RWH": 2}
    assert leases(mount) == {}
    assert breaks(mount) == {}


def test_others_get_what_they_want_at_once(work: Work, samba: Samba, mounted: Mounter) -> None:
    here, there = mounted(), mounted()
    path = Path(work.name, "f")
    with (here.path / path).open("w+b") as file:
        file.write(b"ours")
        file.flush()
        assert leases(here) == {"RWH": 1}
        assert (there.path / path).read_bytes() == b"ours"
        assert breaks(here) == {"RWH to RH": 1}
        assert acknowledged(here) == 1
        # What another client writes takes away what we might have kept of the contents.
        with (there.path / path).open("r+b") as other:
            other.write(b"THEY")
        until(lambda: leases(here) == {"none": 1})
        assert breaks(here) == {"RWH to RH": 1, "RH to none": 1}
        file.seek(0)
        assert os.pread(file.fileno(), 4, 0) == b"THEY"
        # smbclient is a client like any other.
        with (here.path / path).open("r+b"):
            assert leases(here) == {"RWH": 1}
            samba.client(f"get {work.name}/f /dev/null")
            until(lambda: breaks(here).get("RWH to RH") == 2)
    assert leases(here) == {}


def test_what_others_have_open_is_renamed(work: Work, mounted: Mounter) -> None:
    # The server has them give H back first. Samba 4.17 does not do that in the middle of a chain.
    here, there = mounted(), mounted("noposix")
    (here.path / work.name / "f").write_bytes(b"x")
    paths = [mount.path / work.name / "f" for mount in (here, there)]
    with paths[0].open("rb"), paths[1].open("rb") as other:
        assert [leases(mount) for mount in (here, there)] == [{"RH": 1}, {"RH": 1}]
        paths[0].rename(paths[0].with_name("g"))
        assert os.listdir(paths[0].parent) == ["g"]
        until(lambda: breaks(there) == {"RH to R": 1})
        assert breaks(here) == {}
        assert other.read() == b"x"
    assert [mount.status()["open_handles"] for mount in (here, there)] == [0, 0]


def test_without_leases_there_are_none(work: Work, mounted: Mounter) -> None:
    mount = mounted("nolease")
    with (mount.path / work.name / "f").open("wb"):
        assert leases(mount) == {}


def test_a_server_without_leases_has_none(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings("smb2 leases = no"):
        mount = mounted(server=own_samba)
        with (mount.path / "f").open("wb") as file:
            file.write(b"x")
            assert leases(mount) == {}
        (mount.path / "f").unlink()
        mounted_by = mount
        assert breaks(mounted_by) == {}
        mounted.finish()


@pytest.mark.parametrize("version", ["2.1", "3.0"])
def test_older_dialects_have_them_as_well(work: Work, samba: Samba, mounted: Mounter, version: str) -> None:
    mount = mounted(f"vers={version}")
    path = mount.path / work.name / "f"
    with path.open("w+b") as file:
        file.write(b"x")
        file.flush()
        assert leases(mount) == {"RWH": 1}
        samba.client(f"get {work.name}/f /dev/null")
        until(lambda: breaks(mount) == {"RWH to RH": 1})
        path.rename(path.with_name("g"))
        path.with_name("g").unlink()
        assert breaks(mount) == {"RWH to RH": 1}


def attributes_by_path(path: Path) -> None:
    os.utime(path, (1, 2))
    os.chmod(path, 0o555)
    os.chmod(path, 0o755)
    os.setxattr(path, "user.a", b"b")
    assert os.getxattr(path, "user.a") == b"b"
    os.removexattr(path, "user.a")


def renamed(path: Path) -> None:
    for name in ("b", "c", path.name):
        path.rename(path.with_name(name))
        path = path.with_name(name)
        path.read_bytes()


def truncated_by_path(path: Path) -> None:
    os.truncate(path, 1)
    os.truncate(path, 100)


def replaced_by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    path.rename(path.with_name("aside"))
    other.rename(path)
    assert path.read_bytes() == b"other"
    path.with_name("aside").unlink()


def removed_and_made_again(path: Path) -> None:
    for _ in range(3):
        path.unlink()
        path.write_bytes(b"again")
        assert path.read_bytes() == b"again"


def opened_again(path: Path) -> None:
    with ExitStack() as stack:
        for mode in ("rb", "r+b", "ab", "rb"):
            stack.enter_context(path.open(mode))
        path.read_bytes()


@pytest.mark.parametrize(
    "act",
    [attributes_by_path, renamed, truncated_by_path, replaced_by_another, removed_and_made_again, opened_again],
)
def test_what_we_do_to_a_file_that_is_open_does_not_break_our_lease(
    work: Work, mounted: Mounter, act: Callable[[Path], None]
) -> None:
    mount = mounted("user_xattr")
    path = mount.path / work.name / "a"
    with path.open("w+b") as file:
        file.write(b"contents")
        file.flush()
        act(path)
        assert breaks(mount) == {}
        assert leases(mount).get("RWH") == 1
    assert leases(mount) == {}


def test_a_second_name_has_a_lease_of_its_own(work: Work, mount: Mount) -> None:
    """The server holds a key to one name, so the names of a file break each other's W, and nothing else happens."""
    path, second = work.path / "a", work.path / "b"
    with path.open("w+b") as file:
        os.link(path, second)
        before = breaks(mount)
        with second.open("r+b") as other:
            other.write(b"by b")
            other.flush()
            assert os.pread(file.fileno(), 4, 0) == b"by b"
            file.write(b"by a")
            file.flush()
            assert os.pread(other.fileno(), 4, 0) == b"by a"
        after = breaks(mount)
        path.unlink()
        assert second.read_bytes() == b"by a"
    assert sum(after.values()) - sum(before.values()) >= 1
    assert leases(mount) == {}


def test_a_name_that_another_file_has_come_to_have_is_no_error(work: Work, samba: Samba, mount: Mount) -> None:
    """The key is another file's then, which the server refuses; nobody above learns of it."""
    path = work.path / "f"
    with path.open("w+b") as file:
        file.write(b"ours")
        file.flush()
        (work.behind / "f").rename(work.behind / "aside")
        samba.put(f"{work.name}/f", b"theirs")
        until(lambda: path.read_bytes() == b"theirs")
        path.rename(path.with_name("g"))
        assert (work.path / "g").read_bytes() == b"theirs"
        (work.path / "g").unlink()
        assert os.pread(file.fileno(), 4, 0) == b"ours"


def test_a_long_day_of_one_mount_breaks_nothing(work: Work, mounted: Mounter, tmp_path: Path) -> None:
    """git, tar and rsync on one mount: whatever they open, rename and remove, nobody else is there to break a lease."""
    mount = mounted("noperm")
    place = mount.path / work.name
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number}").write_bytes(os.urandom(number * 100))

    def run(*command: str, at: Path = place) -> None:
        done = subprocess.run(command, cwd=at, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*")
    run("rsync", "-rt", f"{source}/", f"{place}/copy/")
    run("tar", "cf", "a.tar", "copy")
    run("tar", "xf", "a.tar", "--one-top-level=out", "--no-same-owner")
    run(*git, "init", "repo")
    run("cp", "-r", "copy", "repo/")
    for command in (("add", "."), ("commit", "-m", "one"), ("mv", "copy/1", "copy/one"), ("commit", "-m", "two")):
        run(*git, *command, at=place / "repo")
    run(*git, "gc", at=place / "repo")
    run(*git, "clone", "repo", "clone")
    run(*git, "status", "--porcelain", at=place / "clone")
    assert breaks(mount) == {}
    assert leases(mount) == {}
    assert acknowledged(mount) == 0


CHURN = """
import errno, os, random, sys
random.seed(int(sys.argv[1]))
for number in range(150):
    name, other = (f"f{random.randrange(4)}" for _ in range(2))
    try:
        what = random.randrange(5)
        if what < 2:
            with open(name, random.choice(("rb", "r+b", "ab", "wb"))) as file:
                file.write(b"x" * 100) if file.writable() else file.read()
        elif what == 2:
            os.rename(name, other)
        elif what == 3:
            os.unlink(name)
        else:
            open(name, "wb").close()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # the other one was faster
            raise
"""


def test_two_mounts_on_the_same_files_end_without_an_error(work: Work, samba: Samba, mounted: Mounter) -> None:
    here, there = mounted(), mounted()
    programs: list[subprocess.Popen[Any]] = []
    for number, mount in enumerate((here, there)):
        command = [sys.executable, "-c", CHURN, str(number)]
        place = mount.path / work.name
        programs.append(subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True))
    for program in programs:
        _, complaint = program.communicate(timeout=120)
        assert program.returncode == 0, complaint
    # What waits after its close does so for seconds; the module's own mount keeps directories of other tests.
    until(lambda: not any(name.startswith(work.name) for name in samba.open_files()))
    for mount in (here, there):
        assert leases(mount) == {}
        assert mount.status()["reconnects"] == 0
        assert mount.status()["last_errors"] == []
    # They did stand in each other's way, and nobody waited for longer than an acknowledgement takes.
    assert sum(breaks(here).values()) + sum(breaks(there).values()) > 0
