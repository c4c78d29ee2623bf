"""The status socket: both ends, clients that mean no good, and mounts that must not be looked at."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from smb3fs import status
from smb3fs.errors import Status, StatusError
from smb3fs.status import MountedShare, StatusUnavailableError, query_status, serve_status, socket_name

SNAPSHOT = {"dialect": "3.1.1", "requests": {"READ": 7}, "share": "müsli"}


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of the sockets, in place of /run/smb3fs; no mount is known to the kernel.

    Not in tmp_path, since a socket's address has room for 107 bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(status, "socket_directory", lambda uid, environment: f"{folder}/run-{uid}")
        monkeypatch.setattr(status, "mounted_shares", list)
        yield Path(folder, f"run-{os.getuid()}")


@asynccontextmanager
async def served(
    mountpoint: str, snapshot: status.Snapshot, questions: dict[str, status.Answer] | None = None
) -> AsyncIterator[str]:
    """A daemon that answers for `mountpoint`; the path of its socket."""
    path = status.socket_path(mountpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_status, path, snapshot, questions)
        await trio.testing.wait_all_tasks_blocked()
        yield path
        nursery.cancel_scope.cancel()


async def ask(mountpoint: str, timeout: float = 5.0, question: str = "status") -> dict[str, Any]:
    return await trio.to_thread.run_sync(query_status, mountpoint, timeout, question)


async def refusal(mountpoint: str, timeout: float = 5.0) -> str:
    """The sentence of a query that fails."""
    with pytest.raises(StatusUnavailableError) as caught:
        await ask(mountpoint, timeout)
    assert mountpoint in str(caught.value)
    return str(caught.value)


def run(test: Callable[[], Any]) -> None:
    """Run an async test, which must end by itself."""

    async def bounded() -> None:
        with trio.fail_after(20):
            await test()

    trio.run(bounded)


def test_round_trip(sockets: Path) -> None:
    async def test() -> None:
        async with served("/mnt/a", lambda: SNAPSHOT) as path:
            assert await ask("/mnt/a") == SNAPSHOT
            assert await ask("/mnt/b/../a/") == SNAPSHOT
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert Path(path).parent == sockets
            assert "not an smb3fs mount" in await refusal("/mnt/b")
        assert os.listdir(sockets) == []
        assert "not an smb3fs mount" in await refusal("/mnt/a")

    run(test)


def test_a_snapshot_that_fails_does_not_end_the_daemon(sockets: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("status .* failed")

    async def test() -> None:
        answers: Iterator[Any] = iter([1 / 2, {"now": trio}, SNAPSHOT])

        def snapshot() -> Any:
            found = next(answers)
            if found == 0.5:
                raise KeyError("trace")
            return found

        async with served("/mnt/a", snapshot):
            assert "error" in await ask("/mnt/a")
            assert "trio" in (await ask("/mnt/a"))["now"]  # what JSON does not have becomes text
            assert await ask("/mnt/a") == SNAPSHOT

    run(test)


def test_other_questions(sockets: Path, expect_log: Callable[[str], None]) -> None:
    """Their answers take their time; what prevents one is a sentence, and the status goes on being told meanwhile."""
    expect_log("mistake for a client .* failed")

    async def test() -> None:
        let_go = trio.Event()

        async def slow() -> dict[str, Any]:
            await let_go.wait()
            return {"slow": True}

        async def refused() -> dict[str, Any]:
            raise StatusError(Status.ACCESS_DENIED, "IOCTL")

        async def late() -> dict[str, Any]:
            raise trio.TooSlowError

        async def mistake() -> dict[str, Any]:
            raise KeyError("x")

        questions = {"slow": slow, "refused": refused, "late": late, "mistake": mistake}
        async with served("/mnt/a", lambda: SNAPSHOT, questions), trio.open_nursery() as nursery:
            answers: list[dict[str, Any]] = []

            async def ask_slowly() -> None:
                answers.append(await ask("/mnt/a", question="slow"))

            nursery.start_soon(ask_slowly)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert await ask("/mnt/a") == SNAPSHOT
            assert "ACCESS_DENIED" in (await ask("/mnt/a", question="refused"))["error"]
            assert "in time" in (await ask("/mnt/a", question="late"))["error"]
            assert "log" in (await ask("/mnt/a", question="mistake"))["error"]
            assert "does not know" in (await ask("/mnt/a", question="weather"))["error"]
            assert answers == []
            let_go.set()
        assert answers == [{"slow": True}]

    run(test)


def test_who_asks_for_nothing_is_told_the_status(sockets: Path) -> None:
    async def test() -> None:
        async with served("/mnt/a", lambda: SNAPSHOT) as path:
            for question in (b"", b"\n", b"status\nand more"):
                async with await trio.open_unix_socket(path) as stream:
                    await stream.send_all(question)
                    await stream.send_eof()
                    assert json.loads(b"".join([part async for part in stream])) == SNAPSHOT

    run(test)


@asynccontextmanager
async def lazy_clients(path: str) -> AsyncIterator[None]:
    """As many clients as may be served, none of which reads its answer."""
    async with AsyncExitStack() as stack:
        for _ in range(status.MAX_CLIENTS):
            await stack.enter_async_context(await trio.open_unix_socket(path))
        await trio.testing.wait_all_tasks_blocked(0.05)
        yield


# More than the buffers of a socket take.
LARGE = {"text": "x" * 3_000_000}


def test_one_client_too_many_is_sent_away(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SEND_TIMEOUT", 60)

    async def test() -> None:
        async with served("/mnt/a", lambda: LARGE) as path:
            async with lazy_clients(path):
                assert "ask again" in await refusal("/mnt/a")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert await ask("/mnt/a") == LARGE

    run(test)


def test_clients_that_do_not_read_are_dropped(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take every place for as long as they are allowed to; then others are served."""
    monkeypatch.setattr(status, "SEND_TIMEOUT", 0.2)

    async def test() -> None:
        async with served("/mnt/a", lambda: LARGE) as path, lazy_clients(path):
            while True:
                try:
                    assert await ask("/mnt/a") == LARGE
                    return
                except StatusUnavailableError:
                    await trio.sleep(0.05)

    run(test)


