"""A share in memory: the verbs that the filesystem stands on, with a server's habits and failures on demand."""

from __future__ import annotations

import errno
import itertools
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import trio
from fake_attached import FakeAttached
from fake_locks import FakeLocks
from fake_serverside import FakeServerSide

from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.files import VolumeSpace
from smb3fs.wire.codec import Buffer, ns_to_filetime
from smb3fs.wire.create import CreateRequest, FileAttribute, HeldFileId
from smb3fs.wire.directory import DirectoryEntry, encode_page
from smb3fs.wire.posix import PosixCreated
from smb3fs.wire.reparse import ReparseTag, SymbolicLink
from smb3fs.wire.sid import Sid

BEGINNING = 1_700_000_000 * 10**9
TICK = 10**9  # every change is a second after the one before


@dataclass(eq=False)
class Node:
    """A file or directory of the server."""

    file_id: int
    created: int
    is_directory: bool
    data: bytearray = field(default_factory=bytearray)
    children: dict[str, Node] = field(default_factory=dict)
    attributes: int = 0
    links: int = 1
    accessed: int = 0
    modified: int = 0
    changed: int = 0
    extended: dict[bytes, bytes] = field(default_factory=dict)
    streams: dict[str, bytes] = field(default_factory=dict)
    descriptor: bytes = b""
    special: int = 0
    target: SymbolicLink | bytes | None = None
    rdev: int = 0
    owned: PosixCreated | None = None

    def told(self) -> FileAttributes:
        """What the server says of it."""
        return FileAttributes(
            self.file_id,
            self.attributes | (FileAttribute.DIRECTORY if self.is_directory else 0),
            len(self.data),
            (len(self.data) + 4095) // 4096 * 4096,
            self.links,
            self.created,
            self.accessed,
            self.modified,
            self.changed,
            self.special,
            self.target,
            self.rdev,
            self.owned,
        )

    def listed(self, name: str) -> DirectoryEntry:
        """What a listing says of it."""
        told = self.told()
        times = (ns_to_filetime(time) for time in (told.created, told.accessed, told.modified, told.changed))
        tag, attributes = 0, told.attributes
        if self.special and not isinstance(self.target, bytes):
            tag = ReparseTag.SYMLINK if self.target else ReparseTag.NFS
            attributes |= FileAttribute.REPARSE_POINT
        return DirectoryEntry(
            name,
            told.file_id,
            attributes,
            told.size,
            told.allocation,
            *times,
            ea_size=tag or sum(map(len, self.extended.values())),
        )


def error(status: Status) -> StatusError:
    """The server's refusal."""
    return StatusError(status, "CREATE")


class FakeListing:
    """The pages of one directory, encoded when they are asked for from a snapshot taken at the beginning."""

    def __init__(self, share: FakeShare, entries: list[DirectoryEntry]) -> None:
        self.pages: list[memoryview] = []
        self.posix = False
        self.complete = False
        self.closed = False
        self._share = share
        self._rest = deque(entries)
        self._take()

    def _take(self) -> None:
        count = min(self._share.page_entries, len(self._rest))
        page = [self._rest.popleft() for _ in range(count)]
        if page:
            self.pages.append(memoryview(encode_page(page)))
        self.complete = not self._rest

    def take(self) -> None:
        """There is no lease that would let a directory be kept."""

    async def next_page(self) -> bool:
        if self.complete:
            return False
        await self._share.exchange("next_page")
        self._take()
        return True

    def close(self) -> None:
        self.closed = True


