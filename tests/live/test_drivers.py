"""Both FUSE drivers where both can, and what only the native one does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab.mounting import DAEMON_SECONDS, Mount, mount_point_type, program, wait_until
from lab.server import Samba

from smb3fs.fuse.kernel import device_of

from .conftest import Mounter
from .oracle import outcome

# Far beyond what any of these tests takes, so that what ends before has not ended by it.
PATIENT = "timeout=120"
GONE = ("ENOTCONN", "ECONNABORTED")


@pytest.fixture(params=["native", "pyfuse3"])
def either(request: pytest.FixtureRequest, own_samba: Samba, mounted: Mounter) -> Mount:
    """A mount by one driver, then by the other."""
    if request.param == "pyfuse3":
        pytest.importorskip("pyfuse3")
    return mounted(f"fuse={request.param}", server=own_samba)


@pytest.fixture
def native(own_samba: Samba, mounted: Mounter) -> Iterator[Mount]:
    """A mount by the native driver of a server that may be stopped for a while."""
    mount = mounted("fuse=native", PATIENT, "echo_interval=60", server=own_samba)
    yield mount
    own_samba.resume()


def descriptors(mount: Mount) -> int:
    """How many descriptors the daemon has open."""
    (daemon,) = mount.daemons()
    return len(os.listdir(f"/proc/{daemon}/fd"))


def in_flight(mount: Mount) -> int:
    """How many requests the server has not answered."""
    return int(mount.status()["channels"][0]["in_flight"])


def test_a_tree_on_either_driver(either: Mount, own_samba: Samba) -> None:
    top = either.path / "tree"
    contents = {f"d{number % 7}/file {number}": random.randbytes(number * 997) for number in range(150)}
    for name, content in contents.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    for name, content in contents.items():
        assert (top / name).read_bytes() == content
        assert (own_samba.directory() / "tree" / name).read_bytes() == content
    listed = {
        str(Path(entry.path).relative_to(top)): entry.stat().st_size
        for number in range(7)
        for entry in os.scandir(top / f"d{number}")
    }
    assert listed == {name: len(content) for name, content in contents.items()}
    (top / "d0").rename(top / "moved")
    (top / "d1" / "file 1").rename(top / "moved" / "file 1")
    assert not (top / "d0").exists()
    assert (top / "moved" / "file 1").read_bytes() == contents["d1/file 1"]
    with (top / "moved" / "file 1").open("r+b") as file:
        file.truncate(10)
        file.seek(5)
        file.write(b"x" * 100_000)
    assert (top / "moved" / "file 1").stat().st_size == 100_005
    os.utime(top / "moved" / "file 1", ns=(10**18, 11 * 10**17))
    assert (top / "moved" / "file 1").stat().st_mtime_ns == 11 * 10**17
    assert os.statvfs(top).f_blocks
    subprocess.run(["rm", "-r", top], check=True)
    assert os.listdir(either.path) == []


def test_large_writes_and_reads_by_many(either: Mount) -> None:
    """Requests of 1 MiB from several at once: nobody gets what is somebody else's."""
    size = 24 << 20

    def work(number: int) -> bool:
        content = random.Random(number).randbytes(size)
        path = either.path / f"large{number}"
        path.write_bytes(content)
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            same = file.readall() == content
        path.unlink()
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_the_end_of_either(either: Mount, own_samba: Samba) -> None:
    (either.path / "file").write_bytes(b"x")
    (daemon,) = either.daemons()
    os.kill(daemon, signal.SIGTERM)
    assert wait_until(lambda: not either.daemons(), DAEMON_SECONDS)
    assert not either.mounted
    assert own_samba.sessions() == 0


def test_an_aborted_connection_ends_the_daemon(either: Mount) -> None:
    """By the kernel's control file, for which its filesystem is mounted where nobody else sees it."""
    descriptor = os.open(either.path / "open", os.O_CREAT | os.O_WRONLY)
    device = device_of(str(either.path), Path("/proc/self/mountinfo").read_text())
    assert device is not None
    control = "/sys/fs/fuse/connections"
    script = f"mount -t fusectl fusectl {control}; echo 1 >{control}/{device.partition(':')[2]}/abort"
    subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-ec", script], check=True)
    assert wait_until(lambda: not either.daemons(), DAEMON_SECONDS)
    assert outcome(os.write, descriptor, b"x") in GONE
    assert outcome(os.close, descriptor) in (None, *GONE)
    # libfuse takes the abort for an unmount, and leaves a mount behind that leads nowhere.
    assert not either.mounted or "fuse=pyfuse3" in either.options


