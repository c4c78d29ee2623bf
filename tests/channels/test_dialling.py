"""Connecting over real sockets: several addresses, silent ones, links that come back, names that do not resolve."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise

import pytest
import trio
from peer import real_time_test, trio_test

from smb3fs.channels.dialling import STAGGER, Dialler
from smb3fs.channels.tcp import KERNEL_PATIENCE_MS, TCP_RTO_MAX_MS
from smb3fs.channels.transport import Traffic


@real_time_test
async def test_connected_it_carries_messages_and_says_between_whom() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = await Dialler(*server.getsockname()).connect(attempt_timeout=5)
        peer, address = server.accept()
        with peer:
            assert transport.description == f"127.0.0.1:{address[1]} -> 127.0.0.1:{server.getsockname()[1]}"
            transport.send_now([b"hello"])
            assert peer.recv(100) == b"\0\0\0\5hello"
            ours = transport._socket
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == KERNEL_PATIENCE_MS
            assert KERNEL_PATIENCE_MS > 960_000  # the longest `handletimeout=`
            with suppress(OSError):  # a kernel before Linux 6.15
                assert ours.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS) == 1000
            transport.close()
            assert peer.recv(100) == b""


def unused_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@real_time_test
async def test_nobody_there() -> None:
    with pytest.raises(OSError) as error:
        await Dialler("127.0.0.1", unused_port()).connect(attempt_timeout=5)
    assert error.value.errno == errno.ECONNREFUSED


@real_time_test
async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(socket.gaierror):
        await Dialler("no such name.invalid", 445).connect(attempt_timeout=5)


class Addresses(trio.abc.HostnameResolver):
    """A resolver that gives several addresses for one name."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:  # type: ignore[override]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in self.addresses]

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        raise NotImplementedError


@real_time_test
async def test_the_first_address_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Addresses(("127.0.0.2", port), ("127.0.0.1", port)))
        transport = await Dialler("server", port).connect(attempt_timeout=5)
        assert transport.description.endswith(f"127.0.0.1:{port}")
        transport.close()


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address at which nobody answers: its queue is full, and what comes then is dropped."""
    with socket.create_server(("127.0.0.3", 0), backlog=0) as full, ExitStack() as fillers:
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


@real_time_test
async def test_an_address_that_says_nothing_holds_the_others_up_for_a_moment_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, silent() as address:
        trio.socket.set_custom_hostname_resolver(Addresses(address, server.getsockname()))
        transport = await Dialler("server", 445).connect(attempt_timeout=60)
        assert "-> 127.0.0.1" in transport.description
        transport.close()
        trio.socket.set_custom_hostname_resolver(Addresses(address))
        with pytest.raises(OSError) as error:
            await Dialler("server", 445).connect(attempt_timeout=0.2)
        assert error.value.errno == errno.ETIMEDOUT


@real_time_test
async def test_where_the_same_server_was_found_it_is_looked_for_until_that_was_of_no_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Addresses(("127.0.0.2", port)))
        dialler, other = Dialler("server", port), Dialler("127.0.0.1", port)
        dialler.learn(other)  # which has found nothing yet
        with pytest.raises(ConnectionRefusedError):
            await dialler.connect(attempt_timeout=5)
        trio.socket.set_custom_hostname_resolver(Addresses(("127.0.0.1", port)))
        (await other.connect(attempt_timeout=5)).close()
        trio.socket.set_custom_hostname_resolver(Addresses(("127.0.0.2", port)))
        for _ in range(2):
            dialler.learn(other)
            transport = await dialler.connect(attempt_timeout=5)
            assert transport.description.endswith(f"127.0.0.1:{port}")
            transport.close()
        dialler.disappointed()
        with pytest.raises(ConnectionRefusedError):
            await dialler.connect(attempt_timeout=5)


@real_time_test
async def test_the_last_failure_is_the_one_that_is_told() -> None:
    trio.socket.set_custom_hostname_resolver(Addresses(("127.0.0.1", unused_port()), ("127.0.0.2", unused_port())))
    with pytest.raises(ConnectionRefusedError):
        await Dialler("server", 445).connect(attempt_timeout=5)
    trio.socket.set_custom_hostname_resolver(Addresses())
    with pytest.raises(OSError) as error:
        await Dialler("server", 445).connect(attempt_timeout=5)
    assert error.value.errno == errno.EHOSTUNREACH


class Sockets(trio.abc.SocketFactory):
    """Sockets that connect as the test says: at once, at a time, never, or not at all."""

    def __init__(self, **answers: float | OSError) -> None:
        """By the host of an address: from when on a new attempt is answered, or the error that every one gets."""
        self.answers = answers
        self.attempts: list[tuple[str, float]] = []
        self.given: list[socket.socket] = []

    def socket(self, *_: object) -> trio.socket.SocketType:
        return ScriptedSocket(self)  # type: ignore[return-value]

    def end(self) -> None:
        for sock in self.given:
            sock.close()


class ScriptedSocket:
    """One of them."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    def setsockopt(self, *_: int) -> None:
        """Take any option."""

    async def connect(self, address: tuple[str, int]) -> None:
        host, _ = address
        now = trio.current_time()
        self._sockets.attempts.append((host, now))
        answer = self._sockets.answers[host]
        await trio.lowlevel.checkpoint()
        if isinstance(answer, OSError):
            raise answer
        if now < answer:
            await trio.sleep_forever()

    def detach(self) -> int:
        ours, theirs = socket.socketpair()
        self._sockets.given.append(theirs)
        return ours.detach()

    def close(self) -> None:
        """There is nothing to close."""


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")


