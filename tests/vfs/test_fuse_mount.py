"""A real mount of a share in memory: either driver, the kernel, and the verbs between them.

The loop runs in a thread of its own, so that the tests may use the mount as any program would. pyfuse3 has one session
in a process, and a second one after the first has ended.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
from fake_share import FakeShare
from memory_mount import Mounted, mounted
from vfs_world import fails

from smb3fs.errors import MountError, Status
from smb3fs.fuse import mounting

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is missing, or not for this user"
)
RENAME_NOREPLACE = 1


@pytest.fixture(params=["native", "pyfuse3"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "pyfuse3":
        pytest.importorskip("pyfuse3")
    return str(request.param)


@pytest.fixture
def mount(tmp_path: Path, driver: str) -> Iterator[Callable[..., Mounted]]:
    """Mount within this test: `mount(acregmax=0.0)`."""
    made: list[Mounted] = []

    def make(share: FakeShare | None = None, **options: Any) -> Mounted:
        path = tmp_path / f"mnt{len(made)}"
        path.mkdir()
        made.append(Mounted(driver, path, share, **options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            try:
                one.end()
            finally:
                if mounted(one.path):
                    subprocess.run(["fusermount3", "-uz", one.path], check=False)


def test_a_file_from_beginning_to_end(mount: Callable[..., Mounted]) -> None:
    m = mount()
    path = m.path / "file"
    content = os.urandom(3_000_001)
    path.write_bytes(content)
    assert bytes(m.share.find("file").data) == content
    assert path.read_bytes() == content
    assert path.stat().st_size == len(content)
    assert path.stat().st_ino == m.share.find("file").file_id
    with path.open("r+b", buffering=0) as file:
        file.seek(1_000_000)
        file.write(b"HERE")
        os.fsync(file.fileno())
        file.truncate(1_000_010)
    assert path.read_bytes() == content[:1_000_000] + b"HERE" + content[1_000_004:1_000_010]
    with path.open("ab") as file:
        file.write(b"end")
    assert path.read_bytes()[-3:] == b"end"
    path.rename(m.path / "other")
    assert not path.exists()
    (m.path / "other").unlink()
    assert os.listdir(m.path) == []
    deadline = time.monotonic() + 5  # the kernel sends its closes in its own time
    while m.share.opens:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("driver", ["native"])
def test_a_small_file_is_read_without_a_request(mount: Callable[..., Mounted]) -> None:
    """What the open brought along is in the page cache when it returns, and not shown a second time."""
    m = mount()
    asked: list[int] = []
    answer = m.vfs.read
    m.vfs.read = lambda fh, offset, size: asked.append(offset) or answer(fh, offset, size)  # type: ignore[method-assign]
    for size in (1, 4096, 5000, 65535):
        content = os.urandom(size)
        m.share.put(f"file{size}", content)
        path = m.path / f"file{size}"
        assert path.read_bytes() == content
        assert asked == []
        changed = os.urandom(size)
        m.share.find(f"file{size}").data[:] = changed  # by another client, in the same moment
        assert path.read_bytes() == changed
        assert asked
        asked.clear()
    for before, now in ((9000, 5000), (5000, 9000), (4096, 8192), (8192, 4096)):
        m.share.put(f"{before}{now}", os.urandom(before))
        path = m.path / f"{before}{now}"
        assert path.stat().st_size == before
        content = os.urandom(now)
        m.share.find(f"{before}{now}").data[:] = content
        with path.open("rb", buffering=0) as file:
            assert file.read(10000) == content
            assert file.read(10000) == b""


def test_folders_names_and_attributes(mount: Callable[..., Mounted]) -> None:
    m = mount(uid=12, gid=34, file_mode=0o640, dir_mode=0o750)
    (m.path / "Grüße/a:b").mkdir(parents=True)
    (m.path / 'Grüße/a:b/quote"d?').write_bytes(b"x")
    assert [*m.share.walk()] == ["Grüße", "Grüße\\a\uf022b", "Grüße\\a\uf022b\\quote\uf020d\uf025"]
    assert [*os.walk(m.path)][-1] == (str(m.path / "Grüße/a:b"), [], ['quote"d?'])
    told = (m.path / 'Grüße/a:b/quote"d?').stat()
    assert (told.st_uid, told.st_gid, stat.filemode(told.st_mode)) == (12, 34, "-rw-r-----")
    assert stat.filemode((m.path / "Grüße").stat().st_mode) == "drwxr-x---"
    with fails(errno.ENOTEMPTY):
        (m.path / "Grüße").rmdir()
    with fails(errno.EILSEQ):
        os.stat(os.fsencode(m.path) + b"/\xff")
    with fails(errno.ENAMETOOLONG):
        (m.path / ("x" * 256)).stat()
    assert os.statvfs(m.path).f_bavail == 400
    assert os.listxattr(m.path) == []
    with fails(errno.ENODATA):
        os.getxattr(m.path, "user.x")


def test_a_large_listing_and_its_removal(mount: Callable[..., Mounted]) -> None:
    share = FakeShare(page_entries=300)
    names = {f"entry-{number:06}" for number in range(1200)}
    for name in names:
        share.put(name, b"12345")
    m = mount(share)
    with os.scandir(m.path) as entries:
        found = {entry.name: entry.stat() for entry in entries}
    assert set(found) == names
    assert all(told.st_size == 5 and told.st_ino == share.find(name).file_id for name, told in found.items())
    assert set(share.calls) <= {"lookup", "list_directory", "next_page"}
    assert share.count("lookup") <= 1  # of the root's own attributes
    subprocess.run(["rm", "-rf", *m.path.glob("*")], check=True)
    assert [*share.walk()] == []


def test_lookups_are_forgotten(mount: Callable[..., Mounted]) -> None:
    m = mount()
    for number in range(300):
        m.share.put(f"file{number}")
    for entry in os.scandir(m.path):
        entry.stat()
    for number in range(0, 300, 7):
        (m.path / f"file{number}").read_bytes()
    assert len(m.vfs.state.inodes) == 301
    for number in range(300):
        (m.path / f"file{number}").unlink()
    deadline = time.monotonic() + 5  # the kernel forgets in its own time
    while len(m.vfs.state.inodes) > 1:
        assert time.monotonic() < deadline, [*m.vfs.state.inodes]
        time.sleep(0.01)


def test_what_others_change_is_seen(mount: Callable[..., Mounted]) -> None:
    m = mount(acregmax=0.0, acdirmax=0.0)
    m.share.put("file", b"old")
    with (m.path / "file").open("rb", buffering=0) as file:
        assert file.read() == b"old"
        m.share.find("file").data[:] = b"new and longer"
        m.share.find("file").modified = m.share.tick()
        file.seek(0)
        assert os.fstat(file.fileno()).st_size == 14
        assert file.read() == b"new and longer"
    m.share.move("file", "aside")
    m.share.put("file", b"another")
    assert (m.path / "file").read_bytes() == b"another"  # ESTALE made the kernel look again


def test_an_open_file_is_removed_and_replaced(mount: Callable[..., Mounted]) -> None:
    m = mount()
    (m.path / "file").write_bytes(b"one")
    with (m.path / "file").open("rb") as first:
        (m.path / "new").write_bytes(b"two")
        (m.path / "new").rename(m.path / "file")
        assert os.listdir(m.path) == ["file"]
        with (m.path / "file").open("rb") as second:
            (m.path / "file").unlink()
            assert os.listdir(m.path) == []
            assert (first.read(), second.read()) == (b"one", b"two")
            assert os.fstat(first.fileno()).st_size == 3


MAPPING = """
import mmap, os, sys
file = open(sys.argv[1], "r+b")
private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
assert private[:4] == b"xxxx"
if sys.argv[2] == "strict":
    shared = mmap.mmap(file.fileno(), 0)
    shared[5000:5004] = b"HERE"
    shared.flush()
    os.fsync(file.fileno())
