"""Verbs about the contents of open files: reading, in earnest and ahead of the need, writing, and flushing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Smb3fsError, Status, StatusError, WireError
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import Chains, basic_information, raise_first, set_info
from smb3fs.wire.codec import Buffer
from smb3fs.wire.header import Request
from smb3fs.wire.io import FlushRequest, ReadRequest, ReadResponse, WriteRequest, WriteResponse

# What is written and followed by something else in one chain is no larger: it goes without a credit more.
AT_ONCE: Final = 64 << 10


class Data(Chains):
    """What can be done to the contents of an open file."""

    async def read(self, handle: Open, offset: int, size: int) -> memoryview:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        session = await self._pool.ready(handle)
        limit = session.payload_limit(min(session.agreed.max_read, self._rsize))
        data = await self._read(handle, offset, min(size, limit))
        if size <= limit or len(data) < limit:
            return data
        parts = bytearray(data)
        while len(parts) < size:
            data = await self._read(handle, offset + len(parts), min(size - len(parts), limit))
            if not data:
                break
            parts += data
        return memoryview(parts)

    async def _read(self, handle: Open, offset: int, size: int) -> memoryview:
        """Read with one request."""
        chain = [ReadRequest(handle.file_id, offset, size)]
        _, (answer,) = await self._pool.call(chain, handle=handle, repeat=Repeat.SAFE)
        if answer.status == Status.END_OF_FILE:
            return memoryview(b"")
        raise_first(chain, [answer])
        return self._data(answer, size)

    def read_ahead(
        self, handle: Open, offset: int, size: int, came: Callable[[memoryview | None], None], least: int = 0
    ) -> int:
        """Ask for bytes that nobody waits for yet; return for how many, or 0 if this is not the time for it.

        Of what somebody does wait for, `least` bytes are asked for even where the channels have enough to do. `came` is
        called once with the data, fewer than were asked for only at the end of the file, or with None if
        there are none to be had: who needs them then finds out why.
        """
        session = self._pool.session
        if session is None or not size:
            return 0
        allotted = session.allot(min(session.agreed.max_read, self._rsize), min(least, size))
        if allotted is None:
            return 0
        channel, asked = allotted[0], min(size, allotted[1])

        def told(answers: Sequence[Answer | None] | None) -> None:
            answer = answers[0] if answers else None
            data = None
            # What makes no sense is reported by whoever asks for it in earnest.
            with suppress(WireError):
                data = self._head(answer, asked) if answer is not None else None
            came(data)

        request = ReadRequest(handle.file_id, offset, asked)
        return asked if self._pool.read_ahead(request, handle, told, channel) else 0

    def _head(self, answer: Answer, size: int) -> memoryview | None:
        """Return what was read ahead; None where it cannot be read just now, which the next read will explain."""
        if answer.status == Status.END_OF_FILE:
            return memoryview(b"")
        return self._data(answer, size) if answer.status == Status.SUCCESS else None

    def _data(self, answer: Answer, size: int) -> memoryview:
        """Return the data of an answer to a READ of `size` bytes."""
        data = ReadResponse.parse(answer.pdu).data
        if len(data) > size:
            raise WireError(f"the server sent {len(data)} bytes where {size} were asked for")
        self._trace.bytes_read += len(data)
        return data

    async def write(
        self,
        handle: Open,
        offset: int,
        data: Buffer,
        *,
        spread: bool = False,
        check: Callable[[], None] | None = None,
    ) -> int:
        """Write all of `data` at `offset` and return its length.

        Where there are several links and `spread` permits it, parts of it go side by side; if it fails then, any of
        them may have been written. `check` raises what forbids it, each time that something is about to be sent: see
        `Pool.call`.
        """
        session = await self._pool.ready(handle)
        limit = session.payload_limit(min(session.agreed.max_write, self._wsize))
        view = memoryview(data)
        parts = session.divide(len(view)) if spread else ()
        if len(parts) <= 1:
            return await self._write(handle, offset, view, limit, check)
        failures: list[OSError | Smb3fsError] = []

        async def write(start: int, size: int, channel: Channel | None) -> None:
            try:
                await self._write(handle, offset + start, view[start : start + size], limit, check, channel)
            except (OSError, Smb3fsError) as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            start = 0
            for channel, size in parts:
                nursery.start_soon(write, start, size, channel)
                start += size
        if failures:
            raise failures[0]
        return len(view)

    async def _write(
        self,
        handle: Open,
        offset: int,
        view: memoryview,
        limit: int,
        check: Callable[[], None] | None,
        channel: Channel | None = None,
    ) -> int:
        """Write all of `view`, by a channel if told, as much with one request as the limit permits."""
        done = 0
        while done < len(view):
            part = view[done : done + limit]
            request = WriteRequest(handle.file_id, offset + done, part)
            answers = await self._on(handle, [request], Repeat.REPLAY, check, channel)
            done += self._written(handle, answers[0], len(part))
        return done

    def _written(self, handle: Open, answer: Answer, size: int) -> int:
        """Take in the answer to a WRITE of so many bytes; how many of them were written."""
        count = WriteResponse.parse(answer.pdu).count
        if not 0 < count <= size:
            raise WireError(f"the server claims to have written {count} bytes of {size}")
        handle.note_change()
        self._trace.bytes_written += count
        return count

    async def write_and_set(
        self, handle: Open, offset: int, data: Buffer, wish: Basics, *, check: Callable[[], None] | None = None
    ) -> FileAttributes | None:
        """Write as `write` does, then set times and bits; where one request takes the data, in one round trip.

        None says that all was written, and these are not set: who asks for that alone finds out why.
        """
        session = await self._pool.ready(handle)
        if len(data) > session.payload_limit(min(session.agreed.max_write, self._wsize, AT_ONCE)):
            await self.write(handle, offset, data, spread=True, check=check)
            return None
        query = self._query(handle)
        chain: list[Request] = [
            WriteRequest(handle.file_id, offset, memoryview(data)),
            set_info(basic_information(wish), handle),
            query,
        ]
        _, answers = await self._pool.call(chain, handle=handle, repeat=Repeat.REPLAY, check=check)
        raise_first(chain[:1], answers[:1])
        done = self._written(handle, answers[0], len(data))
        if done < len(data):
            await self.write(handle, offset + done, memoryview(data)[done:], check=check)
            return None
        try:  # what was written has arrived, whatever the rest of the answer is
            raise_first(chain, answers)
            handle.seen = self._told(answers[2], query)
        except (StatusError, WireError):
            return None
        return handle.seen

    async def flush(self, handle: Open) -> None:
        """Have the server put what was written onto its disk."""
        await self._on(handle, [FlushRequest(handle.file_id)], Repeat.SAFE)
