"""Recovery: the next session comes soon after a loss, and nobody is hammered while it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from peer import SESSION_ID, Peer, make_keys, settle, trio_test
from world import world

from smb3fs.channels.pool import Repeat
from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    SecurityError,
    Smb3fsError,
    Status,
    StatusError,
    WireError,
)
from smb3fs.recovery import (
    FIRST_INTERVAL,
    LOGIN_REFUSED,
    LONGEST_INTERVAL,
    LONGEST_REFUSED,
    QUICK_INTERVAL,
    QUICK_PERIOD,
    REFUSED_INTERVAL,
    pause,
)
from smb3fs.wire.control import EchoRequest

REFUSED = ConnectionRefusedError(111, "Connection refused")

ExpectLog = Callable[[str], None]


@trio_test
async def test_after_a_loss_a_new_session_is_there_at_once() -> None:
    async with world() as made:
        await trio.sleep(100)
        made.peer.transport.hang_up()
        await settle()
        assert made.pool.generation == 2
        assert made.trace.reconnects == 1
        assert made.attempts == [0, 100]
        # So that the server lets go of what it holds for the session before.
        assert made.previous == [0, SESSION_ID]
        assert ["lost" in event.text for event in made.trace.events] == [True, False]


@trio_test
async def test_the_first_session_is_not_waited_for() -> None:
    async with world() as made:
        assert made.pool.session is not None
        assert made.trace.reconnects == 0


@pytest.mark.parametrize(
    "error", [REFUSED, ConnectionLost("x"), DeadlineExceeded("x"), WireError("x"), SecurityError("x")]
)
@trio_test
async def test_attempts_follow_each_other_quickly_and_without_many_words(
    error: Exception, expect_log: ExpectLog
) -> None:
    expect_log("reconnecting failed, next attempt in 0.1 s")
    async with world() as made:
        await trio.sleep(100)
        made.script = [error] * 20
        made.peer.transport.hang_up()
        await trio.sleep(30)
        assert made.pool.generation == 2
        waits = made.intervals[1:]
        assert len(waits) == 20
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (FIRST_INTERVAL, QUICK_INTERVAL)
        for number, wait in enumerate(waits):
            assert wait <= max(FIRST_INTERVAL, sum(waits[:number]) / 4) + 0.01
        assert len(made.trace.errors) == 1


@trio_test
async def test_an_attempt_that_takes_its_time_is_followed_by_the_next(expect_log: ExpectLog) -> None:
    expect_log("reconnecting failed")
    async with world() as made:
        await trio.sleep(100)
        original = made._connect

        async def slow(previous: int) -> object:
            await trio.sleep(5)
            return await original(previous)

        made.recovery._connect = slow  # type: ignore[assignment]
        made.script = [REFUSED] * 3
        made.peer.transport.hang_up()
        await trio.sleep(30)
        assert made.intervals[1:] == [5.0, 5.0, 5.0]


@trio_test
async def test_after_a_minute_they_become_rare(expect_log: ExpectLog) -> None:
    expect_log("reconnecting failed")
    async with world() as made:
        await trio.sleep(100)
        made.script = [REFUSED] * 10_000
        made.peer.transport.hang_up()
        await trio.sleep(QUICK_PERIOD)
        quick = len(made.attempts)
        await trio.sleep(3600)
        slow = len(made.attempts) - quick
        assert 110 < quick <= 135
        assert 3600 / (LONGEST_INTERVAL * 1.25) <= slow <= 3600 / (LONGEST_INTERVAL * 0.75) + 2
        made.script = []
        await trio.sleep(20)
        assert made.pool.generation == 2


@pytest.mark.parametrize("status", sorted(LOGIN_REFUSED), ids=lambda status: status.name)
@trio_test
async def test_a_refused_login_is_not_repeated_within_a_minute(status: Status, expect_log: ExpectLog) -> None:
    expect_log(r"next attempt in (60|120|240|480).0 s")
    async with world() as made:
        await trio.sleep(100)
        made.script = [StatusError(status, "SESSION_SETUP")] * 5
        made.peer.transport.hang_up()
        await trio.sleep(600)
        assert made.intervals[1:] == [60.0, 120.0, 240.0]
        made.script = []
        await trio.sleep(600)
        assert made.pool.generation == 2


@trio_test
async def test_a_refused_login_is_repeated_ever_more_slowly_but_not_never(expect_log: ExpectLog) -> None:
    expect_log(r"next attempt in (60|120|240|480|900).0 s")
    async with world() as made:
        await trio.sleep(100)
        made.script = [StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")] * 1000
        made.peer.transport.hang_up()
        await trio.sleep(3 * 3600)
        assert set(made.intervals[6:]) == {LONGEST_REFUSED}


@trio_test
async def test_a_server_that_drops_us_right_after_the_login_is_not_hammered() -> None:
    """Each session is lost at once, as by a request in the queue that the server cannot bear."""

    made_peers = []

    def poisoned() -> Peer:
        peer = Peer(make_keys())
        made_peers.append(peer)
        assert len(made_peers) < 200  # or it would go on without any time passing
        peer.handler = lambda _: peer.transport.hang_up()
        return peer

    async with world(poisoned) as made:
        await trio.sleep(100)
        before = len(made.attempts)
        with trio.move_on_after(30):
            await made.pool.call([EchoRequest()], repeat=Repeat.SAFE)
        assert 2 <= len(made.attempts) - before <= 30 / QUICK_INTERVAL + 2


@trio_test
async def test_a_session_that_was_lost_before_it_was_attached_is_none() -> None:
    async with world() as made:
        await trio.sleep(10)
        original, spoil = made._connect, [True]

        async def spoiled(previous: int) -> object:
            session = await original(previous)
            if spoil:
                spoil.pop()
                session.channel.fail(ConnectionLost("at once"))
            return session

        made.recovery._connect = spoiled  # type: ignore[assignment]
        made.peer.transport.hang_up()
        await trio.sleep(3)
        assert len(made.attempts) == 3
        assert made.pool.generation == 3
        assert made.pool.session is not None
        assert made.pool.session.channel.error is None


@trio_test
async def test_a_channel_that_is_not_the_sessions_may_end_without_a_word() -> None:
    async with world() as made:
        old = made.peer
        assert made.pool.session is not None
        channel = made.pool.session.channel
        old.transport.hang_up()
        await settle()
        session = made.pool.session
        made.recovery.lost(channel, ConnectionLost("again"))
        assert made.pool.session is session
        assert made.trace.reconnects == 1


@trio_test
async def test_it_ends_with_the_pool(expect_log: ExpectLog) -> None:
    expect_log("reconnecting failed")
    async with world() as made:
        done = trio.Event()

        async def run() -> None:
            await made.recovery.run()
            done.set()

        made.nursery.start_soon(run)
        await settle()
        made.script = [REFUSED] * 100
        made.peer.transport.hang_up()
        await trio.sleep(5)
        made.pool.close()
        with trio.fail_after(1):
            await done.wait()
        attempts = len(made.attempts)
        await trio.sleep(100)
        assert len(made.attempts) == attempts


@trio_test
async def test_a_session_that_comes_after_the_end_carries_nothing() -> None:
    async with world() as made:
        original = made._connect

        async def late(previous: int) -> object:
            await trio.sleep(5)
            return await original(previous)

        made.recovery._connect = late  # type: ignore[assignment]
        await trio.sleep(10)
        made.peer.transport.hang_up()
        await trio.sleep(1)
        made.pool.close()
        await trio.sleep(10)
        assert made.pool.session is None


@trio_test
async def test_what_prevents_the_first_session_is_raised() -> None:
    with trio.fail_after(1):
        for error in (REFUSED, StatusError(Status.LOGON_FAILURE, "SESSION_SETUP"), AuthenticationError("x")):
            async with world() as made:
                made.script = [error]
                with pytest.raises(type(error)):
                    await made.recovery.start()


errors = st.sampled_from(
    [REFUSED, ConnectionLost("x"), WireError("x"), *(StatusError(s, "SESSION_SETUP") for s in Status)]
)


@given(errors, st.integers(1, 100_000), st.floats(0, 1e7))
def test_the_pause_has_its_bounds(error: Smb3fsError | OSError, failures: int, elapsed: float) -> None:
    seconds = pause(error, failures, elapsed)
    assert FIRST_INTERVAL <= seconds <= max(LONGEST_INTERVAL * 1.25, LONGEST_REFUSED)
    if isinstance(error, StatusError) and error.status in LOGIN_REFUSED:
        assert REFUSED_INTERVAL <= seconds <= LONGEST_REFUSED
    elif elapsed < QUICK_PERIOD:
        assert seconds <= QUICK_INTERVAL
        assert elapsed < 4 * QUICK_INTERVAL or seconds == QUICK_INTERVAL
        assert seconds <= max(FIRST_INTERVAL, elapsed / 4)
