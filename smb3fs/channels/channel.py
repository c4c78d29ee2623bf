"""One channel: a transport with the protocol state on it, one reader, one writer and one watchdog.

Callers never touch the transport's waiting side: `submit` encodes and sends at once what credits and the socket allow,
synchronously, so that requests leave in the order in which they were submitted and a cancelled caller cannot cut a
message in half; what is left goes to the writer task. Only what nobody is in a hurry about is put off, to the next
request or to the moment when all tasks that could run have run. A caller that is cancelled leaves an orphan behind:
the server is asked to cancel, and if the answer turns out to be a handle, the handle is closed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final

import outcome
import trio

from smb3fs.channels.transport import Transport
from smb3fs.connection import Answer, Completed, Connection, Event, Exchange, Unsolicited
from smb3fs.errors import ConnectionLost, SecurityError, Smb3fsError, WireError
from smb3fs.trace import Trace
from smb3fs.wire.codec import Buffer
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import AccessMask, CreateOptions, CreateRequest, CreateResponse, Disposition
from smb3fs.wire.header import Command
from smb3fs.wire.interfaces import Address
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import Break, parse_break

# Messages that the reader may take in a row before it lets other tasks run: about a millisecond of work.
BURST: Final = 32
WATCH_INTERVAL: Final = 1.0
# Seconds without an answer after which it is worth telling, unless so many bytes move that it can only be data.
SILENT_AFTER: Final = 2.0
# Bytes that show that a path is alive which has brought no answer.
SIGN_OF_LIFE: Final = 64 * 1024
# How many messages may be put off at a time.
MOST_PUT_OFF: Final = 16
# What an open may do that does not mind who else has the file open. Plain ints: arithmetic with enum's flags costs
# microseconds.
READING: Final = int(AccessMask.READ_DATA | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
FILE_ONLY: Final = int(CreateOptions.NON_DIRECTORY_FILE)
# After the machine slept, an answer must come this soon, or the server has forgotten us.
AFTER_SLEEP: Final = 3.0


class Channel:
    """One live connection. Times are in seconds of trio's clock."""

    def __init__(
        self,
        transport: Transport,
        trace: Trace,
        *,
        timeout: float,
        echo_interval: float,
        on_lost: Callable[[Channel, Smb3fsError], None],
        on_break: Callable[[Channel, Break], None] | None = None,
    ) -> None:
        """`on_lost` is told once why the channel has ended, `on_break` of every lease or oplock that is taken back."""
        self.transport = transport
        self.ends = (_address(transport.ends[0]), _address(transport.ends[1]))
        """The addresses of this end and of the other."""
        self.connection = Connection()
        self.error: Smb3fsError | None = None
        # What was not answered, or not even sent, when the channel ended, and whether somebody waited for it.
        self.left: dict[Exchange, bool] = {}
        self.silent = False
        """Whether the server owes an answer, and no data have moved for a while."""
        self._trace = trace
        self._timeout = timeout
        self._dead_after = timeout / 2
        self._echo_interval = echo_interval
        self._on_lost = on_lost
        self._on_break = on_break
        self._queue: deque[Exchange] = deque()
        self._urgent: deque[Exchange] = deque()
        self._put_off: list[Exchange] = []
        self._backlog: list[Buffer] = []
        self._wake_writer = trio.Event()
        self._waiters: dict[Exchange, trio.lowlevel.Task] = {}
        self._unwaited: dict[Exchange, float] = {}
        self._echo: Exchange | None = None
        self._last_received = trio.current_time()
        self._waiting_since = self._last_received
        self._suspect_since: float | None = None
        self._moved = 0
        self._scope = trio.CancelScope()

    @property
    def in_flight(self) -> int:
        """How many requests wait for the server."""
        return self.connection.pending

    @property
    def bytes_in_flight(self) -> int:
        """About how many bytes these ask for or carry."""
        return sum(
            request.credit_size
            for exchange in self.connection.exchanges()
            for request, answer in zip(exchange.requests, exchange.answers, strict=True)
            if answer is None
        )

    @property
    def given_up(self) -> int:
        """How many of them nobody waits for any more, while the server, which has put them off, says no more."""
        return sum(one.missing for one in self._unwaited if one.put_off and one not in self._waiters)

    @property
    def last_received(self) -> float:
        """When a message came in last, or the channel began."""
        return self._last_received

    def silence(self, now: float) -> float:
        """Return for how many seconds nothing has come of what the server has not put off; 0 if there is no such."""
        return now - max(self._last_received, self._waiting_since) if self.connection.awaited else 0.0

    @property
    def short_of_credits(self) -> bool:
        """Whether requests wait to be sent, so that what nobody needs yet had better not be asked for."""
        return bool(self._queue)

    @property
    def congested(self) -> bool:
        """Whether what is submitted now would have to wait until it is sent."""
        return bool(self._queue or self._urgent or self._backlog)

    @property
    def tied(self) -> bool:
        """Whether something is under way that nobody waits for, and that is no look ahead: the next goes behind it.

        What the server has said to take its time for is overtaken in any case.
        """
        return any(
            exchange.ahead is None and exchange is not self._echo and not exchange.put_off
            for exchange in self._unwaited
        )

    async def run(self) -> None:
        """Move messages until the connection ends; never raises what the peer or the link did."""
        with self._scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch)
                    await self._read()
            finally:
                self.fail(ConnectionLost("the channel was closed"))

    def fail(self, error: Smb3fsError) -> None:
        """End the channel: everyone who waits gets ConnectionLost, and the owner is told once why."""
        if self.error is not None:
            return
        self.error = error
        unanswered = (*self.connection.exchanges(), *self._urgent, *self._queue, *self._put_off)
        self.left = {exchange: exchange in self._waiters for exchange in unanswered}
        self.connection.lost()
        self._queue.clear()
        self._urgent.clear()
        self._put_off.clear()
        unwaited, self._unwaited = self._unwaited, {}
        waiters, self._waiters = self._waiters, {}
        for exchange, task in waiters.items():
            lost = ConnectionLost(str(error), sent=exchange.sent)
            lost.__cause__ = error
            trio.lowlevel.reschedule(task, outcome.Error(lost))
        for exchange in unwaited:
            if exchange.ahead is not None:
                exchange.ahead(None)
        self._scope.cancel()
        # Not closed before: what the kernel holds would still be sent then, when the link is back, and be carried out
        # behind its repetition. A session that goes on without this channel resets it.
        self._on_lost(self, error)
        self.transport.close()

    def submit(self, exchange: Exchange) -> None:
        """Send an exchange, or queue it until there are credits; raises ConnectionLost when the channel has ended."""
        if self.error is not None:
            raise ConnectionLost(str(self.error), sent=False) from self.error
        if not self.connection.awaited:
            self._waiting_since = trio.current_time()
        self._trace.exchange(exchange.commands, waited=exchange.waited)
        if self._put_off and not _only_reads(exchange) and any(one.ahead is None for one in self._put_off):
            self._let_go()
        (self._urgent if exchange.urgent else self._queue).append(exchange)
        self._pump()

    def post(self, exchange: Exchange, *, hurry: bool = True) -> None:
        """Send an exchange whose answer nobody waits for; does nothing when the channel has ended.

        Without `hurry` it goes in a moment: together with the next request, and behind it if that one only opens a file
        to read it. The server then sees first to what somebody waits for, and each side is interrupted once less. That
        is for the CLOSE of what was open for reading; whatever might find out that it is still open goes behind it. And
        for what is asked ahead of the need, which goes behind anything.
        """
        exchange.waited = False
        if self.error is not None:
            return
        self._unwaited[exchange] = trio.current_time()
        if hurry:
            self.submit(exchange)
            return
        self._trace.exchange(exchange.commands, waited=False)
        self._put_off.append(exchange)
        if len(self._put_off) == MOST_PUT_OFF:
            self._let_go()
        else:
            self._wake_writer.set()

    def _let_go(self) -> None:
        """Send what was put off."""
        self._urgent.extend(self._put_off)
        self._put_off.clear()
        self._pump()

    async def call(self, exchange: Exchange) -> list[Answer]:
        """Send an exchange and return the answers to its requests, in their order."""
        self.submit(exchange)
        return await self._answers(exchange)

    async def see_through(self, exchange: Exchange) -> list[Answer]:
        """Do as `call` does, but stay for the answers when cancelled: the server is asked to cancel, and says what was.

        So the caller always knows what was done, unless ConnectionLost says that nobody does. It learns of its
        cancellation at its next checkpoint.
        """
        self.submit(exchange)
        if self.error is not None:
            raise ConnectionLost(str(self.error), sent=exchange.sent) from self.error

        def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
            if not exchange.sent:
                self._abandon(exchange)
                return trio.lowlevel.Abort.SUCCEEDED
            self._unwaited[exchange] = trio.current_time()
            self._cancel(exchange)
            return trio.lowlevel.Abort.FAILED

        self._waiters[exchange] = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._unwaited.pop(exchange, None)
        return [answer for answer in exchange.answers if answer is not None]

    def holds(self, exchange: Exchange) -> bool:
        """Whether an exchange that was posted is on this channel, answered or not."""
        return exchange.session is self.connection.session

    async def collect(self, exchange: Exchange) -> list[Answer]:
        """Return the answers to an exchange that was posted ahead of the need, waiting for those that are not in."""
        if exchange.sent and not exchange.missing:
            await trio.lowlevel.checkpoint()
            return [answer for answer in exchange.answers if answer is not None]
        self._unwaited.pop(exchange, None)
        return await self._answers(exchange)

    async def _answers(self, exchange: Exchange) -> list[Answer]:
        """Wait for the answers to an exchange that was submitted."""
        if self.error is not None:  # sending it broke the connection
            raise ConnectionLost(str(self.error), sent=exchange.sent) from self.error

        def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
            self._abandon(exchange)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiters[exchange] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        return [answer for answer in exchange.answers if answer is not None]

    def _abandon(self, exchange: Exchange) -> None:
        """Forget a caller that stopped waiting; what it asked for may still happen."""
        self._waiters.pop(exchange, None)
        if not exchange.sent:
            (self._urgent if exchange.urgent else self._queue).remove(exchange)
            self._pump()  # what stood behind it may cost less
            return
        exchange.forsaken = True
        self._unwaited[exchange] = trio.current_time()
        self._cancel(exchange)

    def _cancel(self, exchange: Exchange) -> None:
        """Ask the server to give up what it has not answered."""
        for message in self.connection.cancel(exchange):
            self._trace.exchange([Command.CANCEL.name], waited=False)
            self._send(message)

    def _pump(self) -> None:
        """Send from the queues what the credits and the socket allow; called whenever either may have changed."""
        while not self._backlog and self.error is None:
            queue = self._urgent or self._queue
            if not queue:
                return
            try:
                message = self.connection.prepare(queue[0])
            except Smb3fsError as error:
                self.fail(error)
                return
            if message is None:
                return
            queue.popleft()
            self._send(message, *self._company())

    def _company(self) -> Iterator[list[Buffer]]:
        """Yield the messages that were put off, as far as the credits suffice."""
        while self._put_off:
            message = self.connection.prepare(self._put_off[0])
            if message is None:
                return
            del self._put_off[0]
            yield message

    def _send(self, *messages: list[Buffer]) -> None:
        """Send messages now, or leave their rest to the writer."""
        if self._backlog:
            # Only a CANCEL comes here past a full socket; it is dropped, and the request runs to its end.
            return
        try:
            self._backlog = self.transport.send_now(*messages)
        except ConnectionLost as error:
            self.fail(error)
            return
        if self._backlog:
            self._wake_writer.set()

    async def _write(self) -> None:
        """Send what the socket did not take at once, and what was put off and has had no company."""
        while True:
            await self._wake_writer.wait()
            self._wake_writer = trio.Event()
            if self._backlog:
                try:
                    await self.transport.send_rest(self._backlog)
                except ConnectionLost as error:
                    self.fail(error)
                    return
                self._backlog = []
                self._pump()
            if self._put_off:
                # What has begun to run since may have something to send, and takes this along.
                await trio.lowlevel.checkpoint()
                self._let_go()

    async def _read(self) -> None:
        """Take in messages and hand answers to whoever waits."""
        burst = 0
        while True:
            try:
                message = await self.transport.receive()
                events = self.connection.receive(message)
            except (ConnectionLost, WireError, SecurityError) as error:
                self.fail(error)
                return
            self._last_received = trio.current_time()
            self._suspect_since = None
            for event in events:
                self._handle(event)
            self._pump()
            burst += 1
            if burst >= BURST:
                burst = 0
                await trio.lowlevel.checkpoint()

    def _handle(self, event: Event) -> None:
        """Act on one event of the connection."""
        if not isinstance(event, Completed):
            self._take_break(event)
            return
        exchange = event.exchange
        task = self._waiters.pop(exchange, None)
        if task is not None:
            trio.lowlevel.reschedule(task)
            return
        self._unwaited.pop(exchange, None)
        if exchange.done is not None:
            exchange.done()
        if exchange.ahead is not None:
            exchange.ahead(exchange.answers)
        if exchange is self._echo:
            self._echo = None
        if exchange.waited:
            self._close_orphan(exchange)

    def _take_break(self, event: Unsolicited) -> None:
        """Hand up what the server sent unasked; nothing but a break is sent so."""
        try:
            if event.header.command != Command.OPLOCK_BREAK:
                raise WireError(f"the server sent command {event.header.command} unasked")
            told = parse_break(event.pdu)
        except WireError as error:
            self.fail(error)
            return
        if self._on_break is not None:
            self._on_break(self, told)

    def _close_orphan(self, exchange: Exchange) -> None:
        """Close the handle that an abandoned CREATE was granted after all ([MS-SMB2] 3.2.4.24)."""
        first, answer = exchange.requests[0], exchange.answers[0]
        if first.command != Command.CREATE or answer is None or answer.status != 0:
            return
        if any(
            request.command == Command.CLOSE and closed is not None and closed.status == 0
            for request, closed in zip(exchange.requests, exchange.answers, strict=True)
        ):
            return
        try:
            file_id = CreateResponse.parse(answer.pdu).file_id
        except WireError as error:
            self.fail(error)
            return
        close = CloseRequest(file_id)
        self.post(
            Exchange([close], tree_id=exchange.tree_id, session=exchange.session, seal=exchange.seal, urgent=True)
        )

    def ask(self) -> None:
        """Ask whether the server is there, unless that is under way."""
        if self._echo is None:
            self._echo = Exchange([EchoRequest()], urgent=True, waited=False, session=self.connection.session)
            self.post(self._echo)

    async def _watch(self) -> None:
        """Notice a dead link: ask after a silence, and give the channel up when that is not answered either."""
        slept = _time_asleep()
        while True:
            await trio.sleep(WATCH_INTERVAL)
            now, slept_before, slept = trio.current_time(), slept, _time_asleep()
            if slept - slept_before > WATCH_INTERVAL:
                self._suspect_since = now
            self.check(now)

    def check(self, now: float) -> None:
        """Judge the channel's health at the time `now`."""
        if self._suspect_since is not None and now - self._suspect_since > AFTER_SLEEP:
            self.fail(ConnectionLost(f"the machine slept, and the server did not answer within {AFTER_SLEEP:.0f} s"))
            return
        silence = now - max(self._last_received, self._waiting_since)
        self._note_silence(silence)
        if self.connection.pending:
            # What waits for another client, a lock, may do so for hours; whether the server is there is asked apart.
            if silence > self._dead_after and self.connection.awaited:
                self.fail(ConnectionLost(f"the server did not answer for {silence:.0f} s"))
                return
            ask = silence > self._dead_after / 3
        else:
            # Whoever is queued with nothing on its way lacks credits, which only an answer can bring.
            ask = bool(self._queue or self._urgent) or now - self._last_received > self._echo_interval
        overdue = [
            exchange
            for exchange, since in self._unwaited.items()
            if now - since > self._timeout and (exchange in self._waiters or not exchange.put_off)
        ]
        if overdue:
            # The oldest is what the others may have waited for.
            commands = ", ".join(overdue[0].commands)
            self.fail(ConnectionLost(f"the server did not answer {commands} for {self._timeout:.0f} s"))
            return
        if ask or self._suspect_since is not None:
            self.ask()

    def _note_silence(self, seconds: float) -> None:
        """Tell when the server has fallen silent, and when it answers again."""
        before, self._moved = self._moved, self.transport.progress()
        silent = bool(self.connection.awaited) and seconds > SILENT_AFTER and self._moved - before < SIGN_OF_LIFE
        if silent != self.silent:
            self.silent = silent
            what = f"is silent for {seconds:.0f} s" if silent else "is silent no more"
            self._trace.event(time.time(), f"connection {self.transport.description} {what}")


def _address(text: str) -> Address | None:
    """Return an address, None for what is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _only_reads(exchange: Exchange) -> bool:
    """Whether an exchange opens a file that is there, for reading and nothing else."""
    first = exchange.requests[0]
    return (
        isinstance(first, CreateRequest)
        and first.disposition == Disposition.OPEN
        and not first.desired_access & ~READING
        and bool(int(first.create_options) & FILE_ONLY)
    )


def _time_asleep() -> float:
    """Return how long the machine has slept since it booted, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
