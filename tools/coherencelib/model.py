"""What the share holds after each operation, if everybody sees everything at once.

What the protocol leaves open is not asked for: such operations are left out, as are those on what is not there to
be worked on (so that a history stays one when operations are taken from it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from coherencelib.operations import DISK, FAULT, PAGE, SMBCLIENT, Operation, content

READS: Final = frozenset({"r", "rw", "direct"})
WRITES: Final = frozenset({"rw", "direct"})
MAPS: Final = frozenset({"r", "rw"})
LOOKING: Final = frozenset({"stat", "list"})
"""What takes no lease away from who has a file open."""
BY_SLOT: Final = frozenset({"close", "read", "write", "append", "cut", "size", "fsync", "map_read", "map_write"})


@dataclass
class File:
    """A file: with its names gone it lives on for those who have it open."""

    home: str
    data: bytearray = field(default_factory=bytearray)
    modified: int | None = None
    """The time that was set last, in seconds, if nothing was written since."""
    opens: set[tuple[str, int]] = field(default_factory=set)
    named: bool = True
    dirty: set[tuple[str, int]] = field(default_factory=set)
    """Who has written what may still be gathered there."""
    past: list[bytes] = field(default_factory=list)
    """What it holds without the last of these writes, without the last two, and so on; empty if none is gathered."""
    ends: set[int] = field(default_factory=set)
    """Where these writes end: how long it is if only one of them has arrived."""
    shared: set[tuple[str, int]] = field(default_factory=set)
    """Who has it open and was not alone with it all the time."""
    moved: set[tuple[str, int]] = field(default_factory=set)
    """Who has it open by a name that it has not any more."""
    lost: bool = False
    """Whether one of these has lost it, while others had to do with it: the server may keep it for him."""

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at a place; zeros come before them if it is behind the end."""
        _placed(self.data, offset, data)
        self.past = [_placed(bytearray(one), offset, data) for one in self.past]
        self.modified = None

    def gather(self, who: tuple[str, int], offset: int, data: bytes) -> None:
        """The same, if the bytes may stay with the writer for a while."""
        self.past.append(bytes(self.data))
        _placed(self.data, offset, data)
        self.dirty.add(who)
        self.ends.add(offset + len(data))
        self.modified = None

    def arrived(self, who: tuple[str, int]) -> None:
        """What somebody has written is with the server."""
        self.dirty.discard(who)
        if not self.dirty:
            self.past, self.ends = [], set()

    def append(self, data: bytes) -> None:
        """Put bytes at the end, wherever that is."""
        self.data += data
        self.past = [one + data for one in self.past]
        self.modified = None

    def truncate(self, size: int) -> None:
        """Cut, or extend by zeros."""
        _resized(self.data, size)
        self.past = [_resized(bytearray(one), size) for one in self.past]
        self.ends = {end for end in self.ends if end <= size}
        self.modified = None

    def may_hold(self, data: bytes, offset: int = 0, size: int | None = None) -> bool:
        """Whether that may be what it holds from a place on, as far as nobody knows which writes have arrived."""
        states = [bytes(self.data), *self.past]
        lengths = {len(state) for state in states} | self.ends
        wanted = {max(0, min(length, length if size is None else offset + size) - offset) for length in lengths}
        if len(data) not in wanted:
            return False
        parts = [state[offset : offset + len(data)].ljust(len(data), b"\0") for state in states]
        return any(data == part for part in parts) or all(
            byte in choice for byte, *choice in zip(data, *parts, strict=True)
        )

    def may_be_long(self, size: int) -> bool:
        """Whether that may be its size, likewise."""
        return size in {len(self.data), *map(len, self.past), *self.ends}


def _placed(data: bytearray, offset: int, piece: bytes) -> bytes:
    """Put bytes at a place, and zeros before them; what it is then."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece
    return bytes(data)


def _resized(data: bytearray, size: int) -> bytes:
    """Cut, or extend by zeros; what it is then."""
    del data[size:]
    data.extend(bytes(size - len(data)))
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Expected:
    """What an operation must answer: an error's name, or else a value."""

    value: Any = None
    error: str = ""
    allows: Callable[[Any], bool] | None = None
    """What else may be answered."""