@contextmanager
def scripted(*addresses: str, **answers: float | OSError) -> Iterator[tuple[Dialler, Sockets]]:
    """A dialler for a name with these addresses."""
    sockets = Sockets(**answers)
    trio.socket.set_custom_hostname_resolver(Addresses(*((address, 445) for address in addresses)))
    trio.socket.set_custom_socket_factory(sockets)
    yield Dialler("server", 445), sockets
    sockets.end()


@trio_test
async def test_a_link_that_comes_back_is_noticed_by_the_next_attempt() -> None:
    """What was sent before it came back is lost, and the kernel would take its time to repeat it."""
    with scripted("a", a=1.6) as (dialler, sockets):
        (await dialler.connect(attempt_timeout=5)).close()
        assert sockets.attempts == [("a", 0), ("a", 0.5), ("a", 1.0), ("a", 1.5), ("a", 2.0)]


@trio_test
async def test_all_addresses_have_their_turn_again_and_again() -> None:
    with scripted("a", "b", "c", a=100, b=REFUSED, c=3) as (dialler, sockets):
        (await dialler.connect(attempt_timeout=5)).close()
        assert [host for host, _ in sockets.attempts] == ["a", "b", "c", "a", "b", "c", "a", "b", "c"]
        gaps = [after - before for (_, before), (_, after) in pairwise(sockets.attempts)]
        assert set(gaps[2:]) == {STAGGER}


@trio_test
async def test_every_address_has_its_full_time() -> None:
    with scripted("a", "b", a=100, b=100) as (dialler, sockets):
        with pytest.raises(OSError) as error:
            await dialler.connect(attempt_timeout=2)
        assert error.value.errno == errno.ETIMEDOUT
        assert trio.current_time() == 2 + STAGGER
        assert len(sockets.attempts) == 5


@trio_test
async def test_where_all_refuse_it_ends_at_once() -> None:
    with scripted("a", "b", a=REFUSED, b=REFUSED) as (dialler, sockets):
        with pytest.raises(ConnectionRefusedError):
            await dialler.connect(attempt_timeout=5)
        assert sockets.attempts == [("a", 0), ("b", 0)]


@trio_test
async def test_the_address_that_answered_comes_first_unless_nothing_came_of_it() -> None:
    with scripted("a", "b", a=REFUSED, b=0) as (dialler, sockets):
        (await dialler.connect(attempt_timeout=5)).close()
        sockets.answers["a"] = 0
        (await dialler.connect(attempt_timeout=5)).close()
        assert [host for host, _ in sockets.attempts] == ["a", "b", "b"]
        dialler.disappointed()
        (await dialler.connect(attempt_timeout=5)).close()
        assert sockets.attempts[3][0] == "a"