"""


@pytest.mark.parametrize("cache", ["strict", "none"])
def test_mapped_files(mount: Callable[..., Mounted], cache: str) -> None:
    """By another process: one that waits for a page holds its interpreter's lock, and the driver is in ours."""
    m = mount(cache=cache)
    (m.path / "file").write_bytes(b"x" * 10_000)
    subprocess.run([sys.executable, "-c", MAPPING, m.path / "file", cache], check=True, timeout=20)
    assert bytes(m.share.find("file").data[5000:5004]) == (b"HERE" if cache == "strict" else b"xxxx")


def test_o_sync_reaches_the_disk(mount: Callable[..., Mounted]) -> None:
    """The kernel asks for it behind a write through the page cache; past it, the filesystem does it by itself."""
    m = mount()
    for flags in (os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_DIRECT, os.O_SYNC | os.O_APPEND):
        before = m.share.count("flush")
        descriptor = os.open(m.path / "file", os.O_CREAT | os.O_WRONLY | flags)
        data = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT may demand
        os.write(descriptor, data)
        os.close(descriptor)
        assert m.share.count("flush") == before + 1


def test_close_asks_for_nothing(mount: Callable[..., Mounted], monkeypatch: pytest.MonkeyPatch) -> None:
    m = mount(server_locks=False)
    asked = []
    flush = m.vfs.flush

    def counting(fh: int, owner: int | None = None, thread: int = 0) -> Any:
        asked.append(fh)
        return flush(fh, owner, thread)

    monkeypatch.setattr(m.vfs, "flush", counting)
    for number in range(10):
        (m.path / str(number)).write_bytes(b"x")
    assert len(asked) == 1


