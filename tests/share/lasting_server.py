"""A server that promises to keep opens, recognises what is repeated, and loses what the test says on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from keeping_server import Desk, KeepingServer
from peer import Element, Message
from tree_server import Handle, Tree

from smb3fs.errors import Status, StatusError
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition, FileId
from smb3fs.wire.durable import DURABLE_HANDLE_V2, PERSISTENT, DurableHandleRequestV2, DurableHandleResponseV2
from smb3fs.wire.header import FLAG_ASYNC, FLAG_REPLAY, Command
from smb3fs.wire.lock import FAIL_IMMEDIATELY, UNLOCK, LockResponse

# What the server refuses as long as it still works on something older ([MS-SMB2] 3.3.5.2.10).
GUARDED = (Command.WRITE, Command.SET_INFO, Command.IOCTL)


@dataclass
class Memory(Desk):
    """What outlives the sessions with such a server."""

    keeps: bool = True
    """Whether it promises anything."""
    records: dict[bytes, tuple[FileId, int]] = field(default_factory=dict)
    """By CreateGuid: the open that nobody has used yet, and what the CREATE did."""
    lose: Callable[[Message], str] = lambda _: ""
    """What becomes of a message: "request" or "answer" is lost with the connection, "" all goes well.

    Before either the connection stands for a while without a word if it is "no request" or "no answer"."""
    busy: int = 0
    """How many guarded requests are still put off."""
    executed: list[str] = field(default_factory=list)
    """What was done to the tree, in this order."""
    statuses: list[Status] = field(default_factory=list)
    """By which repeated CREATEs were refused."""
    flags: list[tuple[str, int, bool]] = field(default_factory=list)
    """Of each request its command, its channel sequence, and whether it was marked as a repetition."""
    locks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    sequences: dict[tuple[int, int], int] = field(default_factory=dict)
    """By the persistent half of the id and the index, the last number."""
    foreign: list[tuple[int, int]] = field(default_factory=list)
    """What others have locked."""
    give_away: bool = False
    """Whether locks go to others, who give them up again but for `theirs`, as soon as a connection is lost."""
    theirs: list[tuple[int, int]] = field(default_factory=list)
    """What they keep then."""
    forgets: bool = False
    """Whether it forgets with a connection which LOCKs it has carried out, as if their process was killed."""
    unavailable: int = 0
    """So many CREATEs are refused since the file is kept for somebody."""
    makes_unavailable: bool = False
    """Whether they make the file all the same."""
    stumbles: bool = False
    """Whether a CREATE that makes a file is put off after that, and then finds the name taken."""


class LastingServer(KeepingServer):
    """One session with it."""

    def __init__(self, tree: Tree, memory: Memory) -> None:
        super().__init__(tree, memory)
        self.memory = memory
        self.handler = self.receive
        self._replayed = False
        self._asked: DurableHandleRequestV2 | None = None

    def receive(self, message: Message) -> None:
        """Lose a message, or its answer, or serve it."""
        lost = self.memory.lose(message)
        if lost == "request":
            self.transport.hang_up()
            return
        if lost == "no request":
            return
        if lost == "no answer":
            send, self.send = self.send, lambda *_replies, **_how: None  # type: ignore[method-assign]
            self.serve(message)
            self.send = send  # type: ignore[method-assign]
            return
        if lost == "answer":
            self.send = lambda *_replies, **_how: None  # type: ignore[method-assign]
            self.serve(message)
            self.transport.hang_up()
            if self.memory.forgets:
                self.memory.sequences.clear()
            if self.memory.give_away:
                for held in self.memory.locks.values():
                    held.clear()
                self.memory.foreign += self.memory.theirs
            return
        element = message.elements[0]
        if (
            self.memory.stumbles
            and element.command == Command.CREATE
            and element.request.disposition == Disposition.CREATE
        ):
            self.handles.pop(super()._create(element.request))
            self.send(self.pending(element, 7))
            last = self.reply(element, status=Status.OBJECT_NAME_COLLISION)
            last.header.flags |= FLAG_ASYNC
            last.header.async_id = 7
            self.send(last)
            return
        self.serve(message)

    def _create(self, request: CreateRequest) -> FileId:
        asked = dict(request.contexts).get(DURABLE_HANDLE_V2)
        self._asked = DurableHandleRequestV2.parse(asked) if asked is not None and self.memory.keeps else None
        header = self.messages[-1].elements[0].header
        replayed = bool(header.flags & FLAG_REPLAY)
        self.memory.flags.append(("CREATE", header.status, replayed))
        if self.memory.unavailable:
            self.memory.unavailable -= 1
            if self.memory.makes_unavailable:
                self.handles.pop(super()._create(request))
            raise StatusError(Status.FILE_NOT_AVAILABLE, "CREATE")
        if self._asked is not None:
            known = self.memory.records.get(self._asked.create_guid)
            if known is not None and not replayed:
                self._refuse(Status.DUPLICATE_OBJECTID)
            if known is None and replayed and self._asked.flags & PERSISTENT:
                self._refuse(Status.FILE_NOT_AVAILABLE)
            if known is not None:
                first, self._action = known  # type: ignore[assignment]
                if first in self.handles:  # in the session in which it was made
                    return first
                given = FileId(first.persistent, 0xBACC + next(self._ids))
                self.handles[given] = self.memory.kept[first.persistent][0]
                return given
        file_id = super()._create(request)
        if self._action != 1:
            self.memory.executed.append(f"CREATE {request.name}")
        if self._asked is not None:
            # Persistent halves are the server's, not the session's.
            fresh = FileId(1000 + len(self.memory.kept), file_id.volatile)
            self.handles[fresh] = self.handles.pop(file_id)
            guid, persistent = self._asked.create_guid, bool(self._asked.flags & PERSISTENT)
            self.memory.records[guid] = fresh, self._action
            self.memory.kept[fresh.persistent] = (self.handles[fresh], guid, persistent)
            return fresh
        return file_id

    def _refuse(self, status: Status) -> None:
        """Refuse a CREATE for what it says of itself."""
        self.memory.statuses.append(status)
        raise StatusError(status, "CREATE")

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        body = super()._created(file_id, request)
        if self._asked is None:
            return body
        told = CreateResponse.parse(memoryview(bytes(64) + body))
        promise = DurableHandleResponseV2(60_000, self._asked.flags).encode()
        return replace(told, contexts=[*told.contexts, CreateContext(DURABLE_HANDLE_V2, promise)]).encode()

    def _do(self, element: Element, file_id: FileId | None) -> bytes:
        memory, command = self.memory, Command(element.command)
        replayed = bool(element.header.flags & FLAG_REPLAY)
        memory.flags.append((command.name, element.header.status, replayed))
        if file_id is not None:
            for guid in [guid for guid, (known, _) in memory.records.items() if known.persistent == file_id.persistent]:
                del memory.records[guid]
        if command in GUARDED and memory.busy and replayed:
            memory.busy -= 1
            raise StatusError(Status.FILE_NOT_AVAILABLE, command.name)
        body = super()._do(element, file_id)
        if command in (*GUARDED, Command.CLOSE):
            memory.executed.append(command.name)
        return body

    def _do_close(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        body = super()._do_close(request, handle, file_id)
        self.memory.kept.pop(file_id.persistent, None)
        self.memory.locks.pop(file_id.persistent, None)
        return body

    def _do_lock(self, request: Any, _: Handle, file_id: FileId) -> bytes:
        memory, index, number = self.memory, request.sequence >> 4, request.sequence & 15
        if index and memory.sequences.get((file_id.persistent, index)) == number:
            return LockResponse().encode()
        held = memory.locks.setdefault(file_id.persistent, [])
        for element in request.elements:
            lock = element.offset, element.length
            if element.flags & UNLOCK:
                if lock not in held:
                    raise StatusError(Status.RANGE_NOT_LOCKED, "LOCK")
                held.remove(lock)
            elif lock in held or lock in memory.foreign:
                assert element.flags & FAIL_IMMEDIATELY, "nobody would answer it"
                raise StatusError(Status.LOCK_NOT_GRANTED, "LOCK")
            else:
                held.append(lock)
        memory.executed.append("LOCK")
        if index:
            memory.sequences[file_id.persistent, index] = number
        return LockResponse().encode()