def test_clients_that_vanish_or_talk_do_no_harm(sockets: Path) -> None:
    async def test() -> None:
        async with served("/mnt/a", lambda: {"text": "x" * 1_000_000}) as path:
            for _ in range(50):
                stream = await trio.open_unix_socket(path)
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                await stream.aclose()
            assert len((await ask("/mnt/a"))["text"]) == 1_000_000

    run(test)


def test_a_stale_socket_is_replaced(sockets: Path) -> None:
    sockets.mkdir(mode=0o700)
    stale = sockets / socket_name("/mnt/a")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))

    async def test() -> None:
        assert "not an smb3fs mount" in await refusal("/mnt/a")
        async with served("/mnt/a", lambda: SNAPSHOT):
            assert await ask("/mnt/a") == SNAPSHOT

    run(test)
    assert os.listdir(sockets) == []


def test_a_daemon_that_is_late_leaves_its_successor_alone(sockets: Path) -> None:
    async def test() -> None:
        path = status.socket_path("/mnt/a")
        async with trio.open_nursery() as nursery:
            old = trio.CancelScope()

            async def first() -> None:
                with old:
                    await serve_status(path, lambda: {"first": True})

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(partial(serve_status, path, lambda: {"second": True}))
            await trio.testing.wait_all_tasks_blocked()
            old.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert await ask("/mnt/a") == {"second": True}
            nursery.cancel_scope.cancel()

    run(test)
    assert os.listdir(sockets) == []


