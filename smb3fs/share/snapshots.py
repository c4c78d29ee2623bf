"""The verb about previous versions of the share."""

from __future__ import annotations

from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.errors import Status, StatusError
from smb3fs.share.chains import CLOSE_RELATED, LIST_ACCESS, Chains
from smb3fs.wire.create import RELATED_FILE_ID, CreateOptions, CreateRequest, Disposition
from smb3fs.wire.header import Request
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.snapshots import FSCTL_SRV_ENUMERATE_SNAPSHOTS, SnapshotArray

# What one credit pays for, room for 1,300 tokens; and room for 20,000, which is asked for where that was not enough.
USUAL_ROOM: Final = 64 * 1024
MOST_ROOM: Final = 1024 * 1024
# By these a server says that it has no previous versions, or knows nothing of such.
NONE: Final = frozenset({Status.INVALID_DEVICE_REQUEST, Status.NOT_SUPPORTED, Status.NOT_IMPLEMENTED})


class Snapshots(Chains):
    """What can be asked about previous versions."""

    async def snapshots(self) -> list[str]:
        """Return the tokens of the previous versions of the mount's root, the newest first; one round trip."""
        session = await self._pool.ready()
        most = session.payload_limit(min(MOST_ROOM, session.agreed.max_transact))
        try:
            told = await self._enumerate(min(USUAL_ROOM, most))
            if told.total and not told.tokens:
                told = await self._enumerate(most)
        except StatusError as error:
            if error.status in NONE:
                return []
            raise
        return sorted(told.tokens, reverse=True)

    async def _enumerate(self, room: int) -> SnapshotArray:
        """Ask for the previous versions, with room for so many bytes of tokens."""
        # Not through `_create`: the directory is asked as it is now, also where the mount shows an earlier state.
        options = CreateOptions.DIRECTORY_FILE
        chain: list[Request] = [
            CreateRequest(self._full(""), LIST_ACCESS, Disposition.OPEN, options),
            IoctlRequest(FSCTL_SRV_ENUMERATE_SNAPSHOTS, RELATED_FILE_ID, b"", room),
            CLOSE_RELATED,
        ]
        _, answers = await self._chain(chain, repeat=Repeat.SAFE)
        return SnapshotArray.parse(IoctlResponse.parse(answers[1].pdu).output)
