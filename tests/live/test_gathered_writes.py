"""Writes that are gathered under a write lease, on real servers: they arrive, all of them, when somebody needs them.

Counters say how they were sent. The server's own disk, which breaks no lease, shows what has arrived.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from lab.mounting import Mount, wait_until
from lab.server import PERSISTENT, Samba

from .conftest import Counted, Mounter, until
from .test_recovery import PATIENT, healthy, kill_session, recovery_of, suffer

PIECE = 4096


def send(number: signal.Signals, processes: Iterable[int]) -> None:
    """Send a signal to processes."""
    for process in processes:
        os.kill(process, number)


def pieces(count: int) -> list[bytes]:
    """Small pieces of content, none like another."""
    return [number.to_bytes(4, "big") * (PIECE // 4) for number in range(count)]


@pytest.mark.parametrize("fsync", [True, False])
def test_small_pieces_go_in_large_requests_and_have_arrived(
    place: Callable[..., Mount], server: Samba, fsync: bool
) -> None:
    mount, content = place(), pieces(1024)
    behind = server.directory() / "pieces"

    def write() -> None:
        with (mount.path / "pieces").open("wb", buffering=0) as file:
            for piece in content:
                file.write(piece)
            if fsync:
                os.fsync(file.fileno())
                assert behind.read_bytes() == b"".join(content)

    sent = Counted(mount)(write)
    assert behind.read_bytes() == b"".join(content)
    # Four if nothing was old before it was full, which is for the machine to say.
    assert sent["WRITE"] < 100
    told = mount.status()["writes"]
    assert (told["dirty"], told["gathered"], told["failed"]) == (0, 1024, 0)
    assert 0 < told["most"] <= 16 << 20
    (mount.path / "pieces").unlink()


def test_a_new_small_file_takes_three_round_trips_or_two(place: Callable[..., Mount], server: Samba) -> None:
    """The name is looked up, unless a listing that is kept does not have it; the file is made; the data follow."""
    mount = place("actimeo=600")
    folder = mount.path / "small"
    folder.mkdir()
    assert list(folder.iterdir()) == []
    before = mount.status()["round_trips"]
    (folder / "new").write_bytes(b"x" * 4096)
    assert mount.status()["round_trips"] - before == (2 if server.has_persistent_handles() else 3)
    (folder / "new").unlink()
    folder.rmdir()


def test_a_lookup_that_is_answered_together_with_a_write_does_not_end_the_file(
    place: Callable[..., Mount], server: Samba
) -> None:
    """The name is asked for first, then the data are sent, and both answers are read at once, in whichever order."""
    mount = place("noperm,actimeo=0.2")
    server_side, daemon = server.session_processes(), mount.daemons()
    path, sizes = mount.path / "grows", []
    with path.open("w+b", buffering=0) as file:
        for size in range(1, 11):
            time.sleep(0.25)  # longer than the kernel believes the name
            file.write(b"x")
            look = threading.Thread(target=lambda: sizes.append(path.stat().st_size))
            sync = threading.Thread(target=os.fsync, args=(file.fileno(),))
            try:
                send(signal.SIGSTOP, server_side)
                for thread in (look, sync):
                    thread.start()
                    time.sleep(0.01)
                send(signal.SIGSTOP, daemon)
                send(signal.SIGCONT, server_side)
                time.sleep(0.02)
            finally:
                send(signal.SIGCONT, [*server_side, *daemon])
            for thread in (look, sync):
                thread.join()
            assert len(os.pread(file.fileno(), PIECE, 0)) == size
    assert sizes == list(range(1, 11))
    path.unlink()


def test_what_is_asked_meanwhile_is_told_as_the_program_expects(place: Callable[..., Mount]) -> None:
    mount = place()
    path, other = mount.path / "asked", mount.path / "linked"
    with path.open("w+b", buffering=0) as file:
        for number in range(1, 8):
            file.write(b"%d" % number * 1000)
            assert os.fstat(file.fileno()).st_size == path.stat().st_size == number * 1000
        os.link(path, other)
        file.write(b"8" * 1000)
        assert other.stat().st_size == 8000
        told = {entry.name: entry.stat().st_size for entry in os.scandir(mount.path)}
        assert (told["asked"], told["linked"]) == (8000, 8000)
        file.write(b"9" * 1000)
        listed = subprocess.run(["ls", "-l", mount.path], check=True, capture_output=True, text=True).stdout
        assert listed.count(" 9000 ") == 2
        with other.open("rb") as reader:
            assert reader.read() == b"".join(b"%d" % number * 1000 for number in range(1, 10))
        file.write(b"a" * 1000)
        assert os.pread(file.fileno(), 2000, 8500) == b"9" * 500 + b"a" * 1000
        file.write(b"b" * 1000)
        os.truncate(path, 10_500)
        file.write(b"c" * 1000)  # where the program is, behind what was cut off
        assert path.read_bytes()[10_400:] == b"b" * 100 + bytes(500) + b"c" * 1000
        file.write(b"d" * 10)
        moved = path.rename(mount.path / "moved")
        file.write(b"e" * 10)
        assert moved.read_bytes()[12_000:] == b"d" * 10 + b"e" * 10
        file.write(b"f" * 10)
        moved.unlink()
        file.write(b"g" * 10)
        assert os.fstat(file.fileno()).st_size == 12_040
    assert other.read_bytes()[-20:] == b"f" * 10 + b"g" * 10
    other.unlink()


def test_a_time_that_was_set_is_kept(place: Callable[..., Mount], server: Samba) -> None:
    mount = place()
    with (mount.path / "time").open("wb", buffering=0) as file:
        file.write(b"x" * 1000)
        os.utime(file.fileno(), ns=(10**18, 10**18 + 100))
    assert (server.directory() / "time").stat().st_mtime_ns == 10**18 + 100
    assert (mount.path / "time").stat().st_mtime_ns == 10**18 + 100
    (mount.path / "time").unlink()


def test_a_second_rsync_transfers_nothing(place: Callable[..., Mount], tmp_path: Path) -> None:
    mount = place("noperm")
    source, chance = tmp_path / "source", random.Random(7)
    source.mkdir()
    for number in range(30):
        (source / f"{number}").write_bytes(chance.randbytes(chance.randrange(300_000)))
    command = ["rsync", "-a", "--stats", f"{source}/", f"{mount.path}/copy/"]
    subprocess.run(command, check=True, capture_output=True)
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Number of regular files transferred: 0" in told
    for path in source.iterdir():
        assert (mount.path / "copy" / path.name).read_bytes() == path.read_bytes()
    subprocess.run(["rm", "-r", mount.path / "copy"], check=True)


# -- other clients


def test_another_client_that_opens_the_file_gets_all_of_it(place: Callable[..., Mount], server: Samba) -> None:
    here, there = place(), place()
    with (here.path / "shared").open("wb", buffering=0) as file:
        for number in range(5):
            written = b"%d" % number * 10_000
            file.write(written)
            assert server.client("get shared -")[-10_000:].encode() == written
    with (here.path / "shared").open("r+b", buffering=0) as file:
        file.write(b"mine")
        assert (there.path / "shared").read_bytes()[:4] == b"mine"
        file.write(b"more")
        # Now it is not gathered, and the server does not wait when it takes R from the other one for that.
        until(lambda: (there.path / "shared").read_bytes()[:8] == b"minemore")
        with (there.path / "shared").open("r+b", buffering=0) as other:
            other.write(b"them")
            file.write(b"also")
            until(lambda: os.pread(other.fileno(), 12, 0) == b"themmorealso")
    assert sum(here.status()["breaks"].values()) >= 2
    assert here.status()["writes"]["sent"]["break"] >= 1
    (here.path / "shared").unlink()


def test_a_break_meanwhile_loses_nothing(place: Callable[..., Mount], server: Samba) -> None:
    """Two write their halves of a file, and take the lease from each other all the time."""
    mounts, half = [place(), place()], 400_000
    (mounts[0].path / "halves").write_bytes(bytes(2 * half))
    expected = bytearray(2 * half)
    for turn in range(4):
        with (mounts[turn % 2].path / "halves").open("r+b", buffering=0) as first:
            for number in range(half // 1000):
                piece = bytes([turn * 2 + 1]) * 1000
                os.pwrite(first.fileno(), piece, number * 1000)
                expected[number * 1000 : number * 1000 + 1000] = piece
                if number % 100 == 50:
                    with (mounts[1 - turn % 2].path / "halves").open("r+b", buffering=0) as second:
                        assert second.read(number * 1000 + 1000) == expected[: number * 1000 + 1000]
                        piece = os.urandom(1000)
                        os.pwrite(second.fileno(), piece, half + number * 1000)
                        at = half + number * 1000
                        expected[at : at + 1000] = piece
    assert (server.directory() / "halves").read_bytes() == expected
    for mount in mounts:
        assert mount.status()["writes"]["failed"] == 0
    (mounts[0].path / "halves").unlink()


# -- what is not gathered


@pytest.mark.parametrize("option", ["cache=none", "nolease", "sync", "wcache=0", "vers=2.1"])
def test_nothing_is_gathered_where_it_must_not_be(mounted: Mounter, samba: Samba, option: str) -> None:
    mount = mounted(option)
    with (mount.path / "at once").open("wb", buffering=0) as file:
        for number in range(1, 5):
            file.write(b"x" * 1000)
            assert (samba.directory() / "at once").stat().st_size == number * 1000
    assert mount.status()["writes"]["gathered"] == 0
    (mount.path / "at once").unlink()


@pytest.mark.parametrize("flags", [os.O_SYNC, os.O_DSYNC, os.O_APPEND, os.O_DIRECT])
def test_who_asks_for_it_writes_at_once(mounted: Mounter, samba: Samba, flags: int) -> None:
    mount = mounted()
    behind = samba.directory() / "flags"
    descriptor = os.open(mount.path / "flags", os.O_CREAT | os.O_WRONLY | flags)
    page = mmap.mmap(-1, PIECE)
    for number in range(1, 5):
        assert os.writev(descriptor, [page]) == PIECE
        assert behind.stat().st_size == number * PIECE
    os.close(descriptor)
    assert mount.status()["writes"]["gathered"] == 0
    (mount.path / "flags").unlink()


def test_what_others_wrote_before_is_not_overtaken(mounted: Mounter, samba: Samba) -> None:
    """One descriptor gathers, the other one does not."""
    mount = mounted()
    path = mount.path / "both"
    with path.open("w+b", buffering=0) as gathered:
        direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        appender = os.open(path, os.O_WRONLY | os.O_APPEND)
        page = mmap.mmap(-1, PIECE)
        for number in range(1, 6):
            os.pwrite(gathered.fileno(), b"old" * 2000, 0)
            page[:] = bytes([number]) * PIECE
            os.pwritev(direct, [page], 0)
            assert (samba.directory() / "both").read_bytes()[:6000] == page[:] + (b"old" * 2000)[PIECE:]
            os.pwrite(gathered.fileno(), b"new", 1)
            os.write(appender, b"end")
            now = (samba.directory() / "both").read_bytes()
            assert now[:5] == bytes([number]) + b"new" + bytes([number])
            assert now[6000:] == b"end" * number
        os.close(direct)
        os.close(appender)
    path.unlink()


# -- mappings


def test_what_is_written_through_a_mapping_arrives(place: Callable[..., Mount], server: Samba) -> None:
    mount = place()
    with (mount.path / "mapped").open("w+b", buffering=0) as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 1 << 20) as pages:
            for at in range(0, 1 << 20, 5000):
                pages[at] = at % 251
            file.write(b"beside")
            pages.flush()
            behind = (server.directory() / "mapped").read_bytes()
            assert behind[:6] == b"beside"
            assert all(behind[at] == at % 251 for at in range(5000, 1 << 20, 5000))
            pages[100:107] = b"another"
            assert server.client("get mapped -").encode("utf-8", "surrogateescape")[:6] == b"beside"
            pages.flush()
        os.fsync(file.fileno())
        assert (server.directory() / "mapped").read_bytes()[100:107] == b"another"
    (mount.path / "mapped").unlink()


# -- what goes wrong


def test_a_full_disk_is_told_by_fsync_or_close_once(own_samba: Samba, mounted: Mounter) -> None:
    full = own_samba.directory() / "full"
    full.mkdir()
    own_samba.beside("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(full))
    try:
        mount = mounted(server=own_samba)
        path = mount.path / "full" / "large"
        writers = [os.open(path, os.O_CREAT | os.O_WRONLY) for _ in range(2)]
        failures: list[tuple[int, str, str]] = []

        def attempt(which: int, what: str, act: Callable[[], object]) -> None:
            try:
                act()
            except OSError as error:
                failures.append((which, what, errno.errorcode[error.errno or 0]))

        while not failures:
            attempt(0, "write", lambda: os.write(writers[0], bytes(100_000)))
        failures.clear()
        # The write was refused since something else had been before.
        attempt(0, "fsync", lambda: os.fsync(writers[0]))
        attempt(0, "fsync again", lambda: os.fsync(writers[0]))
        duplicate = os.dup(writers[0])
        attempt(0, "close", lambda: os.close(duplicate))
        attempt(1, "close", lambda: os.close(os.dup(writers[1])))
        attempt(1, "fsync", lambda: os.fsync(writers[1]))
        assert failures == [(0, "fsync", "ENOSPC"), (1, "close", "ENOSPC")]
        for descriptor in writers:
            os.close(descriptor)
        late = os.open(path, os.O_WRONLY)
        os.fsync(late)
        os.close(late)
        path.unlink()
        small = mount.path / "full" / "small"
        small.write_bytes(b"there is room again")
        assert small.read_bytes() == b"there is room again"
        mount.unmount()
    finally:
        own_samba.beside("umount", str(full))
        full.rmdir()


def test_a_session_that_dies_meanwhile_loses_nothing(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    behind = later_samba.directory(PERSISTENT) / "survivor"
    content, over = bytearray(), threading.Event()

    def happen() -> None:
        try:
            for _ in range(3):
                suffer(mount, lambda noticed: kill_session(later_samba, noticed))
        finally:
            over.set()

    thread = threading.Thread(target=happen)
    with healthy(later_samba):
        file = (mount.path / "survivor").open("wb", buffering=0)
        thread.start()
        number = 0
        while not over.is_set():
            piece = number.to_bytes(4, "big") * 1000
            assert file.write(piece) == len(piece)
            content += piece
            number += 1
            if number % 50 == 0:
                os.fsync(file.fileno())
                assert behind.read_bytes() == content
        thread.join()
        os.fsync(file.fileno())
        assert behind.read_bytes() == content
        file.close()
    told = recovery_of(mount)
    assert (told["lost"], mount.status()["writes"]["failed"]) == (0, 0)


def test_what_cannot_be_written_any_more_is_an_error(mounted: Mounter, own_samba: Samba) -> None:
    """A server that was killed gives nothing back: what had not arrived is told to whoever wrote it, once.

    Before that he is not shown a file that ends where he has written.
    """
    mount = mounted("hard", "timeout=6", "echo_interval=1", server=own_samba)
    with healthy(own_samba):
        path = mount.path / "lost"
        file = path.open("w+b", buffering=0)
        file.write(b"arrives")
        os.fsync(file.fileno())
        own_samba.network.drop()
        try:
            file.write(b"does not")
            assert wait_until(lambda: mount.status()["state"] != "connected", 60)
            own_samba.kill()
        finally:
            own_samba.network.pass_again()
        own_samba.start()
        assert subprocess.run(["cat", path], check=True, capture_output=True).stdout == b"arrives"
        for look in (
            lambda: os.fstat(file.fileno()),
            lambda: os.pread(file.fileno(), 100, 7),
            lambda: file.seek(0, os.SEEK_END),
            file.close,
        ):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                look()
    told = mount.status()["writes"]
    assert (told["gathered"], told["dirty"], told["failed"]) == (2, 0, 1)
    assert (mount.path / "lost").read_bytes() == b"arrives"
    (mount.path / "lost").unlink()


def test_nothing_is_lost_when_the_mount_is_told_to_end(mounted: Mounter, samba: Samba) -> None:
    mount = mounted()
    file = (mount.path / "ended").open("wb", buffering=0)
    file.write(b"here")
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGTERM)
    assert wait_until(lambda: not mount.daemons(), 30)
    assert (samba.directory() / "ended").read_bytes() == b"here"
    with suppress(OSError):
        file.close()
    (samba.directory() / "ended").unlink()