class Model:
    """The share's directory of one history."""

    def __init__(self, *, gathers: bool = False) -> None:
        """With `gathers` it keeps what files hold if writes have not arrived yet, which matters if they never do."""
        self._gathers = gathers
        self.files: dict[str, File] = {}
        self.directories: set[str] = {""}
        self.slots: dict[tuple[str, int], tuple[File, str]] = {}

    def do(self, operation: Operation) -> Expected | None:
        """Carry it out; None, and nothing done, if it cannot be asked for here."""
        if operation.side == FAULT:
            return Expected()
        before = self.about(operation)
        expected: Expected | None = getattr(self, f"_{operation.verb}")(operation, *operation.arguments)
        if expected is not None and operation.verb not in LOOKING:
            for file in {id(file): file for file in (*before, *self.about(operation))}.values():
                if len({operation.side, *(side for side, _ in file.opens)}) > 1:
                    file.shared |= file.opens
        return expected

    def about(self, operation: Operation) -> list[File]:
        """Which files an operation is about, as things stand before it."""
        words = [operation.arguments[0], *operation.arguments[1:2]] if operation.arguments else []
        found = [file for word in words if (file := self.files.get(str(word))) is not None]
        slot = self.slots.get((operation.side, words[0])) if words else None
        return [*found, slot[0]] if slot else found

    def touched(self, operation: Operation) -> set[int]:
        """The same, by identity."""
        return {id(file) for file in self.about(operation)}

    def slot(self, operation: Operation) -> tuple[str, int] | None:
        """The open file that an operation is done to, if it is."""
        if operation.verb in BY_SLOT and operation.arguments:
            return operation.side, operation.arguments[0]
        return None

    def is_shared(self, operation: Operation) -> bool:
        """Whether another side has, or has had while it was open here, the file that an operation is about."""
        slot = self.slot(operation)
        if slot is not None:
            return slot in self.slots and slot in self.slots[slot][0].shared
        return any(side != operation.side for file in self.about(operation) for side, _ in file.opens)

    def is_moved(self, operation: Operation) -> bool:
        """Whether an operation is about an open file that has lost the name by which it was opened."""
        slot = self.slot(operation)
        return slot is not None and slot in self.slots and slot in self.slots[slot][0].moved

    def is_nameless(self, operation: Operation) -> bool:
        """Whether an operation is about an open file that has lost a name while several clients had to do with it."""
        slot = self.slot(operation)
        if slot is None or slot not in self.slots:
            return False
        file = self.slots[slot][0]
        return slot in file.moved & file.shared

    def may_be_kept_back(self, operation: Operation) -> bool:
        """Whether an operation is about a file that the server may keep for somebody who cannot claim it any more.

        He has it open by a name that it has lost through others, or had when that became known.
        """
        return any(file.lost or file.moved & file.shared for file in self.about(operation))

    def lose(self, slot: tuple[str, int]) -> None:
        """A file is lost to who has it open there."""
        file, _ = self.slots.get(slot, (None, ""))
        if file is not None and slot in file.moved & file.shared:
            file.lost = True
        self.drop(slot)

    def drop(self, slot: tuple[str, int]) -> None:
        """A file is not open there any more, whatever has become of what was written."""
        file, _ = self.slots.pop(slot, (None, ""))
        if file is not None:
            file.opens.discard(slot)
            file.shared.discard(slot)
            file.moved.discard(slot)

    # -- by path -----------------------------------------------------------------------------------------------------

    def _missing(self, path: str) -> Expected | None:
        """ENOENT, if there is no such file."""
        return None if path in self.files else Expected(error="ENOENT")

    def _others(self, file: File, side: str) -> bool:
        """Whether anybody has the file open who would keep its name taken."""
        return any(other != side or side in (SMBCLIENT, DISK) for other, _ in file.opens)

    def _get(self, operation: Operation, path: str) -> Expected:
        return self._missing(path) or Expected(bytes(self.files[path].data))

    def _put(self, operation: Operation, path: str, size: int) -> Expected:
        if home(path) not in self.directories:
            return Expected(error="ENOENT")
        file = self.files.setdefault(path, File(home(path)))
        file.truncate(0)
        file.write(0, content(operation.number, size))
        return Expected()

    def _truncate(self, operation: Operation, path: str, size: int) -> Expected:
        missing = self._missing(path)
        if missing is None:
            self.files[path].truncate(size)
        return missing or Expected()

    def _stat(self, operation: Operation, path: str) -> Expected:
        if path in self.directories:
            return Expected(["directory"])
        missing = self._missing(path)
        return missing or Expected(["file", len(self.files[path].data), self.files[path].modified])

    def _utime(self, operation: Operation, path: str, seconds: int) -> Expected | None:
        missing = self._missing(path)
        if missing is None:
            if self.files[path].opens:
                return None  # a server may tell the time of a write later, when the file is closed
            self.files[path].modified = seconds
        return missing or Expected()

    def _list(self, operation: Operation, path: str) -> Expected:
        if path not in self.directories:
            return Expected(error="ENOENT")
        return Expected(sorted(self._entries(path)))

    def _entries(self, path: str) -> list[str]:
        """The names in a directory."""
        found = [name for name in (*self.files, *self.directories) if name and home(name) == path]
        return [name.rpartition("/")[2] for name in found]

    def _unlink(self, operation: Operation, path: str) -> Expected | None:
        missing = self._missing(path)
        if missing is None:
            if self._others(self.files[path], operation.side):
                return None
            file = self.files.pop(path)
            file.named = False
            file.moved |= file.opens
        return missing or Expected()

    def _rename(self, operation: Operation, path: str, to: str) -> Expected | None:
        missing = self._missing(path)
        if missing is not None or path == to:
            return missing if path != to else None
        if home(to) not in self.directories:
            return Expected(error="ENOENT")
        replaced = self.files.get(to)
        if replaced is not None:
            if self._others(replaced, operation.side):
                return None
            replaced.named = False
            replaced.moved |= replaced.opens
        self.files[to] = file = self.files.pop(path)
        file.home = home(to)
        file.moved |= file.opens
        return Expected()

    def _mkdir(self, operation: Operation, path: str) -> Expected:
        if path in self.directories:
            return Expected(error="EEXIST")
        self.directories.add(path)
        return Expected()

    def _rmdir(self, operation: Operation, path: str) -> Expected | None:
        if path not in self.directories:
            return Expected(error="ENOENT")
        if self._busy(path):
            return None
        if self._entries(path):
            return Expected(error="ENOTEMPTY")
        self.directories.remove(path)
        return Expected()

    def _rename_directory(self, operation: Operation, path: str, to: str) -> Expected | None:
        if path not in self.directories:
            return Expected(error="ENOENT")
        if to in self.directories or self._busy(path):
            return None
        self.directories.remove(path)
        self.directories.add(to)
        for name in [name for name in self.files if home(name) == path]:
            file = self.files.pop(name)
            file.home = to
            self.files[f"{to}/{name.rpartition('/')[2]}"] = file
        return Expected()

    def _busy(self, path: str) -> bool:
        """Whether a file below it is open, which keeps a directory where it is."""
        return any(file.home == path for file, _ in self.slots.values())

    # -- what is open ------------------------------------------------------------------------------------------------

    def _opened(self, operation: Operation, slot: int, file: File, how: str) -> Expected:
        """Take it down."""
        self.slots[operation.side, slot] = file, how
        file.opens.add((operation.side, slot))
        return Expected()

    def _create(self, operation: Operation, path: str, slot: int) -> Expected | None:
        if (operation.side, slot) in self.slots:
            return None
        if home(path) not in self.directories:
            return Expected(error="ENOENT")
        if path in self.files:
            return Expected(error="EEXIST")
        self.files[path] = File(home(path))
        return self._opened(operation, slot, self.files[path], "rw")

    def _open(self, operation: Operation, path: str, slot: int, how: str) -> Expected | None:
        if (operation.side, slot) in self.slots:
            return None
        return self._missing(path) or self._opened(operation, slot, self.files[path], how)

    def _close(self, operation: Operation, slot: int) -> Expected | None:
        file, _ = self.slots.get((operation.side, slot), (None, ""))
        if file is None:
            return None
        self.drop((operation.side, slot))
        file.arrived((operation.side, slot))
        return Expected()

    def _of(self, operation: Operation, slot: int, hows: frozenset[str]) -> File | None:
        """The file of a slot, if it is open in one of these ways."""
        file, how = self.slots.get((operation.side, slot), (None, ""))
        return file if how in hows else None

    def _read(self, operation: Operation, slot: int, offset: int, size: int) -> Expected | None:
        file = self._of(operation, slot, READS)
        return None if file is None else Expected(bytes(file.data[offset : offset + size]))

    def _write(self, operation: Operation, slot: int, offset: int, size: int) -> Expected | None:
        file = self._of(operation, slot, WRITES)
        if file is None:
            return None
        if self._gathers and self.slots[operation.side, slot][1] == "rw":
            file.gather((operation.side, slot), offset, content(operation.number, size))
        else:
            file.write(offset, content(operation.number, size))
        return Expected()

    def _append(self, operation: Operation, slot: int, size: int) -> Expected | None:
        file = self._of(operation, slot, frozenset({"append"}))
        if file is None:
            return None
        file.append(content(operation.number, size))
        return Expected()

    def _cut(self, operation: Operation, slot: int, size: int) -> Expected | None:
        file = self._of(operation, slot, WRITES)
        if file is None or not file.named:
            return None
        file.truncate(size)
        return Expected()

    def _size(self, operation: Operation, slot: int) -> Expected | None:
        file, _ = self.slots.get((operation.side, slot), (None, ""))
        return None if file is None else Expected(len(file.data))

    def _fsync(self, operation: Operation, slot: int) -> Expected | None:
        file = self._of(operation, slot, WRITES)
        if file is None:
            return None
        file.arrived((operation.side, slot))
        return Expected()

    def _map_read(self, operation: Operation, slot: int, offset: int, size: int) -> Expected | None:
        file = self._of(operation, slot, MAPS)
        if file is None or offset + size > len(file.data):
            return None
        return Expected(bytes(file.data[offset : offset + size]))

    def _map_write(self, operation: Operation, slot: int, page: int) -> Expected | None:
        file = self._of(operation, slot, frozenset({"rw"}))
        if file is None or (page + 1) * PAGE > len(file.data):
            return None
        file.write(page * PAGE, content(operation.number, PAGE))
        return Expected()

    def _pause(self, operation: Operation, seconds: float) -> Expected:
        return Expected()


def home(path: str) -> str:
    """The directory of a path, empty for the root."""
    return path.rpartition("/")[0]
