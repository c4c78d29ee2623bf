"""Who reads and who waits: answers on the spot, calls that wait, interrupts, bounds, and the end."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from fake_kernel import kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.fuse import device, interrupts, workers
from smb3fs.wire.fuse import Opcode
from smb3fs.wire.fuse_replies import EntryOut
from smb3fs.wire.fuse_requests import WriteIn
from smb3fs.wire.fuse_session import BatchForgetIn, ForgetIn


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        trio.run(functools.partial(test, *args, **named))

    return run


@in_trio
async def test_what_is_answered_at_once_and_what_is_not() -> None:
    async with kernel() as k:
        first, slow, last = k.look(b"a"), k.look(b"wait"), k.look(b"b", thread=9)
        got = await k.settle()
        assert [answer.unique for answer in got] == [first, last]
        entry = EntryOut.parse(got[0].message)
        assert (entry.nodeid, entry.attr.ino, entry.attr.size) == (101, 101, 5)
        assert (entry.entry_valid, entry.entry_valid_nsec) == (1, 500_000_000)
        assert (entry.attr_valid, entry.attr_valid_nsec) == (2, 250_000_000)
        assert (entry.attr.atime_nsec, entry.attr.mtime_nsec, entry.attr.ctime_nsec) == (1, 2, 3)
        assert k.verbs.threads == [7, 7, 9]
        k.verbs.gate.set()
        assert await k.errors() == {slow: 0}
        assert not k.workers.running


@in_trio
async def test_verbs_begin_in_the_order_of_the_requests() -> None:
    async with kernel() as k:
        names = [b"wait %d" % number for number in range(200)]
        asked = [k.look(name) for name in names]
        await k.settle()
        assert k.verbs.begun == names
        k.verbs.gate.set()
        assert await k.errors() == dict.fromkeys(asked, 0)


@in_trio
async def test_a_wait_that_turns_out_to_be_none() -> None:
    async with kernel() as k:
        asked = [k.look(b"wait for nothing") for _ in range(100)]
        assert await k.errors() == dict.fromkeys(asked, 0)
        assert len(k.workers._resting) < 5


@in_trio
async def test_tasks_are_used_again_and_not_kept_in_masses() -> None:
    async with kernel() as k:
        for _ in range(3):
            for _ in range(workers.MAX_RESTING * 2):
                k.look(b"wait")
            await k.settle()
            k.verbs.gate.set()
            assert len(await k.settle()) == workers.MAX_RESTING * 2
            k.verbs.gate = trio.Event()
            assert len(k.workers._resting) <= workers.MAX_RESTING


@in_trio
async def test_what_a_program_does_one_after_the_other_is_done_by_one_task() -> None:
    async with kernel() as k:
        todo = [b"a", b"wait", b"b", b"c", b"wait", b"d", b"wait"]
        real, counted = k.workers._device, 0

        class Program(device.Device):
            """A device whose reader asks for the next thing as soon as it has been answered."""

            def answer(self, reply: Any) -> None:
                real.answer(reply)
                if todo:
                    k.look(todo.pop(0))

        k.workers._device = Program(real.descriptor)
        k.look(b"wait")
        await k.settle()
        leader, (served_by,) = k.workers._leader, k.workers.running.values()
        while k.workers.running:
            assert list(k.workers.running.values()) == [served_by]
            k.verbs.gate.set()
            k.verbs.gate = trio.Event()
            counted += len(await k.settle())
            assert k.workers._leader is leader
        assert counted == 8
        assert not todo


@in_trio
async def test_failures(expect_log: Callable[[str], None]) -> None:
    expect_log("cannot be answered")
    async with kernel() as k:
        expected = {
            k.look(b"absent"): errno.ENOENT,
            k.look(b"mistake"): errno.EIO,
            k.look(b"odd errno"): errno.EIO,
            k.look(b"wait and fail"): errno.EACCES,
            k.look(b"wait and err"): errno.EIO,
            k.send(Opcode.POLL): errno.ENOSYS,
            k.send(4711): errno.ENOSYS,
            k.send(Opcode.READ, b"short"): errno.EIO,
            k.look(b"fine"): 0,
        }
        assert await k.errors() == expected


@in_trio
async def test_what_is_forgotten_is_counted_and_not_answered(expect_log: Callable[[str], None]) -> None:
    expect_log("cannot be answered")
    async with kernel() as k:
        k.send(Opcode.FORGET, ForgetIn(3).encode(), node=5)
        k.send(Opcode.BATCH_FORGET, BatchForgetIn([(5, 2), (6, 1)]).encode())
        k.send(Opcode.BATCH_FORGET, BatchForgetIn([(5, 2)]).encode()[:-1])  # cut short
        assert await k.settle() == []
        assert k.verbs.forgotten == {5: 5, 6: 1}


@given(requests=st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=120)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_answered(requests: list[tuple[int, bytes]]) -> None:
    """Each with one answer, but for the three kinds that have none; verbs that are missing here are EIO."""
    silent = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT}
    logging.getLogger("smb3fs").setLevel(logging.CRITICAL)
    try:

        @in_trio
        async def ask() -> None:
            async with kernel() as k:
                asked = [k.send(opcode, body) for opcode, body in requests if opcode not in silent]
                for opcode, body in requests:
                    if opcode in silent:
                        k.send(opcode, body)
                k.verbs.gate.set()
                assert sorted(answer.unique for answer in await k.settle()) == asked

        ask()
    finally:
        logging.getLogger("smb3fs").setLevel(logging.NOTSET)


@in_trio
async def test_an_interrupted_call_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "asked_to_end", lambda thread: thread == 7)
    async with kernel() as k:
        one, other = k.look(b"wait one"), k.look(b"wait other")
        await k.settle()
        k.interrupt(one)
        assert await k.errors() == {one: errno.EINTR}
        assert k.verbs.cancelled == [b"wait one"]
        k.interrupt(one)  # too late
        k.interrupt(424242)  # never heard of
        third = k.look(b"wait three")
        assert await k.errors() == {}
        k.verbs.gate.set()
        assert await k.errors() == {other: 0, third: 0}


@in_trio
async def test_not_every_signal_ends_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ending: set[int] = set()
    monkeypatch.setattr(interrupts, "asked_to_end", lambda thread: thread in ending)
    monkeypatch.setattr(interrupts, "LOOK_AGAIN", 0.01)
    async with kernel() as k:
        one = k.look(b"wait one", thread=8)
        await k.settle()
        k.interrupt(one)
        await trio.sleep(0.05)
        assert await k.errors() == {}
        ending.add(8)  # the kernel tells of the first signal only
        await trio.sleep(0.05)
        assert await k.errors() == {one: errno.EINTR}


def test_which_signals_end_a_call() -> None:
    text = "Name:\tx\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigCgt:\t0\n"
    bit = {"KILL": 1 << 8, "TERM": 1 << 14, "INT": 1 << 1, "ALRM": 1 << 13, "CHLD": 1 << 16, "URG": 1 << 22}
    assert interrupts.asks_to_end(text.format(bit["KILL"], 0, 0))
    assert interrupts.asks_to_end(text.format(0, bit["TERM"] | bit["CHLD"], 0))
    assert not interrupts.asks_to_end(text.format(0, bit["INT"], bit["INT"]))
    assert not interrupts.asks_to_end(text.format(bit["ALRM"], bit["CHLD"] | bit["URG"], 0))
    assert interrupts.asked_to_end(0)  # a thread of another namespace


@in_trio
async def test_with_many_calls_hanging_the_device_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_RUNNING", 3)
    monkeypatch.setattr(interrupts, "asked_to_end", lambda thread: True)
    async with kernel() as k:
        asked = [k.look(b"wait %d" % number) for number in range(8)]
        await k.settle()
        assert len(k.workers.running) == 3
        assert len(k.verbs.begun) == 3
        k.send(Opcode.FORGET, ForgetIn(1).encode(), node=5)
        at_once = k.look(b"at once")
        k.interrupt(asked[5])  # parked
        k.interrupt(asked[0])  # running
        assert await k.errors() == {at_once: 0, asked[5]: errno.EINTR, asked[0]: errno.EINTR}
        assert k.verbs.forgotten == {5: 1}
        assert k.verbs.begun == [b"wait 0", b"wait 1", b"wait 2", b"wait 3"]
        for number in (1, 2, 3):
            k.interrupt(asked[number])
        assert len(await k.errors()) == 3
        assert len(k.verbs.begun) == 7  # 4, 6 and 7 run although nobody has answered anything
        k.verbs.gate.set()
        assert await k.errors() == {asked[4]: 0, asked[6]: 0, asked[7]: 0}


@in_trio
async def test_too_much_data_waiting_stops_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_RUNNING", 1)
    monkeypatch.setattr(workers, "MAX_PARKED", 10_000)
    async with kernel() as k:
        asked = [k.send(Opcode.WRITE, WriteIn(1, 1, 0, 0, 0, bytes(6000)).encode()) for _ in range(5)]
        behind = k.look(b"behind")
        assert await k.errors() == {}
        assert len(k.verbs.written) == 3  # one runs, one waits, one was too much
        k.verbs.gate.set()
        assert await k.errors() == {**dict.fromkeys(asked, 0), behind: 0}


@in_trio
async def test_what_is_written_stays_as_long_as_somebody_looks_at_it() -> None:
    async with kernel() as k:
        size = device.COPIED * 2
        for number in range(device.SPARE * 3):
            k.send(Opcode.WRITE, WriteIn(1, number % 2, 0, 0, 0, bytes([number]) * size).encode())
            if number % 4 == 0:
                k.send(Opcode.WRITE, WriteIn(1, number % 2, 0, 0, 0, bytes([number]) * 10).encode())
            await k.settle()
        assert all(bytes(data) == bytes([data[0]]) * len(data) for data in k.verbs.written)
        buffers = k.workers._device.buffers
        assert len(buffers._spare) <= device.SPARE + 1
        k.verbs.written.clear()
        k.verbs.gate.set()
        await k.settle()
        seen = set()
        for _ in range(20):
            k.send(Opcode.WRITE, WriteIn(1, 0, 0, 0, 0, bytes(size)).encode())
            await k.settle()
            k.verbs.written.clear()
            seen.add(id(buffers.view.obj))
        assert len(seen) <= device.SPARE + 2  # nothing new is allocated


@in_trio
async def test_the_end_answers_what_has_been_read() -> None:
    async with kernel() as k:
        slow = k.look(b"wait")
        await k.settle()
        k.workers.stop()
        unread = k.look(b"after the end")
        assert await k.errors() == {}
        assert not k.workers.over.is_set()
        k.verbs.gate.set()
        assert await k.errors() == {slow: 0}
        assert k.workers.over.is_set()
        assert unread  # it stays with the kernel


@in_trio
async def test_the_end_at_rest() -> None:
    async with kernel() as k:
        await k.settle()
        k.workers.stop()
        assert k.workers.over.is_set()


@in_trio
async def test_a_cancelled_mount_leaves_nobody_waiting() -> None:
    async with kernel() as k:
        asked = [k.look(b"wait") for _ in range(3)]
        await k.settle()
        k.workers._nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)
            assert {answer.unique: answer.error for answer in k.received()} == dict.fromkeys(asked, errno.EINTR)
