"""What is done again after a loss, on a server that keeps open files for good: everything happens exactly once."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError, wait_until
from lab.server import Samba

from .conftest import Mounter
from .locker import Locker
from .middleman import Middleman, command_of

CREATE, WRITE, LOCK, SET_INFO = 5, 9, 10, 17
MESSAGE_ID = slice(24, 32)
# How a SET_INFO begins that renames: its size, and the type and class of what it sets ([MS-SMB2] 2.2.39).
RENAME = b"\x21\x00\x01\x0a"
LOST = pytest.mark.parametrize("lost", ["request", "answer"])
BLOCK = 32 * 1024


class Thief(Middleman):
    """Ends the connection at the next change: before the server has seen it, or before we see the answer."""

    def __init__(self, server: str) -> None:
        super().__init__(server, to_server=self.sees_request, to_client=self.sees_answer)
        self.steals = ""
        self.only = b""
        """What a request must contain to be chosen."""
        self.commands = {CREATE, WRITE, SET_INFO}
        self.accident: Callable[[], object] = lambda: None
        """What happens beside it."""
        self.stolen = 0
        self.timeouts: set[int] = set()
        """What the server was asked for with DH2Q, in milliseconds."""
        self._awaited = b""

    def sees_request(self, frame: bytearray) -> None:
        """Steal it, or choose it for its answer to be stolen."""
        at = frame.find(b"DH2Q")
        if command_of(frame) == CREATE and at >= 0:
            self.timeouts.add(struct.unpack_from("<I", frame, at + 8)[0])
        if not self.steals or command_of(frame) not in self.commands or self.only not in frame:
            return
        if self.steals == "request":
            self._steal()
        self.steals, self._awaited = "", bytes(frame[MESSAGE_ID])

    def sees_answer(self, frame: bytearray) -> None:
        """Steal the one that is waited for."""
        if self._awaited and frame[MESSAGE_ID] == self._awaited and frame[8:12] != struct.pack("<I", 0x103):
            self._awaited = b""
            self._steal()

    def _steal(self) -> None:
        """End the connection."""
        self.steals = ""
        self.stolen += 1
        self.accident()
        raise ConnectionAbortedError

    def cut(self) -> None:
        """End it whatever passes."""
        for sock in self._sockets[-2:]:
            try:
                sock.shutdown(2)
            except OSError:
                continue


@contextmanager
def robbed(mounted: Mounter, server: Samba, *options: str, share: str = "persistent") -> Iterator[tuple[Mount, Thief]]:
    """Mount a share, if no other then the one that keeps open files for good, through a thief."""
    with Thief(server.address) as thief:
        yield mounted(*thief.options(), *options, server=server, share=share), thief
        mounted.finish()


def exclusive(path: Path) -> None:
    with (path / "new").open("xb") as file:
        file.write(b"mine")
    assert (path / "new").read_bytes() == b"mine"


def rename(path: Path) -> None:
    (path / "old").rename(path / "new")
    assert not (path / "old").exists()


def append(path: Path) -> None:
    with (path / "old").open("ab") as file:
        file.write(b"more")
    assert (path / "old").read_bytes() == b"oldmore"


def truncate(path: Path) -> None:
    os.truncate(path / "old", 1)
    assert (path / "old").read_bytes() == b"o"


def through_open(path: Path) -> None:
    with (path / "old").open("r+b", buffering=0) as file:
        file.truncate(2)
        file.seek(0)
        file.write(b"OLDER")
        os.utime(file.fileno(), (1, 1))
    assert (path / "old").stat().st_mtime == 1


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "exclusive": (exclusive, {"old", "empty", "new"}),
    "mkdir": (lambda path: (path / "new").mkdir(), {"old", "empty", "new"}),
    "symlink": (lambda path: (path / "new").symlink_to("old"), {"old", "empty", "new"}),
    "link": (lambda path: (path / "new").hardlink_to(path / "old"), {"old", "empty", "new"}),
    "rename": (rename, {"new", "empty"}),
    "unlink": (lambda path: (path / "old").unlink(), {"empty"}),
    "rmdir": (lambda path: (path / "empty").rmdir(), {"old"}),
    "append": (append, {"old", "empty"}),
    "truncate": (truncate, {"old", "empty"}),
    "through an open": (through_open, {"old", "empty"}),
}


@LOST
def test_each_change_happens_once(later_samba: Samba, mounted: Mounter, lost: str) -> None:
    with robbed(mounted, later_samba) as (mount, thief):
        for number, (name, (change, left)) in enumerate(CHANGES.items(), 1):
            path = mount.path / f"{lost}-{name}"
            path.mkdir()
            (path / "empty").mkdir()
            (path / "old").write_bytes(b"old")
            os.stat(path / "old")
            thief.steals = lost
            change(path)
            assert thief.stolen == number, name
            assert set(os.listdir(path)) == left, name
        status = mount.status()
        assert status["reconnects"] >= len(CHANGES)
        assert status["recovery"]["lost"] == 0
        assert status["open_handles"] == 0


@LOST
def test_an_exclusive_create_happens_once_on_a_durable_share(samba: Samba, mounted: Mounter, lost: str) -> None:
    """Samba 4.17 does not know the CREATE again, but its lease."""
    with robbed(mounted, samba, share="durable") as (mount, thief):
        path = mount.path / lost
        path.mkdir()
        for number in range(3):
            thief.steals = lost
            with (path / str(number)).open("xb", buffering=0) as file:
                assert file.write(b"mine") == 4
            assert thief.stolen == number + 1
            assert (path / str(number)).read_bytes() == b"mine"
            with pytest.raises(FileExistsError):
                (path / str(number)).open("xb")
        assert wait_until(lambda: samba.open_files() == [], 20)


@LOST
def test_a_file_whose_open_was_lost_on_the_way_outlives_the_next_loss(
    samba: Samba, mounted: Mounter, lost: str
) -> None:
    """Samba 4.17 gives no open back of a file that has two, and the one whose answer was lost it keeps for a minute."""
    with robbed(mounted, samba, share="durable") as (mount, thief):
        path = mount.path / f"opened-{lost}"
        path.write_bytes(b"........")
        for number in range(3):
            thief.steals = lost
            with path.open("r+b", buffering=0) as file:
                assert thief.stolen == 2 * number + 1
                assert file.write(b"%d" % number) == 1
                thief.steals = "answer"
                os.fsync(file.fileno())
                assert thief.stolen == 2 * number + 2
                assert file.write(b"+") == 1
            assert path.read_bytes() == b"%d+......" % number
        status = mount.status()
        assert (status["recovery"]["lost"], status["recovery"]["reopened"]) == (0, 0)
        assert wait_until(lambda: samba.open_files() == [], 20)


def test_an_open_is_kept_though_another_name_of_its_file_was_removed(later_samba: Samba, mounted: Mounter) -> None:
    """Samba from 4.22 on takes H from all that have the file open, and with it what keeps our own open."""
    with robbed(mounted, later_samba, share="durable") as (mount, thief):
        path, second = mount.path / "first-name", mount.path / "second-name"
        with path.open("w+b", buffering=0) as file:
            file.write(b"before")
            os.link(path, second)
            second.unlink()
            assert wait_until(lambda: mount.status()["leases"].get("RWH") == 1, 10)
            file.write(b" and after")
            thief.steals = "answer"
            os.fsync(file.fileno())
            assert thief.stolen == 1
            file.write(b" it")
        assert path.read_bytes() == b"before and after it"
        status = mount.status()
        assert (status["recovery"]["claimed"], status["recovery"]["lost"]) == (1, 0)


@LOST
@pytest.mark.parametrize("options", [(), ("noposix",)], ids=["posix", "noposix"])
def test_what_is_open_goes_on_if_its_connection_is_lost_with_a_rename(
    later_samba: Samba, mounted: Mounter, lost: str, options: tuple[str, ...]
) -> None:
    """Samba knows it by its old name alone, and gives nothing back under that unless it leads to the file."""
    name = f"renamed-{lost}-{len(options)}"
    behind = later_samba.directory("persistent") / name
    with robbed(mounted, later_samba, *options) as (mount, thief):
        path = mount.path / name
        path.mkdir()
        with (path / "old").open("w+b", buffering=0) as file:
            assert file.write(b"before, ") == 8
            for old, new in ("old", "new"), ("new", "newer"):
                stolen, thief.only, thief.steals = thief.stolen, RENAME, lost
                (path / old).rename(path / new)
                assert thief.stolen > stolen
                assert file.write(b"after, ") == 7
            assert os.pread(file.fileno(), 100, 0) == b"before, after, after, "
            assert wait_until(lambda: os.listdir(behind) == ["newer"], 20)
            assert (behind / "newer").stat().st_nlink == 1
        assert (path / "newer").read_bytes() == b"before, after, after, "
        assert mount.status()["recovery"]["lost"] == 0


def test_a_storm_of_writes_while_the_link_is_cut_again_and_again(later_samba: Samba, mounted: Mounter) -> None:
    with robbed(mounted, later_samba) as (mount, thief):
        file = mount.path / "storm"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        stop, failures, written = threading.Event(), [], dict[int, int]()

        def write(worker: int) -> None:
            """Write blocks of this worker's own, again and again with other contents."""
            turn = 0
            while not stop.is_set():
                turn += 1
                block = worker * 8 + turn % 8
                try:
                    os.pwrite(descriptor, struct.pack("<II", block, turn) * (BLOCK // 8), block * BLOCK)
                except OSError as error:
                    failures.append(error)
                    return
                written[block] = turn

        workers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for number in range(8):
            stop.wait(0.2)
            thief.cut()
            assert wait_until(lambda number=number: mount.status()["reconnects"] > number, 30)
        stop.set()
        for worker in workers:
            worker.join(timeout=60)
        os.close(descriptor)
        assert failures == []
        data = (later_samba.directory("persistent") / "storm").read_bytes()
        for block, turn in written.items():
            assert data[block * BLOCK :][:BLOCK] == struct.pack("<II", block, turn) * (BLOCK // 8), block


def test_what_the_options_ask_for(later_samba: Samba, samba: Samba, mounted: Mounter) -> None:
    for options, kept, asked in (
        ((), True, 0),
        (("persistenthandles", "handletimeout=7000"), True, 7000),
        (("nopersistenthandles",), False, 0),
    ):
        with robbed(mounted, later_samba, *options) as (mount, thief):
            with (mount.path / "file").open("wb"):
                assert (mount.status()["handles"]["persistent"] == 1) == kept
            assert thief.timeouts == {asked}
    with pytest.raises(MountFailedError, match="persistenthandles"):
        mounted("persistenthandles", server=samba)


# -- locks


def lose_connection(_: Samba) -> None:
    """Nothing more than the thief does."""


def kill_processes(server: Samba) -> None:
    for process in server.session_processes():
        os.kill(process, signal.SIGKILL)


@LOST
@pytest.mark.parametrize("ends", [lose_connection, kill_processes])
def test_a_lock_is_held_once_or_not_at_all(
    later_samba: Samba, mounted: Mounter, ends: Callable[[Samba], object], lost: str
) -> None:
    """Nobody has the file open beside us, so that there is nobody else to have it either."""
    with robbed(mounted, later_samba) as (mount, thief):
        file = mount.path / f"locked-{lost}-{ends.__name__}"
        file.write_bytes(b".")
        locker = Locker(file)
        try:
            assert locker.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 1) == 0  # the handle for locks is there
            thief.commands, thief.steals, thief.accident = {LOCK}, lost, lambda: ends(later_samba)
            assert locker.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
            assert thief.stolen == 1
            assert locker.ask("lock", fcntl.LOCK_UN, 0, 10) == 0
            assert mount.status()["recovery"]["lost"] == 0
        finally:
            locker.end()
        theirs = mounted(server=later_samba, share="persistent")
        stranger = Locker(theirs.path / file.name)
        try:
            assert stranger.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        finally:
            stranger.end()