class FakeShare(FakeLocks, FakeAttached, FakeServerSide):
    """The verbs. `calls` has the name of each exchange; `fail` and `hang` script what becomes of the next ones."""

    def __init__(self, *, case_sensitive: bool = True, page_entries: int = 100) -> None:
        super().__init__()
        self._ids = itertools.count(100)
        self._handles = itertools.count(1)
        self.now = BEGINNING
        self.root = Node(5, BEGINNING, is_directory=True)
        self.case_sensitive = case_sensitive
        self.posix = False  # whether its opens are of the POSIX extensions
        self.page_entries = page_entries
        self.short_names: dict[str, str] = {}  # 8.3 names that it has made up, and what they stand for
        self.calls: list[str] = []
        self.opens: dict[Open, Node] = {}
        self.generation = 1
        # What is asked to be removed later, and whether that is promised.
        self.to_be_removed: list[tuple[str, int | None]] = []
        self.removes_later = False
        self.in_the_way: set[int | None] = set()
        # Whether what is set aside goes by our own doing, after its last close; what does, by its name.
        self.holds = False
        self.keeps_readers = True  # and what is open for reading alone from the beginning, not only when asked for
        self.held: dict[str, int | None] = {}
        self._pinned: set[str] = set()
        self.doomed: dict[int, list[tuple[Node, str]]] = {}  # deleted with handles open, by id: (directory, name)
        self.failures: dict[str, deque[Exception | None]] = {}
        self.gates: dict[str, trio.Event] = {}
        self.latency = 0.0
        self.ahead: list[tuple[Open, int, int, Callable[[memoryview | None], None]]] = []
        # Questions ahead of the need, if they are taken.
        self.attributes_asked: list[tuple[str, Callable[[FileAttributes | None], None]]] | None = None
        self.listings: list[FakeListing] = []
        self.server_dots = True
        self.times_refused = False
        self.points_refused = False
        self.points_renamed = 0
        self.before: Callable[[str], None] = lambda call: None

    # -- scripts

    def fail(self, call: str, *outcomes: Exception | Status | None) -> None:
        """Have the next exchanges of that name fail so (None: succeed)."""
        self.failures.setdefault(call, deque()).extend(
            error(outcome) if isinstance(outcome, Status) else outcome for outcome in outcomes
        )

    def hang(self, call: str) -> trio.Event:
        """Have exchanges of that name wait until the event is set."""
        self.gates[call] = trio.Event()
        return self.gates[call]

    def count(self, call: str) -> int:
        """How often a call was made."""
        return self.calls.count(call)

    async def exchange(self, call: str) -> None:
        """One round trip: queued at once, answered later."""
        self.calls.append(call)
        self.before(call)
        if call in self.gates:
            await self.gates[call].wait()
        if self.latency:
            await trio.sleep(self.latency)
        else:
            await trio.lowlevel.checkpoint()
        if self.failures.get(call):
            outcome = self.failures[call].popleft()
            if outcome is not None:
                raise outcome

    def lose_connection(self) -> None:
        """Every handle is gone."""
        self.generation += 1
        self.locks.clear()
        self.note_unlocked()

    # -- the server's tree, for tests and for the verbs

    def tick(self) -> int:
        """The time of a change."""
        self.now += TICK
        return self.now

    def split(self, path: str) -> tuple[Node, str]:
        """The directory of a path, and its last component."""
        *above, name = path.split("\\")
        node = self.root
        for part in above:
            found = self.in_directory(node, part)
            if found is None or not node.children[found].is_directory:
                raise error(Status.OBJECT_PATH_NOT_FOUND)
            node = node.children[found]
        return node, name

    def in_directory(self, node: Node, name: str) -> str | None:
        """The name in a directory that a request for `name` means."""
        if name in node.children:
            return name
        if self.short_names.get(name) in node.children:
            return self.short_names[name]
        if not self.case_sensitive:
            return next((other for other in node.children if other.casefold() == name.casefold()), None)
        return None

    def find(self, path: str) -> Node:
        """What is at a path."""
        if not path:
            return self.root
        node, name = self.split(path)
        found = self.in_directory(node, name)
        if found is None:
            raise error(Status.OBJECT_NAME_NOT_FOUND)
        if (node, found) in self.doomed.get(node.children[found].file_id, ()):
            raise error(Status.DELETE_PENDING)
        return node.children[found]

    def put(
        self, path: str, data: bytes | None = b"", *, file_id: int | None = None, created: int | None = None
    ) -> Node:
        """Make a file (None: a directory) as somebody else would, replacing what is there."""
        node, name = self.split(path)
        now = self.tick()
        new = Node(
            next(self._ids) if file_id is None else file_id,
            now if created is None else created,
            data is None,
            bytearray(data or b""),
        )
        new.accessed = new.modified = new.changed = now
        node.children[name] = new
        return new

    def remove(self, path: str) -> Node:
        """Remove something as somebody else would."""
        node, name = self.split(path)
        return node.children.pop(name)

    def move(self, old: str, new: str) -> None:
        """Rename something as somebody else would."""
        moved = self.remove(old)
        node, name = self.split(new)
        node.children[name] = moved

    def walk(self, node: Node | None = None, prefix: str = "") -> Iterator[str]:
        """All paths."""
        for name, child in (node or self.root).children.items():
            yield prefix + name
            yield from self.walk(child, f"{prefix}{name}\\")

    def is_open(self, node: Node) -> bool:
        return any(other is node for other in self.opens.values())

    # -- the verbs

    async def lookup(self, path: str) -> FileAttributes:
        await self.exchange("lookup")
        return self.find(path).told()

    def _open(self, path: str, node: Node, *, write: bool, created: bool = False) -> Open:
        if write and node.attributes & FileAttribute.READONLY and not created:
            raise error(Status.ACCESS_DENIED)
        request = CreateRequest(path, 1, 1)
        handle = Open(path, HeldFileId(next(self._handles), 0), self.generation, node.told(), request, write, created)
        handle.posix = self.posix
        handle.durability = Durability.DURABLE_V2 if self.holds and (write or self.keeps_readers) else Durability.NONE
        self.opens[handle] = node
        return handle

    def attributes_ahead(
        self,
        path: str,
        told: Callable[[FileAttributes | None], None],
        handle: Open | None = None,
        *,
        hurry: bool = True,
    ) -> bool:
        """Take a question that nobody waits for, if the test will answer it (`tell`)."""
        if self.attributes_asked is None:
            return False
        self.attributes_asked.append((path, told))
        return True

    def tell(self, *, fails: bool = False) -> None:
        """Answer the first such question with what is so now."""
        assert self.attributes_asked is not None
        path, told = self.attributes_asked.pop(0)
        told(None if fails else self.find(path).told())

    async def open_for_locks(self, path: str, *, expect: int | None) -> Open:
        return await self.open(path, read=True, write=True, expect=expect)

    async def open(self, path: str, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        await self.exchange("open")
        node = self.find(path)
        if node.is_directory:
            raise error(Status.FILE_IS_A_DIRECTORY)
        if expect is not None and expect != node.file_id:
            raise OSError(116, "stale")
        handle = self._open(path, node, write=write)
        handle.head = memoryview(bytes(node.data[:head])) if head else None
        return handle

    async def create(
        self, path: str, *, read: bool, write: bool, exclusive: bool, readonly_attribute: bool, mode: int
    ) -> Open:
        await self.exchange("create")
        node, name = self.split(path)
        found = self.in_directory(node, name)
        if found is None:
            new = self.put(path)
            new.attributes = int(FileAttribute.READONLY) if readonly_attribute else 0
            return self._open(path, new, write=write, created=True)
        if exclusive:
            raise error(Status.OBJECT_NAME_COLLISION)
        child = self.find(path)
        if child.is_directory:
            raise error(Status.FILE_IS_A_DIRECTORY)
        return self._open(path, child, write=write)

    def _node(self, handle: Open) -> Node:
        if handle.generation != self.generation:
            raise ConnectionLost("the file was opened on a connection that is gone")
        if handle not in self.opens:
            raise error(Status.FILE_CLOSED)
        return self.opens[handle]

    async def attributes(self, handle: Open) -> FileAttributes:
        await self.exchange("attributes")
        return self._node(handle).told()

    async def read(self, handle: Open, offset: int, size: int) -> memoryview:
        await self.exchange("read")
        self.check_locks(handle, offset, offset + size, write=False)
        return memoryview(bytes(self._node(handle).data[offset : offset + size]))

    def read_ahead(
        self, handle: Open, offset: int, size: int, came: Callable[[memoryview | None], None], least: int = 0
    ) -> int:
        """Take a request that nobody waits for; `deliver` answers it."""
        self.calls.append("read_ahead")
        self.ahead.append((handle, offset, size, came))
        return size

    def open_ahead(self, path: str, expect: int | None, head: int, came: Callable[[Open | None], None]) -> bool:
        """Open nothing that nobody waits for."""
        self.calls.append("open_ahead")
        return False

    def deliver(self, *, fails: bool = False) -> None:
        """Answer the first request that nobody waits for with what the file has now."""
        handle, offset, size, came = self.ahead.pop(0)
        came(None if fails else memoryview(bytes(self._node(handle).data[offset : offset + size])))

    async def write(
        self,
        handle: Open,
        offset: int,
        data: Buffer,
        *,
        spread: bool = False,
        check: Callable[[], None] | None = None,
    ) -> int:
        if check is not None:
            check()
        await self.exchange("write")
        node = self._node(handle)
        self.check_locks(handle, offset, offset + len(data), write=True)
        if offset > len(node.data):
            node.data += bytes(offset - len(node.data))
        node.data[offset : offset + len(data)] = data
        node.modified = node.changed = self.tick()
        return len(data)

    async def flush(self, handle: Open) -> None:
        await self.exchange("flush")
        self._node(handle)

    def close(self, handle: Open, *, hurry: bool = True) -> None:
        self.calls.append("close")
        handle.closed = True
        self.drop_locks(handle)
        node = self.opens.pop(handle, None)
        if node is not None and node.file_id in self.doomed and not self.is_open(node):
            for directory, name in self.doomed.pop(node.file_id):
                directory.children.pop(name, None)
        self.remove_held()

    def _resize(self, node: Node, size: int) -> FileAttributes:
        node.data = bytearray(node.data[:size].ljust(size, b"\0"))
        node.modified = node.changed = self.tick()
        return node.told()

    async def truncate(self, handle: Open, size: int) -> FileAttributes:
        await self.exchange("truncate")
        return self._resize(self._node(handle), size)

    async def truncate_path(self, path: str, size: int, expect: int | None) -> FileAttributes:
        handle = await self.open(path, read=False, write=True, expect=expect)
        try:
            return await self.truncate(handle, size)
        finally:
            self.close(handle)

    def _set(self, node: Node, wish: Basics) -> FileAttributes:
        node.created = node.created if wish.created is None else wish.created
        node.accessed = node.accessed if wish.accessed is None else wish.accessed
        node.modified = node.modified if wish.modified is None else wish.modified
        if wish.attributes:
            node.attributes = wish.attributes & ~int(FileAttribute.NORMAL)
        node.changed = self.tick()
        return node.told()

    async def set_basic(self, path: str, wish: Basics, *, expect: int | None) -> FileAttributes:
        await self.exchange("set_basic")
        node = self.find(path)
        if expect is not None and expect != node.file_id:
            raise OSError(116, "stale")
        return self._set(node, wish)

    async def set_basic_open(self, handle: Open, wish: Basics) -> FileAttributes:
        await self.exchange("set_basic_open")
        return self._set(self._node(handle), wish)

    async def write_and_set(
        self, handle: Open, offset: int, data: Buffer, wish: Basics, *, check: Callable[[], None] | None = None
    ) -> FileAttributes | None:
        await self.write(handle, offset, data, check=check)
        if self.times_refused:
            return None
        return self._set(self._node(handle), wish)

    async def make_directory(self, path: str, mode: int = 0o777) -> FileAttributes:
        await self.exchange("make_directory")
        node, name = self.split(path)
        if self.in_directory(node, name) is not None:
            raise error(Status.OBJECT_NAME_COLLISION)
        return self.put(path, None).told()

    async def _make_special(self, path: str, special: int) -> Node:
        await self.exchange("make_special")
        if self.points_refused:
            raise OSError(errno.EPERM, "no reparse points")
        node, name = self.split(path)
        if self.in_directory(node, name) is not None:
            raise error(Status.OBJECT_NAME_COLLISION)
        made = self.put(path)
        made.special = special
        return made

    async def make_link(self, path: str, target: SymbolicLink) -> FileAttributes:
        made = await self._make_special(path, stat.S_IFLNK)
        made.target = target
        return made.told()

    async def make_link_file(self, path: str, target: bytes) -> FileAttributes:
        made = await self._make_special(path, stat.S_IFLNK)
        made.target = target
        made.data[:] = bytes(1067)
        return made.told()

    async def make_special(self, path: str, mode: int, rdev: int) -> FileAttributes:
        made = await self._make_special(path, stat.S_IFMT(mode))
        made.rdev = rdev
        return made.told()

    async def read_link(self, path: str, expect: int | None) -> SymbolicLink | bytes:
        await self.exchange("read_link")
        child = self.find(path)
        if expect is not None and expect != child.file_id:
            raise OSError(errno.ESTALE, "stale")
        if child.target is None:
            raise OSError(errno.EINVAL, "no link")
        return child.target

    async def link(self, path: str, new: str, expect: int | None) -> FileAttributes:
        await self.exchange("link")
        child = self.find(path)
        if expect is not None and expect != child.file_id:
            raise OSError(errno.ESTALE, "stale")
        node, name = self.split(new)
        if self.in_directory(node, name) is not None:
            raise error(Status.OBJECT_NAME_COLLISION)
        node.children[name] = child
        child.links += 1
        return child.told()

    async def remove_file(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        await self.exchange("remove_file")
        child = self.find(path)
        if child.is_directory:
            raise error(Status.FILE_IS_A_DIRECTORY)
        node, name = self.split(path)
        found = self.in_directory(node, name)
        assert found is not None
        if self.is_open(child):
            # [MS-FSA]: the name stays until the last close
            self.doomed.setdefault(child.file_id, []).append((node, found))
        else:
            del node.children[found]

    async def keeps_others_out(self, path: str, *, expect: int | None = None) -> bool:
        return expect in self.in_the_way

    async def remove_later(self, path: str, *, expect: int | None = None) -> bool:
        self.to_be_removed.append((path, expect))
        return self.removes_later

    async def make_lasting(self, path: str, *, expect: int | None = None) -> None:
        if not self.holds:
            return
        await self.exchange("make_lasting")
        for handle, node in self.opens.items():
            if node is self.find(path) and node.file_id == expect:
                handle.durability = Durability.DURABLE_V2

    async def hold_aside(self, path: str, aside: str, *, expect: int | None = None) -> bool:
        node = self.find(path)
        if any(other is node and handle.durability for handle, other in self.opens.items()):
            self.held[aside] = expect
            self._pinned.add(aside)
            return True
        return False

    async def settle_aside(self, aside: str, *, there: bool) -> None:
        self._pinned.discard(aside)
        if not there:
            del self.held[aside]
        else:
            self.remove_held()

    async def clear_aside(self, path: str) -> None:
        await self.exchange("clear_aside")

    def remove_held(self) -> None:
        """Remove what was held and nobody has open any more."""
        for path in [path for path in self.held if path not in self._pinned]:
            try:
                if self.is_open(self.find(path)):
                    continue
                self.remove(path)
            except StatusError:
                pass
            del self.held[path]

    async def remove_directory(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        await self.exchange("remove_directory")
        child = self.find(path)
        if not child.is_directory:
            raise error(Status.NOT_A_DIRECTORY)
        if child.children:
            raise error(Status.DIRECTORY_NOT_EMPTY)
        node, name = self.split(path)
        found = self.in_directory(node, name)
        assert found is not None
        del node.children[found]

    async def rename(
        self, old: str, new: str, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        await self.exchange("rename")
        moved = self.find(old)
        node, name = self.split(new)
        found = self.in_directory(node, name)
        target = node.children[found] if found is not None else None
        if target is not None and target is not moved:
            if not replace:
                raise error(Status.OBJECT_NAME_COLLISION)
            if target.is_directory or self.is_open(target) or target.attributes & FileAttribute.READONLY:
                raise error(Status.ACCESS_DENIED)
            assert found is not None
            del node.children[found]
        above, old_name = self.split(old)
        spelled = self.in_directory(above, old_name)
        assert spelled is not None
        del above.children[spelled]
        node.children[name] = moved
        if old in self.held:
            self.held[new] = self.held.pop(old)

    async def set_owned(
        self, path: str, *, expect: int | None, mode: int | None, owner: Sid | None, group: Sid | None
    ) -> FileAttributes:
        await self.exchange("set_owned")
        child = self.find(path)
        assert child.owned is not None
        had = child.owned
        child.owned = replace(
            had,
            mode=had.mode if mode is None else mode,
            owner=owner or had.owner,
            group=group or had.group,
        )
        return child.told()

    async def rename_point(
        self, old: str, new: str, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        self.points_renamed += 1
        await self.rename(old, new, replace=replace)

    async def list_directory(self, path: str, expect: int | None, *, lease: bool = False) -> FakeListing:
        """Begin a listing; there are no leases on directories here."""
        await self.exchange("list_directory")
        node = self.find(path)
        if not node.is_directory:
            raise error(Status.NOT_A_DIRECTORY)
        if expect is not None and expect != node.file_id:
            raise OSError(116, "stale")
        entries = [node.listed("."), self.root.listed("..")] if self.server_dots else []
        entries += [child.listed(name) for name, child in node.children.items()]
        self.listings.append(FakeListing(self, entries))
        return self.listings[-1]

    async def space(self) -> VolumeSpace:
        await self.exchange("space")
        return VolumeSpace(4096, 1000, 500, 400)