def test_links_and_special_files(mount: Callable[..., Mounted]) -> None:
    m = mount(mfsymlinks=True)
    os.symlink("some/where", m.path / "link")
    os.link(m.path / "link", m.path / "second", follow_symlinks=False)
    os.mkfifo(m.path / "fifo", 0o640)
    os.mknod(m.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    m.share.put("disguised").special = stat.S_IFLNK
    m.share.find("disguised").target = b"elsewhere"
    m.share.find("disguised").data[:] = bytes(1067)
    kinds = {entry.name: (entry.is_symlink(), entry.is_file(follow_symlinks=False)) for entry in os.scandir(m.path)}
    assert kinds == {
        "link": (True, False),
        "second": (True, False),
        "fifo": (False, False),
        "null": (False, False),
        "disguised": (True, False),
    }
    assert os.readlink(m.path / "link") == os.readlink(m.path / "second") == "some/where"
    assert os.readlink(m.path / "disguised") == "elsewhere"
    told = os.lstat(m.path / "second")
    assert (told.st_size, told.st_nlink) == (len("some/where"), 2)
    assert stat.S_ISFIFO(os.lstat(m.path / "fifo").st_mode)
    told = os.lstat(m.path / "null")
    assert (stat.S_ISCHR(told.st_mode), told.st_rdev) == (True, os.makedev(1, 3))


def test_refusals(mount: Callable[..., Mounted]) -> None:
    m = mount()
    (m.path / "file").write_bytes(b"")
    m.share.points_refused = True
    with fails(errno.EPERM):
        os.symlink("target", m.path / "link")
    with fails(errno.EPERM):
        os.mkfifo(m.path / "fifo")
    with fails(errno.EPERM):
        (m.path / "file").chmod(0o600)
    with fails(errno.EPERM):
        os.chown(m.path / "file", 54321, -1)
    m.share.fail("create", Status.DISK_FULL)
    with fails(errno.ENOSPC):
        (m.path / "full").write_bytes(b"")


def test_a_silent_server_holds_up_nobody_else(mount: Callable[..., Mounted], expect_log: Callable[[str], None]) -> None:
    """More calls than libfuse has threads or pyfuse3 tasks by default hang, and others go on; each ends in time."""
    expect_log("getattr: no answer within 1 seconds")
    m = mount(timeout=1.0, acregmax=0.0)
    for number in range(120):
        (m.path / f"file{number}").write_bytes(b"")
    held = [os.open(m.path / f"file{number}", os.O_RDONLY) for number in range(120)]
    m.call(lambda: m.share.hang("lookup"))
    with ThreadPoolExecutor(120) as pool:
        began = time.monotonic()
        hanging = [pool.submit(os.fstat, descriptor) for descriptor in held]
        time.sleep(0.3)
        assert os.statvfs(m.path).f_blocks == 1000
        assert time.monotonic() - began < 1.0
        for future in hanging:
            with fails(errno.ETIMEDOUT):
                future.result(10)
        assert time.monotonic() - began < 5.0
    m.call(m.share.gates.clear)
    for descriptor in held:
        os.close(descriptor)
    assert len(os.listdir(m.path)) == 120


def test_a_mistake_is_eio_and_not_the_end(mount: Callable[..., Mounted], expect_log: Callable[[str], None]) -> None:
    expect_log("statfs failed for a reason that nobody foresaw")
    m = mount()
    m.share.fail("space", RuntimeError("a mistake"))
    with fails(errno.EIO):
        os.statvfs(m.path)
    assert os.statvfs(m.path).f_blocks == 1000


def test_umount_ends_it(mount: Callable[..., Mounted]) -> None:
    m = mount()
    (m.path / "file").write_bytes(b"x")
    subprocess.run(["umount", m.path] if os.getuid() == 0 else ["fusermount3", "-u", m.path], check=True)
    m.thread.join(10)
    assert not m.thread.is_alive()


def test_terminate_answers_what_is_under_way(mount: Callable[..., Mounted]) -> None:
    m = mount()
    gate: list[trio.Event] = []
    m.call(lambda: gate.append(m.share.hang("space")))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(os.statvfs, m.path)
        while not m.share.count("space"):
            time.sleep(0.01)
        m.call(m.driver.terminate)
        time.sleep(0.1)
        assert m.thread.is_alive()
        m.call(gate[0].set)
        assert answer.result(5).f_blocks == 1000
    m.thread.join(10)
    assert not mounted(m.path)
    m.driver.terminate()  # too late, and harmless


@pytest.mark.skipif(os.getuid() != 0, reason="root alone may tune a mount")
def test_read_ahead_is_tuned(mount: Callable[..., Mounted]) -> None:
    m = mount(rasize=1 << 20)
    device = os.stat(m.path).st_dev
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert path.read_text() == "1024\n"
    content = os.urandom(8 << 20)
    m.share.put("file", content)
    assert (m.path / "file").read_bytes() == content
    assert m.share.count("read") <= 16


def test_how_the_mount_looks(mount: Callable[..., Mounted]) -> None:
    m = mount(fsname="//sérver/share, a\\b", kernel_flags=("nosuid", "nodev", "noexec", "noatime"), read_only=True)
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {m.path} " in line)
    source, _, kind, options = line.split()[:4]
    assert source == "//sérver/share,\\040a\\134b"
    assert kind == "fuse.smb3fs"
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= set(options.split(","))
    with fails(errno.EROFS):
        (m.path / "file").write_bytes(b"")


def test_a_mount_by_fusermount3(mount: Callable[..., Mounted], driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is made for those who may not call mount(2)."""
    if driver != "native" or shutil.which("fusermount3") is None:
        pytest.skip("libfuse sees to that itself" if driver != "native" else "fusermount3 is not there")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(mounting, "_call", refuse)
    m = mount(fsname="//sérver/share, a\\b", kernel_flags=("nosuid", "nodev", "noexec"))
    (m.path / "file").write_bytes(b"x" * 100_000)
    assert (m.path / "file").read_bytes() == b"x" * 100_000
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {m.path} " in line)
    assert line.split()[0] == "//sérver/share,\\040a\\134b"
    assert line.split()[2] == "fuse.smb3fs"
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[3].split(","))
    m.end()


def test_a_mount_that_is_refused(tmp_path: Path, driver: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MountError, match=r"refused to mount at .*absent"):
        Mounted(driver, tmp_path / "absent")
    if driver == "pyfuse3":
        assert "absent" in capfd.readouterr().err


def test_nothing_is_logged_by_pyfuse3(mount: Callable[..., Mounted], caplog: pytest.LogCaptureFixture) -> None:
    m = mount()
    with caplog.at_level(logging.WARNING, "pyfuse3"):
        for number in range(20):
            (m.path / f"file{number}").write_bytes(b"x" * number)
        os.listdir(m.path)
        m.end()
    assert not caplog.records


def test_the_longest_names_pass_the_kernel(mount: Callable[..., Mounted]) -> None:
    """255 units may be 765 bytes, of which libc's NAME_MAX knows nothing."""
    path = mount().path
    for name in ("\N{KATAKANA LETTER A}" * 255, "\N{FISH}" * 127, "x" * 255):
        (path / name).write_bytes(b"content")
        assert os.listdir(path) == [name]
        assert (path / name).read_bytes() == b"content"
        (path / name).unlink()
    for name in ("\N{KATAKANA LETTER A}" * 256, "\N{FISH}" * 128, "x" * 256):
        with fails(errno.ENAMETOOLONG):
            (path / name).write_bytes(b"")


# -- what the kernel is told without being asked, by the native driver


@pytest.fixture
def remembering(mount: Callable[..., Mounted], driver: str) -> Mounted:
    """A mount whose kernel would not ask again for an hour."""
    if driver != "native":
        pytest.skip("pyfuse3 has notifications of its own")
    m = mount(acregmax=3600.0, acdirmax=3600.0)
    m.share.put("file", b"old")
    return m


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_name_is_forgotten_when_told_so(remembering: Mounted) -> None:
    m = remembering
    notifications = m.driver.notifications
    for expire_only in (False, True):
        assert (m.path / "file").stat().st_size == 3
        before = m.share.count("lookup")
        assert (m.path / "file").stat().st_size == 3
        assert m.share.count("lookup") == before
        m.call(lambda expire_only=expire_only: notifications.inval_entry(1, b"file", expire_only=expire_only))
        until(lambda before=before: (m.path / "file").stat() and m.share.count("lookup") > before)
    m.call(lambda: notifications.inval_entry(1, b"never heard of"))
    m.call(lambda: notifications.delete(1, m.share.find("file").file_id, b"never heard of"))


def test_attributes_and_pages_are_forgotten_when_told_so(remembering: Mounted) -> None:
    m = remembering
    notifications = m.driver.notifications
    with (m.path / "file").open("r+b", buffering=0) as file:  # an open for reading alone brings the beginning along
        assert file.read() == b"old"
        number = os.fstat(file.fileno()).st_ino
        m.share.find("file").data[:] = b"NEW"
        assert os.pread(file.fileno(), 10, 0) == b"old"
        m.call(lambda: notifications.inval_inode(number, pages=False))
        m.call(lambda: notifications.inval_inode(4711, pages=True))
        m.call(lambda: notifications.inval_inode(number, pages=True))
        until(lambda: os.pread(file.fileno(), 10, 0) == b"NEW")


READ_OPEN = "import os, sys; sys.exit(os.pread(int(sys.argv[1]), 10, 0) != b'old')"


def test_a_notification_waits_for_a_read_and_nobody_waits_for_it(remembering: Mounted) -> None:
    """The pages of a read that is under way are locked until it is answered: by the loop that asked for their end."""
    m = remembering
    gate: list[trio.Event] = []
    m.share.put("other", b"other")
    number = (m.path / "file").stat().st_ino
    m.call(lambda: gate.append(m.share.hang("read")))
    held = os.open(m.path / "file", os.O_RDWR)
    reading = subprocess.Popen([sys.executable, "-c", READ_OPEN, str(held)], pass_fds=[held])
    until(lambda: m.share.count("read") > 0)
    for _ in range(3):
        m.call(lambda: m.driver.notifications.inval_inode(number, pages=True))
    m.call(lambda: m.driver.notifications.inval_entry(1, b"file"))
    time.sleep(0.2)
    assert reading.poll() is None
    assert (m.path / "other").stat().st_size == 5  # the loop is at work
    assert os.statvfs(m.path).f_blocks == 1000
    m.call(gate[0].set)
    assert reading.wait(10) == 0
    os.close(held)
    m.end()
    assert not any(thread.name == "smb3fs-notifications" for thread in threading.enumerate())


def test_the_end_comes_though_a_notification_waits(
    mount: Callable[..., Mounted], driver: str, expect_log: Callable[[str], None]
) -> None:
    """terminate, with a read that hangs and a notification that waits for it: each ends within the timeout."""
    if driver != "native":
        pytest.skip("pyfuse3 has notifications of its own")
    expect_log("read: no answer within 2 seconds")
    m = mount(timeout=2.0)
    m.share.put("file", b"old")
    number = (m.path / "file").stat().st_ino
    m.call(lambda: m.share.hang("read"))
    held = os.open(m.path / "file", os.O_RDWR)
    reading = subprocess.Popen([sys.executable, "-c", READ_OPEN, str(held)], pass_fds=[held], stderr=subprocess.DEVNULL)
    until(lambda: m.share.count("read") > 0)
    m.call(lambda: m.driver.notifications.inval_inode(number, pages=True))
    time.sleep(0.2)
    m.end()
    assert reading.wait(10) != 0
    with fails(errno.ENOTCONN):
        os.close(held)
    assert not any(thread.name == "smb3fs-notifications" for thread in threading.enumerate())