@trio_test
async def test_a_resolver_that_is_gone_too_is_not_waited_for() -> None:
    class Gone(Addresses):
        async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:  # type: ignore[override]
            if trio.current_time() < 100:
                await trio.sleep_forever()
            raise socket.gaierror(socket.EAI_AGAIN, "try again")

    with scripted("a", a=0) as (dialler, _):
        (await dialler.connect(attempt_timeout=5)).close()
        trio.socket.set_custom_hostname_resolver(Gone())
        (await dialler.connect(attempt_timeout=5)).close()
        assert trio.current_time() == STAGGER
        await trio.sleep(100)
        (await dialler.connect(attempt_timeout=5)).close()


@real_time_test
async def test_a_connection_that_was_given_up_is_reset_as_soon_as_the_server_hears_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialler = Dialler(*server.getsockname())
        transport = await dialler.connect(attempt_timeout=5)
        peer, _ = server.accept()
        with peer:
            dialler._abandoned.append(transport._socket)
            transport._closed = True
            (await dialler.connect(attempt_timeout=5)).close()
            peer.settimeout(5)
            with pytest.raises(ConnectionResetError):
                peer.recv(1)


@real_time_test
async def test_a_connection_whose_data_have_come_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialler = Dialler(*server.getsockname())
        transport = await dialler.connect(attempt_timeout=5)
        peer, _ = server.accept()
        with peer:
            transport.send_now([b"hello"])
            assert peer.recv(100)
            transport.close()
            assert dialler._abandoned == []
            assert peer.recv(100) == b""


@real_time_test
async def test_so_is_one_whose_data_are_on_their_way() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        server.bind(("127.0.0.1", 0))
        server.listen()
        dialler = Dialler(*server.getsockname())
        transport = await dialler.connect(attempt_timeout=5)
        peer, _ = server.accept()
        with peer:
            transport.send_now([bytes(50_000)])  # more than the other end takes in before it is read
            transport.close()
            assert dialler._abandoned == []
            received = 0
            while part := peer.recv(10_000):
                received += len(part)
            assert received


@real_time_test
async def test_a_cancelled_attempt_leaves_no_socket_behind() -> None:
    with silent() as (host, port):
        with trio.move_on_after(0.1) as scope:
            await Dialler(host, port).connect(attempt_timeout=5)
        assert scope.cancelled_caught
        gc.collect()  # a socket left open is a ResourceWarning, which is an error here


def drain(sock: socket.socket) -> None:
    """Receive until there is nothing more, which a reset says by an error."""
    while sock.recv(65536):
        pass


@pytest.mark.parametrize("given_up", [False, True], ids=["open", "given up"])
@real_time_test
async def test_after_a_reset_nothing_arrives_any_more(given_up: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        dialler = Dialler("127.0.0.1", listener.getsockname()[1])
        transport = await dialler.connect(attempt_timeout=5)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            transport.send_now([bytes(1 << 20)])
            if given_up:
                # As `close` does with a connection whose server does not hear us.
                transport._closed = True
                dialler._abandoned.append(transport._socket)
            transport.reset()
            with pytest.raises(ConnectionResetError):
                drain(peer)
        dialler._reset_abandoned()


@real_time_test
async def test_progress_is_what_has_come_and_what_was_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = await Dialler("127.0.0.1", listener.getsockname()[1]).connect(attempt_timeout=5)
        peer, _ = listener.accept()
        with peer:
            before = transport.progress()
            assert transport.ends == ("127.0.0.1", "127.0.0.1")
            transport.send_now([bytes(100)])
            assert len(peer.recv(4096)) == 104
            peer.send(b"\0\0\0\x40" + bytes(64))
            await transport.receive()
            assert transport.progress() - before == 104 + 68
            traffic = transport.traffic()
            assert (traffic.received, traffic.repeated) == (68, 0)
            assert 0 < traffic.round_trip < 60
        transport.close()
        assert transport.progress() == 0
        assert transport.traffic() == Traffic()