def test_no_descriptor_is_left_behind(either: Mount) -> None:
    def use() -> None:
        for number in range(30):
            (either.path / f"f{number}").write_bytes(b"x")
            (either.path / f"f{number}").read_bytes()
        os.listdir(either.path)
        for number in range(30):
            (either.path / f"f{number}").unlink()

    use()
    before = descriptors(either)
    for _ in range(3):
        use()
    assert descriptors(either) == before


# -- what only the native driver does

STAT = "import os, sys; os.stat(sys.argv[1])"


def test_a_killed_program_is_gone_at_once(native: Mount, own_samba: Samba) -> None:
    """The server hangs, and so does whoever asks it; a signal that ends the program ends the call."""
    (native.path / "file").write_bytes(b"x")
    own_samba.pause()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        unanswered = in_flight(native)
        asking = [sys.executable, "-c", STAT, native.path / f"asked {number}"]
        hanging = subprocess.Popen(asking, stderr=subprocess.PIPE)
        assert wait_until(lambda unanswered=unanswered: in_flight(native) > unanswered, 20)
        hanging.send_signal(number)
        hanging.communicate(timeout=30)
        assert hanging.returncode != 0
    own_samba.resume()
    assert (native.path / "file").read_bytes() == b"x"


ALARM = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
open(sys.argv[1], "rb").read()
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_a_timer_ends_no_call(native: Mount, own_samba: Samba) -> None:
    (native.path / "file").write_bytes(b"x" * 100)
    own_samba.pause()
    hanging = subprocess.Popen([sys.executable, "-c", ALARM, native.path / "file"])
    assert wait_until(lambda: in_flight(native) > 0, 20)
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.wait(1.5)
    own_samba.resume()
    assert hanging.wait(30) == 0


def test_names_of_one_directory_are_looked_up_side_by_side(native: Mount, own_samba: Samba) -> None:
    """With pyfuse3 the kernel sends one lookup of a directory after the other."""
    os.stat(native.path)
    own_samba.pause()
    asking = [threading.Thread(target=outcome, args=(os.stat, native.path / f"name {n}")) for n in range(6)]
    for thread in asking:
        thread.start()
    assert wait_until(lambda: in_flight(native) >= 6, 20)
    own_samba.resume()
    for thread in asking:
        thread.join(30)


def test_statx_tells_when_a_file_was_made(native: Mount) -> None:
    (native.path / "file").write_bytes(b"x")
    os.utime(native.path / "file", (10**9, 10**9))
    told = subprocess.run(["stat", "-c", "%W %Y", native.path / "file"], capture_output=True, text=True, check=True)
    born, modified = told.stdout.split()
    assert modified == "1000000000"
    assert int(born) > 1_700_000_000


def test_a_mapping_of_a_file_that_bypasses_the_page_cache(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted("fuse=native", "cache=none", server=own_samba)
    (mount.path / "file").write_bytes(b"x" * 10_000)
    script = """
import mmap, os, sys
file = open(sys.argv[1], "r+b")
mapping = mmap.mmap(file.fileno(), 0)
mapping[5000:5004] = b"HERE"
mapping.flush()
"""
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 6):
        pytest.skip("shared mappings of such files need Linux 6.6")
    subprocess.run([sys.executable, "-c", script, mount.path / "file"], check=True, timeout=30)
    assert (own_samba.directory() / "file").read_bytes()[4999:5005] == b"xHEREx"


CONTAINER = """
set -e
"$1" "$2" "$3" -o "$4"
echo inside > "$3/from a container"
cat "$3/from a container"
umount "$3"
"""


def test_a_container_mounts(own_samba: Samba, tmp_path: Path) -> None:
    """A user namespace with a mount namespace, as a container without privileges has: no setuid helper is needed."""
    point = tmp_path / "mnt"
    point.mkdir()
    enter = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    script = ["sh", "-c", CONTAINER, "sh", program("mount.smb3fs"), own_samba.source(), str(point)]
    options = f"fuse=native,credentials={own_samba.credentials}"
    done = subprocess.run([*enter, *script, options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "inside\n"
    assert (own_samba.directory() / "from a container").read_text() == "inside\n"
    assert mount_point_type(point) is None
    assert wait_until(lambda: own_samba.sessions() == 0, DAEMON_SECONDS)
