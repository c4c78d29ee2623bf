"""A private Samba for the whole run, mounts of it by the real commands, and a check that each leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.mounting import LeftBehindError, Mount, program
from lab.root import REQUIRE_VARIABLE, found
from lab.server import PERSISTENT, Samba

# Longer than any test needs: a mount that hangs is killed then, and the test that hung fails with ENOTCONN.
HANG_SECONDS = 240.0
# Which driver the mounts use: SMB3FS_FUSE=pyfuse3 runs this folder on the other one.
DRIVER = [f"fuse={os.environ['SMB3FS_FUSE']}"] if os.environ.get("SMB3FS_FUSE") else []
# pyfuse3 has the kernel neither keep a file's pages nor, in time, drop them: what is cached is not for it to show.
native_only = pytest.mark.skipif("fuse=pyfuse3" in DRIVER, reason="what the kernel keeps is the native driver's affair")
# The bound that the tests ask for in `timeout=`; short, because some of them wait for it to pass.
BOUND = 6


def missing() -> list[str]:
    """What this machine or user lacks for the live tests."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("root (namespaces and a server on port 445)")
    if not os.path.exists("/dev/fuse"):
        lacks.append("/dev/fuse")
    if not os.path.exists(program("mount.smb3fs")):
        lacks.append(f"{program('mount.smb3fs')} (tools/setup installs it)")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    programs = ("smbd", "smbclient", "smbtorture", "ip", "nft", "nsenter")
    lacks += [name for name in programs if not shutil.which(name, path=path)]
    return lacks


def mark_live(here: Path, items: list[pytest.Item]) -> None:
    """Mark all tests of a folder, and skip them where they cannot run, unless SMB3FS_REQUIRE_LIVE=1 forbids that."""
    ours = [item for item in items if here in item.path.parents]
    lacks = missing() if ours else []
    if lacks and os.environ.get("SMB3FS_REQUIRE_LIVE") == "1":
        pytest.exit(f"the live tests must run (SMB3FS_REQUIRE_LIVE=1) and lack: {', '.join(lacks)}", returncode=1)
    for item in ours:
        item.add_marker(pytest.mark.live)
        if lacks:
            item.add_marker(pytest.mark.skip(reason=f"live tests lack: {', '.join(lacks)}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests."""
    mark_live(Path(__file__).parent, items)


@pytest.fixture(scope="session", autouse=True)
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM unwinds the run as Ctrl-C does, so that servers and mounts are taken down."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def samba() -> Iterator[Samba]:
    """The server that most tests share; they leave it as they found it."""
    with Samba() as server:
        yield server


@pytest.fixture(scope="module")
def own_samba() -> Iterator[Samba]:
    """A server of the module's own, to be stopped, broken and configured."""
    with Samba() as server:
        yield server


@pytest.fixture(scope="module")
def later_samba() -> Iterator[Samba]:
    """A server of the module's own with the share `persistent`: from the root that tools/lab/samba.py makes."""
    root = found()
    if not root and os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{REQUIRE_VARIABLE}=1, and there is no later Samba: tools/lab/samba.py root tells why")
    if not root:
        pytest.skip("no later Samba here: tools/lab/samba.py root unpacks one")
    with Samba(root=root, in_memory=True) as server:
        if PERSISTENT not in server.shares:
            pytest.skip(f"{server.version()} has no persistent handles")
        yield server


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what comes without our asking."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it has not come true"
        time.sleep(0.05)


class Counted:
    """What was sent while something was done; attributes are asked for ahead of the first thing that is counted."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    def __call__(self, act: Callable[[], object]) -> dict[str, int]:
        """Return how many requests of each kind were sent; CLOSEs of others may come at any time, and do not count."""
        before = self._mount.status()["requests"]
        act()
        after = self._mount.status()["requests"]
        grown = {name: count - before.get(name, 0) for name, count in after.items()}
        return {name: count for name, count in grown.items() if count and name not in ("CLOSE", "ECHO")}


def unmount_all(mounts: list[Mount]) -> None:
    """Unmount everything, the last one first; then raise what went wrong with any of it."""
    complaints = []
    while mounts:
        try:
            mounts.pop().unmount()
        except LeftBehindError as error:
            complaints.append(str(error))
    if complaints:
        raise LeftBehindError("; ".join(complaints))


class Mounter:
    """Mounts on demand, and unmounts all of it in the end."""

    def __init__(self, samba: Samba, registry: list[Mount], usual: Sequence[str] = ()) -> None:
        """`usual` are options of every mount."""
        self.samba = samba
        self.usual = usual
        self.mounts: list[Mount] = []
        self.registry = registry

    def __call__(
        self, *options: str, share: str = "share", server: Samba | None = None, credentials: Path | bool = True
    ) -> Mount:
        """Mount a share; `credentials` is a file, True for the server's own, False for no such option."""
        host = server or self.samba
        file = host.credentials if credentials is True else credentials
        words = [*([f"credentials={file}"] if file else []), *DRIVER, *self.usual, *options]
        mount = Mount(host.source(share), host.folder / f"mnt-{os.urandom(4).hex()}", words)
        self.mounts.append(mount)
        self.registry.append(mount)
        mount.mount()
        return mount

    def finish(self) -> None:
        """Unmount everything."""
        unmount_all(self.mounts)


@pytest.fixture(scope="session")
def every_mount() -> list[Mount]:
    """All mounts of the run, for the guard against hanging."""
    return []


@pytest.fixture(autouse=True)
def _hang_guard(request: pytest.FixtureRequest, every_mount: list[Mount]) -> Iterator[None]:
    """Kill the daemons when a test takes too long: the calls that hang in them return, and the test fails."""

    def kill() -> None:
        for mount in every_mount:
            mount.kill()

    factor = 5 if request.node.get_closest_marker("slow") else 1
    guard = threading.Timer(HANG_SECONDS * factor, kill)
    guard.daemon = True
    guard.start()
    yield
    guard.cancel()


@pytest.fixture
def mounted(samba: Samba, every_mount: list[Mount], request: pytest.FixtureRequest) -> Iterator[Mounter]:
    """Mount within this test: `mounted("seal")`. A module's `OPTIONS`, if it has any, are those of all its mounts."""
    made = Mounter(samba, every_mount, getattr(request.module, "OPTIONS", ()))
    yield made
    made.finish()


@pytest.fixture(params=["samba", "later_samba"])
def server(request: pytest.FixtureRequest) -> Samba:
    """Either server: with directory leases and without."""
    found: Samba = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def mount(samba: Samba, every_mount: list[Mount], request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount of the share for the tests of one module that only want to work on one."""
    made = Mounter(samba, every_mount, getattr(request.module, "OPTIONS", ()))
    try:
        yield made()
    finally:
        made.finish()


@pytest.fixture
def place(server: Samba, mounted: Mounter) -> Iterator[Callable[..., Mount]]:
    """Mounts of that server."""
    yield lambda *options: mounted(*options, server=server)
    mounted.finish()


class Work(NamedTuple):
    """A directory of the test's own: on the mount, and as the server's machine sees it."""

    path: Path
    behind: Path
    name: str


@pytest.fixture
def work(mount: Mount, samba: Samba) -> Iterator[Work]:
    """A new directory on the module's mount."""
    name = f"work-{os.urandom(4).hex()}"
    behind = samba.directory() / name
    (mount.path / name).mkdir()
    yield Work(mount.path / name, behind, name)
    shutil.rmtree(behind)
