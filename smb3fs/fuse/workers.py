"""Who reads requests, and who waits for their answers.

Theory of operation. All tasks here are alike. One of them leads: it reads requests, and answers on the spot what the
verbs answer on the spot, without any task switch. When a verb has to wait, the leader calls another task to lead, and
itself waits for the verb; then it answers, and rests until it is called again, or leads if nobody does. Before it
rests it reads on itself, for whoever was answered is about to ask for the next thing: then the leader may sleep on,
and if what is read has to wait as well, the same task waits for it. So

- a request that has to wait costs the waking of a task that rests, not the making of one; and of a program that does
  one thing after the other all is done by one task, which wakes when the server has answered and at no other time;
- what a verb does before its first wait is done when the request is read, so the requests that verbs send to the server
  leave in the order in which the kernel asked;
- a task has a cancel scope for its whole life, and waits for one call at a time: an interrupted call is given up by
  cancelling that scope, after which the task gets a new one.

What is bounded. At most `MAX_RUNNING` verbs wait at a time, and each ends within the mount's `timeout`, whatever the
kernel does: no verb waits for another request. Those beyond are parked, read but not begun, so that the device is still
read: interrupts and what is forgotten get through however many calls hang. The data of parked writes are what takes
memory; with `MAX_PARKED` bytes of them the leader stops reading until there is room. That is back-pressure on those who
write, and comes to an end because the verbs that run do, without help from the device.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from types import CoroutineType
from typing import Any, Final, NamedTuple

import trio

from smb3fs.fuse import interrupts
from smb3fs.fuse.device import Device
from smb3fs.fuse.dispatch import Row, Table, put
from smb3fs.wire.fuse import IN_SHORT, Opcode
from smb3fs.wire.fuse_session import InterruptIn

log = logging.getLogger(__name__)

# Calls that wait at a time, each in a task.
MAX_RUNNING: Final = 1024
# Bytes of requests that wait for their turn.
MAX_PARKED: Final = 64 << 20
# Tasks that are kept for the next call.
MAX_RESTING: Final = 64
# Requests that are answered before other tasks get their turn.
SLICE: Final = 64
# How often it is looked whether another request has come since the last answer, before that is left to the event loop.
# Each look lets whoever was answered have the processor, and takes microseconds; being woken takes many times that.
LOOKS: Final = 8
# The one request whose message outlives its reading; a plain number, since this is asked for each of them.
_WRITE: Final = int(Opcode.WRITE)
# Calls that may wait for what somebody else does, and that every signal ends.
PATIENT: Final = frozenset({Opcode.SETLKW})


class Call(NamedTuple):
    """A request whose verb has to wait."""

    unique: int
    opcode: int
    thread: int
    row: Row
    request: Any
    answer: CoroutineType[Any, Any, Any]
    size: int


class Worker:
    """One task: the call that it waits for, if any, and what cancels it."""

    __slots__ = ("call", "scope", "task")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.call: Call | None = None
        self.task: trio.lowlevel.Task | None = None


class Workers:
    """The tasks that serve one mount."""

    def __init__(self, device: Device, table: Table, nursery: trio.Nursery) -> None:
        self._device = device
        self._table = table
        self._nursery = nursery
        self._leader: Worker | None = None
        # Whether somebody has been called to lead and is on the way.
        self._called = False
        self._resting: list[Worker] = []
        # Calls that are waited for, by the request's number; how many of them count; and those that wait for a turn.
        self.running: dict[int, Worker] = {}
        self._busy = 0
        self._parked: deque[Call] = deque()
        self._parked_bytes = 0
        self._room = trio.Event()
        self._stopping = False
        # Set when the device says that the mount is no more, or when nothing runs after `stop`.
        self.over = trio.Event()
        put(
            table,
            Opcode.INTERRUPT,
            Row(InterruptIn.parse, lambda _node, told, _thread: self._interrupt(told.unique), None),
        )

    # -- who leads

    def start(self) -> None:
        """Call the first to lead."""
        self._call_a_leader()

    def stop(self) -> None:
        """Read no more; `over` is set once all that has been read is answered."""
        self._stopping = True
        if self._leader is not None:
            self._leader.scope.cancel()
        for worker in self.running.values():
            if worker.call is not None and worker.call.opcode in PATIENT:
                worker.scope.cancel()
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        """Note it when the last call is answered that `stop` has left."""
        if self._stopping and not self.running and not self._parked:
            self.over.set()

    def _call_a_leader(self) -> None:
        """Wake somebody who rests, or get somebody new."""
        if self._called:
            return
        self._called = True
        if self._resting:
            task = self._resting.pop().task
            assert task is not None  # noqa: S101 (it rests)
            trio.lowlevel.reschedule(task)
        else:
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        """Lead, wait and rest in turns, until there are enough others."""
        me = Worker()
        self._called = False
        needed = True
        while needed:
            number = errno.EINTR
            try:
                with trio.CancelScope() as me.scope:
                    needed = await self._take_turns(me)
            except Exception:  # beside a cancellation; the verbs let nothing out
                if me.call is None:
                    raise
                log.exception("a call came to a bad end")
                number = errno.EIO
            finally:
                # Also at the very end, when the whole mount is cancelled: nobody may be left to wait for ever.
                call, me.call = me.call, None
                if call is not None:
                    self._device.fail(call.unique, number)
                del call
            if self._stopping:
                self._look_whether_over()
                return

    async def _take_turns(self, me: Worker) -> bool:
        """Do so until the scope of this task is used up, or, which is False, nobody needs this task any more."""
        while not self._stopping:
            if self._parked and self._busy < MAX_RUNNING and (self._leader is not None or self._called):
                await self._wait_for(me, self._unpark())
            elif self._leader is None:
                self._leader = me
                try:
                    call = await self._lead()
                finally:
                    self._leader = None
                if call is None:
                    return False
                self._call_a_leader()
                await self._wait_for(me, call)
                del call
            elif not self._parked and (call := self._serve(LOOKS)) is not None:
                await (self._wait_for(me, call) if self._may_begin(call) else self._park(call))
                del call
            elif len(self._resting) < MAX_RESTING:
                await self._rest(me)
            else:
                return False
            if me.scope.cancel_called:
                return True
        while self._parked and not me.scope.cancel_called:
            await self._wait_for(me, self._unpark())
        return False

    async def _rest(self, me: Worker) -> None:
        """Wait to be called."""
        me.task = trio.lowlevel.current_task()
        self._resting.append(me)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._resting.remove(me)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        self._called = False

    # -- reading

    async def _lead(self) -> Call | None:
        """Read requests and answer them, up to one that has to be waited for; None at the end of the mount."""
        while not self._stopping:
            call = self._serve()
            if call is None:
                if not self._stopping:
                    await trio.lowlevel.wait_readable(self._device.descriptor)
            elif self._may_begin(call):
                return call
            else:
                await self._park(call)
        return None

    def _may_begin(self, call: Call) -> bool:
        """Whether a call may be waited for now."""
        return self._busy < MAX_RUNNING or call.opcode in PATIENT

    def _serve(self, looks: int = 0) -> Call | None:
        """Read requests and answer them; return one that has to be waited for.

        None says that there is no other one now, nor after so many `looks`, or that others are to have their turn.
        """
        turns = SLICE
        while turns and not self._stopping:
            try:
                size = self._device.read()
            except ConnectionAbortedError:
                self._stopping = True
                self.over.set()
                return None
            if size:
                call = self._begin(size)
                if call is not None:
                    return call
                turns, looks = turns - 1, LOOKS
            elif looks:
                looks -= 1
                os.sched_yield()
            else:
                return None
        return None

    def _begin(self, size: int) -> Call | None:
        """Put the request that has been read to its verb, and answer it, unless the verb has to wait."""
        device = self._device
        buffers = device.buffers
        opcode, unique, node, thread = IN_SHORT.unpack_from(buffers.view)
        row = self._table[opcode] if opcode < len(self._table) else None
        if row is None:
            device.fail(unique, errno.ENOSYS)
            return None
        try:
            message = buffers.keep(size) if opcode == _WRITE else buffers.view[:size]
            request = row.parse(message)
            answer = row.begin(node, request, thread)
            if isinstance(answer, CoroutineType):
                return Call(unique, opcode, thread, row, request, answer, size)
            if row.finish is not None:
                device.answer(row.finish(unique, request, answer))
        except OSError as error:
            self._fail(row, unique, error.errno)
        except Exception:
            log.exception("request %d of kind %d cannot be answered", unique, opcode)
            self._fail(row, unique, errno.EIO)
        return None

    def _fail(self, row: Row, unique: int, number: int | None) -> None:
        """Answer with an errno what is answered at all."""
        if row.finish is not None:
            self._device.fail(unique, number)

    # -- waiting

    async def _wait_for(self, me: Worker, call: Call) -> None:
        """Wait for a call's verb, and answer."""
        counts = call.opcode not in PATIENT
        me.call = call
        self.running[call.unique] = me
        self._busy += counts
        try:
            answer = await call.answer
            if call.row.finish is not None:
                self._device.answer(call.row.finish(call.unique, call.request, answer))
            me.call = None
        except OSError as error:
            self._fail(call.row, call.unique, error.errno)
            me.call = None
        except Exception:
            log.exception("request %d of kind %d cannot be answered", call.unique, call.opcode)
            self._fail(call.row, call.unique, errno.EIO)
            me.call = None
        finally:
            del self.running[call.unique]
            self._busy -= counts

    async def _park(self, call: Call) -> None:
        """Let a call wait for its turn; with too much of that, wait for it to become less."""
        self._parked.append(call)
        self._parked_bytes += call.size
        while self._parked_bytes > MAX_PARKED:
            self._room = trio.Event()
            await self._room.wait()

    def _unpark(self) -> Call:
        """Return the call whose turn it is."""
        call = self._parked.popleft()
        self._parked_bytes -= call.size
        self._room.set()
        return call

    # -- signals

    def _interrupt(self, unique: int) -> None:
        """Give a call up whose caller has been asked to end; one that is answered already is none of ours."""
        worker = self.running.get(unique)
        call = worker.call if worker is not None else next((one for one in self._parked if one.unique == unique), None)
        if call is None:
            return
        if call.opcode in PATIENT or interrupts.asked_to_end(call.thread):
            self._give_up(call)
        else:
            self._nursery.start_soon(self._watch, call)

    async def _watch(self, call: Call) -> None:
        """Look whether a caller who had another signal is asked to end later, for as long as the call lasts."""
        while True:
            await trio.sleep(interrupts.LOOK_AGAIN)
            worker = self.running.get(call.unique)
            if (worker is None or worker.call is not call) and call not in self._parked:
                return
            if interrupts.asked_to_end(call.thread):
                self._give_up(call)
                return

    def _give_up(self, call: Call) -> None:
        """Cancel a call, which is answered with EINTR."""
        worker = self.running.get(call.unique)
        if worker is not None:
            worker.scope.cancel()
        else:
            self._parked.remove(call)
            self._parked_bytes -= call.size
            self._room.set()
            call.answer.close()
            self._device.fail(call.unique, errno.EINTR)
