"""The connector: a session comes out of it, or an error that names the cause and leaves nothing running."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import trio
from login_server import POLICY, UNC, USER, Behaviour, LoginServer
from peer import Message, Peer, real_time_test, settle, trio_test

from smb3fs.channels.channel import Channel
from smb3fs.channels.connector import Connector, Target
from smb3fs.channels.dialling import Dialler
from smb3fs.channels.logins import Logins
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.places import Place
from smb3fs.channels.session import Session
from smb3fs.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MountError,
    SecurityError,
    Smb3fsError,
    StatusError,
    WireError,
)
from smb3fs.trace import Trace
from smb3fs.wire.tree import ShareType

pytestmark = pytest.mark.usefixtures("users")

TARGET = Target("server", 445, Place.parse(UNC), timeout=10, echo_interval=60)


class Attempt:
    """One attempt to make a session with a peer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
        self.peer = peer
        self.losses: list[Smb3fsError] = []
        self.session: Session | None = None
        self.error: BaseException | None = None
        self.left: int | None = None

        async def connect(*_: object, **__: object) -> object:
            await trio.lowlevel.checkpoint()
            return peer.transport

        monkeypatch.setattr(Dialler, "connect", connect)

    async def make(self, *, login: Login = USER, target: Target = TARGET) -> Attempt:
        """Make the attempt; note what came of it and how many tasks it left."""

        def on_lost(_: Channel, error: Smb3fsError) -> None:
            self.losses.append(error)

        async with trio.open_nursery() as nursery:
            connector = Connector(nursery, target, POLICY, Logins(login), Trace(), on_lost)
            try:
                self.session = await connector.connect()
            except (Smb3fsError, OSError) as error:
                self.error = error
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            self.left = len(nursery.child_tasks)
            nursery.cancel_scope.cancel()
        return self


@real_time_test
async def test_a_session_whose_channel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = await Attempt(monkeypatch, LoginServer()).make()
    assert attempt.session is not None
    assert attempt.left == 1


@pytest.mark.parametrize(
    ("like", "login", "expected"),
    [
        (Behaviour(), Login("alice", "DOM", "wrong"), StatusError),
        (Behaviour(session_flags=1), USER, SecurityError),
        (Behaviour(tree_status=0xC00000CC), USER, StatusError),
        (Behaviour(share_type=ShareType.PRINT), USER, MountError),
        (Behaviour(share_type=ShareType.PIPE), USER, MountError),
        (Behaviour(dialect=0x210), USER, SecurityError),
    ],
    ids=["password", "guest", "no share", "printer", "pipe", "dialect"],
)
@real_time_test
async def test_a_refusal_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, like: Behaviour, login: Login, expected: type[Exception]
) -> None:
    like = dataclasses.replace(like)
    attempt = await Attempt(monkeypatch, LoginServer(like)).make(login=login)
    assert isinstance(attempt.error, expected)
    assert attempt.left == 0
    assert attempt.peer.transport.closed
    assert len(attempt.losses) == 1


def silent(peer: Peer) -> Callable[[Message], None]:
    return lambda _: None


def garbage(peer: Peer) -> Callable[[Message], None]:
    return lambda _: peer.transport.put(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(60))


def hang_up(peer: Peer) -> Callable[[Message], None]:
    return lambda _: peer.transport.hang_up()


@pytest.mark.parametrize(
    ("behaviour", "expected"), [(garbage, WireError), (hang_up, ConnectionLost), (silent, ConnectionLost)]
)
@trio_test
async def test_a_server_that_is_none(
    monkeypatch: pytest.MonkeyPatch, behaviour: Callable[[Peer], Callable[[Message], None]], expected: type[Exception]
) -> None:
    peer = Peer()
    peer.handler = behaviour(peer)
    attempt = await Attempt(monkeypatch, peer).make()
    assert isinstance(attempt.error, expected), repr(attempt.error)
    assert attempt.left == 0
    assert trio.current_time() <= TARGET.timeout


@trio_test
async def test_a_server_that_answers_echoes_but_never_the_negotiation(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer()

    def stalling(message: Message) -> None:
        # An interim answer a second keeps the channel alive for ever.
        async def later() -> None:
            while not peer.transport.closed:
                await trio.sleep(1)
                peer.send(peer.pending(message.elements[0], 1))

        nursery.start_soon(later)

    peer.handler = stalling
    async with trio.open_nursery() as nursery:
        attempt = await Attempt(monkeypatch, peer).make()
        assert isinstance(attempt.error, DeadlineExceeded)
        assert attempt.left == 0
        assert trio.current_time() == pytest.approx(TARGET.timeout)
        await settle()


@trio_test
async def test_nobody_there_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> object:
        raise ConnectionRefusedError(111, "refused")

    attempt = Attempt(monkeypatch, Peer())
    monkeypatch.setattr(Dialler, "connect", refuse)
    await attempt.make()
    assert isinstance(attempt.error, ConnectionRefusedError)
    assert attempt.left == 0


@trio_test
async def test_a_cancelled_attempt_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer()
    attempt = Attempt(monkeypatch, peer)
    losses: list[Smb3fsError] = []
    async with trio.open_nursery() as nursery:
        connector = Connector(nursery, TARGET, POLICY, Logins(USER), Trace(), lambda _, error: losses.append(error))
        with trio.move_on_after(2):
            await connector.connect()
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert not nursery.child_tasks
    assert attempt.peer.transport.closed
    assert len(losses) == 1