@pytest.mark.parametrize("spoil", ["open to all", "a file", "a link"])
def test_a_directory_that_is_not_ours_costs_the_status_alone(
    sockets: Path, spoil: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("there is no status of this mount")
    if spoil == "a file":
        sockets.write_text("")
    elif spoil == "a link":
        (sockets.parent / "elsewhere").mkdir(mode=0o700)
        sockets.symlink_to(sockets.parent / "elsewhere")
    else:
        sockets.mkdir()
        sockets.chmod(0o777)

    async def test() -> None:
        await serve_status(status.socket_path("/mnt/a"), lambda: SNAPSHOT)

    run(test)


def test_a_place_of_two_hundred_characters(sockets: Path) -> None:
    """A socket's address has room for 107 bytes, a mountpoint's path for 4095."""

    async def test() -> None:
        place = "/mnt" + "/ä" * 200
        async with served(place, lambda: SNAPSHOT):
            assert await ask(place) == SNAPSHOT

    run(test)


# -- the client alone ------------------------------------------------------------------------------------------------


@contextmanager
def impostor(sockets: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens for /mnt/a and answers as it likes."""
    sockets.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sockets / socket_name("/mnt/a")))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                try:
                    answer(client)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_a_daemon_that_does_not_answer(sockets: Path) -> None:
    release = threading.Event()
    with impostor(sockets, lambda client: assert_true(release.wait(10))):
        with pytest.raises(StatusUnavailableError, match=r"/mnt/a did not answer in 0\.2 seconds"):
            query_status("/mnt/a", 0.2)
        release.set()


def assert_true(value: object) -> None:
    assert value


def test_a_daemon_that_answers_drop_by_drop(sockets: Path) -> None:
    """The bound is on the whole answer, not on each piece of it."""
    stop = threading.Event()

    def drip(client: socket.socket) -> None:
        while not stop.wait(0.02):
            client.send(b" ")

    with impostor(sockets, drip):
        with pytest.raises(StatusUnavailableError, match="did not answer"):
            query_status("/mnt/a", 0.3)
        stop.set()


@pytest.mark.parametrize("answer", [b"", b"no json", b"[1]", b"{", b"\xff", b"null"])
def test_answers_without_sense(sockets: Path, answer: bytes) -> None:
    with (
        impostor(sockets, lambda client: client.sendall(answer)),
        pytest.raises(StatusUnavailableError, match="no answer that makes sense"),
    ):
        query_status("/mnt/a")


def test_an_endless_answer_is_cut(sockets: Path) -> None:
    def flood(client: socket.socket) -> None:
        while True:
            client.sendall(bytes(1 << 20))

    with impostor(sockets, flood), pytest.raises(StatusUnavailableError, match="no answer that makes sense"):
        query_status("/mnt/a")


def test_what_the_kernel_knows_makes_the_sentence(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "mounted_shares", lambda: [MountedShare("/mnt/a", 12345)])
    with pytest.raises(StatusUnavailableError, match=r"daemon of /mnt/a is gone; unmount it"):
        query_status("/mnt/a/below/it")

    def forbidden(path: str, place: str, timeout: float, question: str) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(status, "_ask", forbidden)
    with pytest.raises(StatusUnavailableError, match="mounted by another user"):
        query_status("/mnt/a")


def test_a_socket_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "socket_directory", lambda uid, environment: "/" + "x" * 200)
    with pytest.raises(StatusUnavailableError, match=r"/mnt/a cannot be asked .* too long"):
        query_status("/mnt/a")


def test_the_owner_of_the_mount_is_asked(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "mounted_shares", lambda: [MountedShare("/mnt/a", 4711)])
    with impostor(sockets.parent / "run-4711", lambda client: client.sendall(json.dumps(SNAPSHOT).encode())):
        assert query_status("/mnt/a") == SNAPSHOT


# -- paths -----------------------------------------------------------------------------------------------------------


def test_the_mount_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the mountpoint nor what is below it: their parents alone are resolved."""
    (tmp_path / "link").symlink_to(tmp_path)
    place = str(tmp_path / "mount")
    mounts = [MountedShare(place, 0), MountedShare(f"{place}/inner", 0)]
    seen: list[str] = []
    real = os.lstat

    def watched(path: Any, **keywords: Any) -> os.stat_result:
        seen.append(os.fspath(path))
        return real(path, **keywords)

    monkeypatch.setattr(os, "lstat", watched)
    assert status.resolve_mountpoint(place, mounts) == place
    assert status.resolve_mountpoint(f"{place}/x/y", mounts) == place
    assert status.resolve_mountpoint(f"{place}/inner/y", mounts) == f"{place}/inner"
    assert seen == []
    assert status.resolve_mountpoint(f"{tmp_path}/link/mount", mounts) == place
    assert status.resolve_mountpoint(f"{place}x", mounts) == f"{place}x"
    assert seen
    assert not any(path.startswith(place) for path in seen)


MOUNTINFO = """\
22 1 0:21 / / rw,relatime shared:1 - overlay overlay rw
310 22 0:52 / /mnt/a rw,nosuid shared:9 master:1 - fuse.smb3fs //server/share rw,user_id=0,group_id=0,allow_other
311 22 0:53 / /mnt/with\\040blank\\134040 rw - fuse.smb3fs //server/a\\040b rw,user_id=1000,group_id=1000
312 22 0:54 / /mnt/other rw - fuse.sshfs me@host: rw,user_id=1000,group_id=1000
"""


def test_mounts_that_the_kernel_lists(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    assert status.mounted_shares(str(tmp_path / "mountinfo")) == [
        MountedShare("/mnt/a", 0),
        MountedShare("/mnt/with blank\\040", 1000),
    ]
    status.mounted_shares()  # the real file reads without complaint


def test_directories_of_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert status.socket_directory(0, environment) == "/run/smb3fs"
    assert status.socket_directory(1000, environment) == f"{tmp_path}/smb3fs"
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/user/1001")
    assert status.socket_directory(1001, environment) == "/run/user/1001/smb3fs"
    assert status.socket_directory(1000, {}) == "/tmp/smb3fs-1000"
