"""Verbs about what is attached to a file: its extended attributes, and its security descriptor.

A look is one chain. A change is two round trips, since the first one has to show that the right file is at the path;
whether an attribute is there already, where that matters, comes with its answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Status, StatusError
from smb3fs.handles.opens import Open
from smb3fs.share.chains import (
    CLOSE_RELATED,
    QUERY_INTERNAL,
    Chains,
    raise_first,
)
from smb3fs.wire.create import RELATED_FILE_ID, AccessMask, CreateOptions
from smb3fs.wire.ea import NAME_MAX, VALUE_MAX, ExtendedAttribute, FileFullEaInformation
from smb3fs.wire.header import Command, Request
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest
from smb3fs.wire.security import SecurityDescriptor, SecurityInformation
from smb3fs.wire.streams import FileStreamInformation, Stream

# What one credit pays for, and what is asked for where that was not enough: more attributes than Linux can list.
USUAL_ROOM: Final = 64 * 1024
MOST_ROOM: Final = 1024 * 1024
# Answers to "what attributes are there" that mean none.
NO_ATTRIBUTES: Final = frozenset({Status.NO_EAS_ON_FILE, Status.NONEXISTENT_EA_ENTRY})
# ... and that this file system keeps none.
NOT_KEPT: Final = frozenset(
    {
        Status.EAS_NOT_SUPPORTED,
        Status.NOT_SUPPORTED,
        Status.NOT_IMPLEMENTED,
        Status.INVALID_INFO_CLASS,
        Status.INVALID_DEVICE_REQUEST,
    }
)
TOO_LITTLE_ROOM: Final = frozenset({Status.BUFFER_OVERFLOW, Status.BUFFER_TOO_SMALL, Status.INFO_LENGTH_MISMATCH})

LOOK: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
READ_EA: Final = int(AccessMask.READ_EA)
WRITE_EA: Final = int(AccessMask.WRITE_EA)
READ_CONTROL: Final = int(AccessMask.READ_CONTROL)
SACL: Final = int(SecurityInformation.SACL)


class Attached(NamedTuple):
    """What is attached to a file: its extended attributes, and all its streams, its contents among them."""

    attributes: Sequence[ExtendedAttribute]
    streams: Sequence[Stream]


class Metadata(Chains):
    """What can be asked of and done to what is attached to files."""

    # -- extended attributes

    async def extended_attributes(self, path: str, expect: int | None) -> Sequence[ExtendedAttribute]:
        """Return the extended attributes of the file with the id `expect`; one round trip."""
        answers = await self._look_at(path, READ_EA, expect, [_query_attributes(USUAL_ROOM)])
        if answers[0].status in TOO_LITTLE_ROOM:
            answers = await self._look_at(path, READ_EA, expect, [_query_attributes(await self._most_room())])
        return _attributes(answers[0])

    async def attached(self, path: str, expect: int | None) -> Attached:
        """Return all that is attached to the file with the id `expect`; one round trip.

        What the server keeps for no file counts as absent.
        """
        queries = [_query_streams(USUAL_ROOM), _query_attributes(USUAL_ROOM)]
        streams, attributes = await self._look_at(path, READ_EA, expect, queries)
        if {streams.status, attributes.status} & TOO_LITTLE_ROOM:
            room = await self._most_room()
            queries = [_query_streams(room), _query_attributes(room)]
            streams, attributes = await self._look_at(path, READ_EA, expect, queries)
        return Attached(
            [] if attributes.status in NOT_KEPT else _attributes(attributes),
            [] if streams.status in NOT_KEPT else _streams(streams),
        )

    async def set_extended_attribute(
        self, path: str, name: bytes, value: bytes, *, expect: int | None, exists: bool | None = None
    ) -> None:
        """Set an attribute of the file with the id `expect`, or with an empty value remove it.

        With `exists` False one that is there is EEXIST, with True one that is not is ENODATA.
        """
        if not name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if len(name) > NAME_MAX:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        if len(value) > VALUE_MAX:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        queries = [] if exists is None else [_query_attributes(await self._most_room())]
        access = WRITE_EA if exists is None else WRITE_EA | READ_EA
        handle, answers = await self._open_expected(path, access, expect, queries)
        try:
            if exists is not None and any(known.is_called(name) for known in _attributes(answers[0])) != exists:
                number = errno.ENODATA if exists else errno.EEXIST
                raise OSError(number, os.strerror(number))
        except BaseException:
            self.close(handle)
            raise
        info = FileFullEaInformation([ExtendedAttribute(name, value)])
        await self._and_close(
            handle, [SetInfoRequest(handle.file_id, InfoType.FILE, info.information_class, info.encode())]
        )

    # -- security

    async def security(self, path: str, parts: int, expect: int | None) -> bytes:
        """Return the `SecurityInformation` parts of the security descriptor of the file `expect`; one round trip."""
        answers = await self._look_at(
            path,
            READ_CONTROL | (int(AccessMask.ACCESS_SYSTEM_SECURITY) if parts & SACL else 0),
            expect,
            [QueryInfoRequest(RELATED_FILE_ID, InfoType.SECURITY, 0, USUAL_ROOM, parts)],
        )
        _raise_refusal(answers[0])
        data = QueryInfoResponse.parse(answers[0].pdu).data
        SecurityDescriptor.parse(data)  # what is no descriptor is not handed on
        return bytes(data)

    async def set_security(self, path: str, parts: int, descriptor: bytes, *, expect: int | None) -> None:
        """Set parts of the security descriptor of the file `expect`, from an encoded descriptor."""
        access = 0
        if parts & (SecurityInformation.OWNER | SecurityInformation.GROUP):
            access |= AccessMask.WRITE_OWNER
        if parts & SecurityInformation.DACL:
            access |= AccessMask.WRITE_DAC
        if parts & SACL:  # smbd asks for the right to change the other list as well
            access |= AccessMask.ACCESS_SYSTEM_SECURITY | AccessMask.WRITE_DAC
        handle, _ = await self._open_expected(path, int(access), expect, [])
        await self._and_close(handle, [SetInfoRequest(handle.file_id, InfoType.SECURITY, 0, descriptor, parts)])

    # -- how

    async def _most_room(self) -> int:
        """Return the most that an answer may be given room for."""
        session = await self._pool.ready()
        return session.payload_limit(min(MOST_ROOM, session.agreed.max_transact))

    async def _look_at(
        self, path: str, access: int, expect: int | None, queries: Sequence[QueryInfoRequest]
    ) -> list[Answer]:
        """Return the answers to queries about the file `expect`, whatever their status."""
        chain: list[Request] = [
            self._create(path, LOOK | access, options=CreateOptions.OPEN_REPARSE_POINT),
            QUERY_INTERNAL,
            *queries,
            CLOSE_RELATED,
        ]
        session, answers = await self._send(chain, repeat=Repeat.SAFE)
        self._close_leftover(answers, session)
        raise_first(chain[:2], answers[:2])
        self._check_id(expect, answers[1])
        return answers[2:-1]

    async def _open_expected(
        self, path: str, access: int, expect: int | None, queries: Sequence[QueryInfoRequest]
    ) -> tuple[Open, list[Answer]]:
        """Open the file `expect` and return the answers to queries about it as well, whatever their status."""
        request = self._create(path, LOOK | access, options=CreateOptions.OPEN_REPARSE_POINT)
        chain: list[Request] = [request, QUERY_INTERNAL, *queries]
        session, answers = await self._send(chain, repeat=Repeat.SAFE)
        handle = self._opened(request, answers[0], path, session)
        try:
            raise_first(chain[1:2], answers[1:2])
            self._check_id(expect, answers[1])
        except BaseException:
            self.close(handle)
            raise
        return handle, answers[2:]


def _query_attributes(room: int) -> QueryInfoRequest:
    """Build the query for all extended attributes."""
    return QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileFullEaInformation.information_class, room)


def _query_streams(room: int) -> QueryInfoRequest:
    """Build the query for all streams."""
    return QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileStreamInformation.information_class, room)


def _raise_refusal(answer: Answer) -> None:
    """Raise the status of a query, also where the answer was cut off: half of it is of no use here."""
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, Command.QUERY_INFO.name)


def _attributes(answer: Answer) -> Sequence[ExtendedAttribute]:
    """Read the answer to a query for extended attributes."""
    if answer.status in NO_ATTRIBUTES:
        return []
    _raise_refusal(answer)
    return FileFullEaInformation.parse(QueryInfoResponse.parse(answer.pdu).data).attributes


def _streams(answer: Answer) -> Sequence[Stream]:
    """Read the answer to a query for streams."""
    _raise_refusal(answer)
    return FileStreamInformation.parse(QueryInfoResponse.parse(answer.pdu).data).streams
