"""Copies that take no space: the server lets two files have their blocks in common, until one of them is changed.

By FSCTL_DUPLICATE_EXTENTS_TO_FILE ([MS-FSCC] 2.3.7, [MS-FSA] 2.1.5.10.4), on volumes that say that they can do so. It
is asked for whole clusters only, and for what the target is long enough to take: smbd, as Windows, says success when it
has left out what was behind the target's end. Where the target is too short, its last cluster is copied first by the
other control, which makes it longer, and can never make it shorter as setting a size could.

The length is looked at before. Who makes the target shorter between that and the request does what he might have done
just after it: the outcome is the same, so the whole was copied by then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import FS_ATTRIBUTE_ROOM, Chains, raise_first
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.header import Command, Request
from smb3fs.wire.infoclass import (
    FILE_SUPPORTS_BLOCK_REFCOUNTING,
    FileFsAttributeInformation,
    FileFsFullSizeInformation,
)
from smb3fs.wire.ioctl import IoctlRequest
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse
from smb3fs.wire.serverside import FSCTL_DUPLICATE_EXTENTS_TO_FILE, DuplicateExtents

# How much is asked for at a time: the server may have to write the source to its disk first.
MOST_AT_ONCE: Final = 64 << 20
# smbd tells units of 1,024 bytes or so, whatever its disk has: no file system that shares blocks has smaller ones.
LEAST_CLUSTER: Final = 4096
# Larger ones than this nobody has.
MOST_CLUSTER: Final = 2 << 20
# By these a server says that it will not do this at all, whatever it has told of the volume.
NEVER: Final = frozenset({Status.INVALID_DEVICE_REQUEST, Status.NOT_IMPLEMENTED})
# After these there is no point in asking for the same in another way.
GIVEN_UP: Final = frozenset({Status.CANCELLED, Status.IO_TIMEOUT})
SPARSE_FILE: Final = int(FileAttribute.SPARSE_FILE)


class Cloning(Chains):
    """What makes a target share the blocks of a source."""

    _cluster = 0
    """The unit in which blocks are shared; 0 as long as it has not been asked for."""

    async def _clone(
        self,
        source: Open,
        told: FileAttributes,
        offset: int,
        target: Open,
        target_offset: int,
        size: int,
        grow: Callable[[int, int], Awaitable[bool]],
    ) -> int:
        """Have the target share what it can at the beginning of a range; return how many bytes, 0 if none.

        `told` is what the source is like, and the range ends where it does at the latest. `grow` copies a number of
        bytes that begin so far into the range, and returns whether that was done in full.
        """
        if (
            self._refcounting is False
            or offset % LEAST_CLUSTER
            or target_offset % LEAST_CLUSTER
            or size < LEAST_CLUSTER
        ):
            return 0
        generation = source.generation
        before = await self._target(target)
        if not self._refcounting:
            return 0
        cluster = self._cluster
        size = min(size, MOST_AT_ONCE) // cluster * cluster
        # One of two sorts is not let in among the other: which one is, servers and specification see differently.
        alike = not (told.attributes ^ before.attributes) & SPARSE_FILE
        if offset % cluster or target_offset % cluster or not size or not alike:
            return 0
        if before.size < target_offset + size and not await grow(size - cluster, cluster):
            return 0
        asked = DuplicateExtents(source.file_id, offset, target_offset, size).encode()
        request = IoctlRequest(FSCTL_DUPLICATE_EXTENTS_TO_FILE, target.file_id, asked, 0)
        (outcome,) = await self._all_of(target, generation, [request])
        target.note_change()
        if isinstance(outcome, Smb3fsError):
            raise outcome
        if outcome.status != Status.SUCCESS:
            if outcome.status in GIVEN_UP:
                raise StatusError(outcome.status, Command.IOCTL.name)
            self._refcounting = outcome.status not in NEVER
            return 0
        self._trace.bytes_shared += size
        return size

    async def _target(self, target: Open) -> FileAttributes:
        """Return what a target is like; ask what its volume is like, too, unless that is known."""
        query = self._query(target)
        chain: list[Request] = [query]
        known = self._cluster
        if not known:
            for kind, room in ((FileFsAttributeInformation, FS_ATTRIBUTE_ROOM), (FileFsFullSizeInformation, 32)):
                chain.append(QueryInfoRequest(target.file_id, InfoType.FILESYSTEM, kind.information_class, room))
        _, answers = await self._pool.call(chain, handle=target, repeat=Repeat.SAFE)
        raise_first(chain[:1], answers[:1])
        if not known:
            self._learn_volume(*answers[1:])
        return self._told(answers[0], query)

    def _learn_volume(self, attributes: Answer, space: Answer) -> None:
        """Take over whether blocks can be shared, and the size of clusters; no where one is told that cannot be."""
        self._refcounting, self._cluster = False, LEAST_CLUSTER
        if attributes.status != Status.SUCCESS or space.status != Status.SUCCESS:
            return
        able = FileFsAttributeInformation.parse(memoryview(QueryInfoResponse.parse(attributes.pdu).data)).attributes
        told = FileFsFullSizeInformation.parse(memoryview(QueryInfoResponse.parse(space.pdu).data))
        unit = told.sectors_per_unit * told.bytes_per_sector
        cluster = max(unit, LEAST_CLUSTER)
        if able & FILE_SUPPORTS_BLOCK_REFCOUNTING and 0 < unit <= MOST_CLUSTER and not cluster % LEAST_CLUSTER:
            self._refcounting, self._cluster = not cluster % unit, cluster

    async def _all_of(self, handle: Open, generation: int, requests: Sequence[Request]) -> list[Answer | Smb3fsError]:
        """Send requests that do not depend on each other, and stay for their answers, which come even to one who is
        cancelled; once the caller's own time is up, the server is asked to cancel what it has not done.

        They make sense only in the session of that `generation`.
        """
        outcomes: list[Answer | Smb3fsError] = [ConnectionLost("not sent")] * len(requests)

        async def one(index: int) -> None:
            try:
                if handle.generation != generation:
                    raise ConnectionLost("the source was named on a connection that is gone")
                (outcomes[index],) = await self._pool.see_through([requests[index]], handle, Repeat.NEVER)
            except Smb3fsError as error:
                outcomes[index] = error

        with trio.CancelScope(shield=True, deadline=trio.current_effective_deadline()):
            async with trio.open_nursery() as nursery:
                for index in range(len(requests)):
                    nursery.start_soon(one, index)
                    await trio.lowlevel.cancel_shielded_checkpoint()  # so that they leave in their order
        return outcomes
