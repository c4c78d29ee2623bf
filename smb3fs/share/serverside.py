"""Verbs that have the server work on data by itself: copies that never come here, and where the holes are.

A copy goes by FSCTL_SRV_COPYCHUNK_WRITE ([MS-SMB2] 3.3.5.15.6): a key stands for the source, and each request names
parts of it. Several requests are under way at a time, each for bytes of its own, so the order in which the server does
them does not matter. Their answers are waited for whatever happens: what returns to a program, or is interrupted, is
over, and nothing is written to its file by a copy of its any more.

Where the server will not copy, EOPNOTSUPP says so before anything is done, and the kernel copies through this machine,
as it does for a source whose end has come nearer meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Smb3fsError, Status, StatusError, WireError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import raise_first
from smb3fs.share.cloning import LEAST_CLUSTER, Cloning
from smb3fs.wire.header import Command, Request
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.serverside import (
    COPIED_SIZE,
    FSCTL_QUERY_ALLOCATED_RANGES,
    FSCTL_SRV_COPYCHUNK_WRITE,
    FSCTL_SRV_REQUEST_RESUME_KEY,
    RANGE_SIZE,
    RESUME_KEY_ROOM,
    AllocatedRange,
    Chunk,
    CopyChunks,
    CopyChunksDone,
    ResumeKey,
    allocated_ranges,
)

# What Windows and smbd allow in one request; others say in their answer what they allow.
USUAL_LIMITS: Final = CopyChunksDone(256, 1 << 20, 16 << 20)
# Requests of one copy that are under way at a time.
REQUESTS_AT_A_TIME: Final = 4
# By these a server says that it does not copy, or not this: other sessions' files, a key it does not know, a source
# that has become shorter. The kernel then reads and writes, and learns by that what is the matter.
NO_COPY: Final = frozenset(
    {
        Status.INVALID_DEVICE_REQUEST,
        Status.NOT_SUPPORTED,
        Status.NOT_IMPLEMENTED,
        Status.INVALID_PARAMETER,
        Status.INVALID_VIEW_SIZE,
        Status.OBJECT_NAME_NOT_FOUND,
        Status.ACCESS_DENIED,
    }
)
# ... and by these that it will not copy anything, ever.
NO_COPIES: Final = frozenset({Status.INVALID_DEVICE_REQUEST, Status.NOT_SUPPORTED, Status.NOT_IMPLEMENTED})
# Room for so many bytes of ranges, which one credit pays for.
RANGES_ROOM: Final = 65536 // RANGE_SIZE * RANGE_SIZE
# The last offset that a file can have.
MAX_OFFSET: Final = 2**63 - 1


def unsupported() -> OSError:
    """Return the error on which a caller looks for another way."""
    return OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class ServerSide(Cloning):
    """What the server does with contents by itself."""

    _copies = True
    """Whether the server has not shown yet that it does not copy."""
    _limits = USUAL_LIMITS

    # -- copies

    async def copy(self, source: Open, offset: int, target: Open, target_offset: int, size: int) -> int:
        """Have the server copy up to `size` bytes; return how many it has, 0 at the end of the source.

        That may be less than all: a few requests' worth is copied by one call. EXDEV for files of different sessions,
        EOPNOTSUPP where the server does not copy. The ranges must not overlap.
        """
        if source.generation != target.generation:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if not self._copies:
            raise unsupported()
        key, told = await self._source(source)
        size = min(size, told.size - offset)
        if size <= 0:
            return 0
        generation = source.generation

        async def grow(distance: int, length: int) -> bool:
            """Copy the last of what is to be shared."""
            place = offset + distance, target, target_offset + distance
            return await self._copy_chunks(key, generation, *place, length) == length

        done = await self._clone(source, told, offset, target, target_offset, size, grow)
        if not done:
            # Up to where sharing can begin.
            cluster = self._cluster or LEAST_CLUSTER
            head = -offset % cluster
            if self._refcounting is not False and head == -target_offset % cluster and 0 < head <= size - cluster:
                size = head
            done = await self._copy_chunks(key, generation, offset, target, target_offset, size)
        self._trace.bytes_copied += done
        return done

    async def _copy_chunks(
        self, key: bytes, generation: int, offset: int, target: Open, target_offset: int, size: int
    ) -> int:
        """Copy by chunks what a few requests can; return how much that was."""
        while True:
            limits = self._limits
            pieces = list(islice(_pieces(limits, offset, target_offset, size), REQUESTS_AT_A_TIME))
            inputs = [CopyChunks(key, chunks).encode() for chunks in pieces]
            outcomes = await self._all_of(
                target,
                generation,
                [IoctlRequest(FSCTL_SRV_COPYCHUNK_WRITE, target.file_id, input_, COPIED_SIZE) for input_ in inputs],
            )
            target.note_change()
            done = 0
            failure: Smb3fsError | None = None
            for chunks, outcome in zip(pieces, outcomes, strict=True):
                wanted = sum(chunk.length for chunk in chunks)
                count = self._copied(outcome, wanted)
                if isinstance(count, Smb3fsError):
                    failure = count
                    break
                done += count
                if count < wanted:
                    break
            if done:
                return done
            if self._limits == limits:
                raise _as_refusal(failure)

    async def _source(self, source: Open) -> tuple[bytes, FileAttributes]:
        """Return the key of a source, and what it is like; one round trip."""
        query = self._query(source)
        # In this order: smbd answers the control later, and refuses what it would do so with in the midst of a chain.
        chain: list[Request] = [
            query,
            IoctlRequest(FSCTL_SRV_REQUEST_RESUME_KEY, source.file_id, b"", RESUME_KEY_ROOM),
        ]
        try:
            answers = await self._on(source, chain, Repeat.SAFE)
        except StatusError as error:
            self._copies = error.status not in NO_COPIES
            raise _as_refusal(error) from error
        return ResumeKey.parse(IoctlResponse.parse(answers[1].pdu).output).key, self._told(answers[0], query)

    def _copied(self, outcome: Answer | Smb3fsError, wanted: int) -> int | Smb3fsError:
        """Return how much a request has copied, or why nothing; learn from it what may be asked for."""
        if isinstance(outcome, Smb3fsError):
            return outcome
        if outcome.status == Status.SUCCESS:
            count = CopyChunksDone.parse(IoctlResponse.parse(outcome.pdu).output).total_bytes
            if not 0 < count <= wanted:
                return WireError(f"the server claims to have copied {count} bytes of {wanted}")
            return count
        if outcome.status == Status.INVALID_PARAMETER:
            self._learn_limits(outcome)
        elif outcome.status in NO_COPIES:
            self._copies = False
        return StatusError(outcome.status, Command.IOCTL.name)

    def _learn_limits(self, answer: Answer) -> None:
        """Take over lower limits from the answer to a request that was too large; without any there is an error."""
        try:
            told = CopyChunksDone.parse(IoctlResponse.parse(answer.pdu).output)
        except WireError:
            return
        lower = CopyChunksDone._make(map(min, told, self._limits))
        if all(lower):
            self._limits = lower

    # -- holes

    async def seek(self, handle: Open, offset: int, *, hole: bool) -> int:
        """Return where the next data, or the next hole, begins at or behind `offset`; ENXIO if there is none.

        The end of the file is a hole. What the server does not tell of its holes counts as data.
        """
        position, window = offset, MAX_OFFSET
        while True:
            length = min(window, MAX_OFFSET - position)
            asked = AllocatedRange(position, length).encode()
            query = self._query(handle)
            chain: list[Request] = [
                query,
                IoctlRequest(FSCTL_QUERY_ALLOCATED_RANGES, handle.file_id, asked, RANGES_ROOM),
            ]
            _, answers = await self._pool.call(chain, handle=handle, repeat=Repeat.SAFE)
            raise_first(chain[:1], answers[:1])
            size = self._told(answers[0], query).size
            if offset >= size:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            status = answers[1].status
            if status == Status.BUFFER_TOO_SMALL and min(length, size - position) > 1:
                # smbd tells all ranges or none.
                window = min(length, size - position) // 2
                continue
            if status not in (Status.SUCCESS, Status.BUFFER_OVERFLOW):
                return size if hole else position
            ranges = allocated_ranges(IoctlResponse.parse(answers[1].pdu).output)
            # How far the answer goes: up to its last range where there was no room for more.
            known = position + length
            if status == Status.BUFFER_OVERFLOW:
                known = max((told.offset + told.length for told in ranges), default=position)
            window *= 2
            found, position = _first(ranges, position, min(known, size), hole=hole)
            if found:
                return position
            if position >= size:
                if hole:
                    return size
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def _first(ranges: Sequence[AllocatedRange], position: int, known: int, *, hole: bool) -> tuple[bool, int]:
    """Return whether there is data, or a hole, between `position` and `known`, and where; or where to look on.

    Raises WireError for ranges by which there is no getting on.
    """
    covered = position
    for told in ranges:
        end = told.offset + told.length
        if end <= covered:
            continue
        if told.offset >= known:
            break
        if hole:
            if told.offset > covered:
                break
            covered = end
        else:
            return True, max(position, told.offset)
    if hole and covered < known:
        return True, covered
    onward = max(covered, known)
    if onward <= position:
        raise WireError("the server tells of no range, and that there are more")
    return False, onward


def _pieces(limits: CopyChunksDone, offset: int, target_offset: int, size: int) -> Iterator[list[Chunk]]:
    """Yield the chunks of one request after the other."""
    end = offset + size
    while offset < end:
        room = limits.total_bytes
        chunks: list[Chunk] = []
        while room and offset < end and len(chunks) < limits.chunks:
            length = min(limits.chunk_bytes, room, end - offset)
            chunks.append(Chunk(offset, target_offset, length))
            offset, target_offset, room = offset + length, target_offset + length, room - length
        yield chunks


def _as_refusal(error: Smb3fsError | None) -> Exception:
    """Return the error to raise where nothing was copied: EOPNOTSUPP if there is another way."""
    if isinstance(error, StatusError) and error.status in NO_COPY:
        return unsupported()
    return error or WireError("nothing was copied")
