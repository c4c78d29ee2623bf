"""What a server has broken by itself, by its own log: opens that it has forgotten, files that it lets nobody open.

Defects of Samba 4.25.1 (docs/faults.md has the proof):

    forgotten   A timer of the scavenger that an earlier loss has left deletes an open that nobody has claimed yet, long
                before its time is over, since its process is gone. The claim then hears that there is no such open.
                Samba 4.17.12 does so after each loss, whether a process was killed or not.
    taken       An open is not kept when its connection is lost, as the server takes H of its lease back at that moment:
                one of the file's names is being removed. (From 4.22 on; it takes it from who removes the name as well.)
    stuck       A process is killed between the places where it writes down a new open. The scavenger cannot delete what
                is left, as one of them is empty, or does not even try, as another does not say yet that the open is a
                persistent one; and nobody can open the file, or another one of its number.

A verdict rests on the server's word alone. That a file was stuck is tried by another client as well, when our mounts
are gone.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

HEADER: Final = re.compile(r"^\[(\d+/\d+/\d+ \d+:\d+:\d+)(\.\d+)?,.*?\]", re.MULTILINE)
CLEANED: Final = re.compile(r"cleaning up entry for file \(file-id='\d+:(\d+):\d+'.*?from open_persistent_id (\d+)")
# What 4.17 says instead, of all opens of a file; and when they lost their connection.
SWEPT: Final = re.compile(r"cleaning up \d+ entries for file \(file-id='\d+:(\d+):\d+'")
DISCONNECTED: Final = re.compile(r"mark file \d+:(\d+):\d+ as disconnected at")
IN_USE: Final = re.compile(r"file \(file-id='\d+:(\d+):\d+'.*? is used by server .* internal error")
UNKNOWN: Final = re.compile(r"smbXsrv_open_global_verify_record for ([0-9A-F]{8}) failed: NT_STATUS_NOT_FOUND")
STUCK: Final = re.compile(r"Failed to cleanup open global for file \d+:(\d+):\d+ open \d+: NT_STATUS_NOT_FOUND")
# The table of share modes says of it that it is a persistent one without a process, and its own record does not.
UNMARKED: Final = re.compile(r"Open \[0x([0-9a-f]+)\] fileid \[\d+:(\d+):\d+\] is not marked disconnected")
# A break of a file's lease, then by what name the file is open and what is left: 1 is R, 2 is H.
BREAKING: Final = re.compile(r"initial_break_processing: called for \d+:(\d+):\d+/")
BREAK: Final = re.compile(r"sending oplock break for file (.*), fnum \d+, smb2 level (\d)$", re.MULTILINE)
NOT_KEPT: Final = re.compile(r"Failed to disconnect durable handle for file (.*): NT_STATUS_NOT_SUPPORTED - ")
READ, HANDLE = 1, 2
# The server's processes share a log: what follows a break's first line so soon, with none like it between, is its own.
SAME_BREAK: Final = 0.005
# How long H may be away until we have it back, in seconds; for what is lost later we are to blame.
TAKING: Final = 1.0
# What the log has to tell for it; and for what is taken, which makes half a megabyte a second.
LOG_LEVEL: Final = "log level = 1 scavenger:10"
BREAKS_LEVEL: Final = "smb2:10 locking:3"
# For how long an open is kept whose client has gone, in seconds; an error shows at the next use of what was lost.
KEPT: Final = 60.0


@dataclass
class Told:
    """What a server's log says; times are those of the day, in seconds since the epoch."""

    cleaned: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """By the number of an open: the inode of its file, and when the scavenger has deleted it; it may do so anew."""
    unknown: dict[int, list[float]] = field(default_factory=dict)
    """By the number of an open: when it was claimed, and not found."""
    stuck: set[int] = field(default_factory=set)
    """Inodes of files of which the scavenger cannot delete what a killed process has left."""
    disconnected: dict[int, list[float]] = field(default_factory=dict)
    """By inode: when its opens have lost their connection, in order."""
    swept: list[tuple[int, float]] = field(default_factory=list)
    """Inodes of files all of whose opens the scavenger has deleted, and when."""

    taken: list[tuple[int, float]] = field(default_factory=list)
    """Inodes of files an open of which was not kept at a loss, as H was being taken from it, and when."""

    def was_taken(self, inode: int, now: float) -> bool:
        """Whether a file's open was lost as H was being taken from it; the next loss is about other opens."""
        for of, lost in self.taken:
            after = min((when for when in self.disconnected.get(inode, ()) if when > lost), default=math.inf)
            if of == inode and lost <= now < after:
                return True
        return False

    def swept_early(self, inode: int, now: float) -> bool:
        """Whether the opens of a file were deleted in their time since a loss; the next one is about other opens."""
        losses = self.disconnected.get(inode, [])
        for of, deleted in self.swept:
            before = max((when for when in losses if when <= deleted), default=-math.inf)
            after = min((when for when in losses if when > deleted), default=math.inf)
            if of == inode and deleted < before + KEPT and deleted <= now < after:
                return True
        return False

    def forgotten(self, inode: int, faults: Sequence[tuple[float, bool]], now: float) -> bool:
        """Whether an open of a file was deleted within its time since a loss, and claimed in vain after that.

        `faults` says when each began, and whether it ended a process of the server; the last one before the deletion
        must have. After others an open that is deleted may be one of which a claim was refused, which is ours to avoid.
        """
        for number, times in self.cleaned.items():
            for of, deleted in times:
                begun, killed = max((one for one in faults if one[0] <= deleted), default=(0.0, False))
                in_time = killed and deleted < begun + KEPT
                if of == inode and in_time and any(deleted <= when <= now for when in self.unknown.get(number, ())):
                    return True
        return False


def read(log: str) -> Told:
    """Take in a server's log."""
    told = Told()
    last = 0
    breaks = _Breaks()
    for when, text in _entries(log):
        if inode := breaks.lost(when, text):
            told.taken.append((inode, when))
        if found := CLEANED.search(text):
            last = int(found[2])
            told.cleaned.setdefault(last, []).append((int(found[1]), when))
        elif (found := IN_USE.search(text)) and any(of == int(found[1]) for of, _ in told.cleaned.get(last, ())[-1:]):
            # Its process lives. Samba forgets such opens when it has refused a claim, which is ours to avoid.
            told.cleaned[last].pop()
        elif found := SWEPT.search(text):
            told.swept.append((int(found[1]), when))
        elif found := DISCONNECTED.search(text):
            told.disconnected.setdefault(int(found[1]), []).append(when)
        elif found := UNKNOWN.search(text):
            told.unknown.setdefault(int(found[1], 16), []).append(when)
    told.stuck = stuck_in(log)
    return told


def stuck_in(log: str) -> set[int]:
    """The inodes of files of which a server's log says that what a killed process has left is not deleted any more."""
    deleted = {int(found[2]) for found in CLEANED.finditer(log)}
    unmarked = {int(found[2]) for found in UNMARKED.finditer(log) if int(found[1], 16) not in deleted}
    return unmarked | {int(found[1]) for found in STUCK.finditer(log)}


class _Breaks:
    """Follows breaks through a log, to tell whether an open that is not kept is one from which H was being taken."""

    def __init__(self) -> None:
        self._begun: list[tuple[float, int]] = []
        self._latest: dict[str, tuple[float, int, int]] = {}

    def lost(self, when: float, text: str) -> int:
        """Take in an entry; return the inode of the file of such an open if it tells of one, else 0."""
        if found := BREAKING.search(text):
            self._begun.append((when, int(found[1])))
        elif found := BREAK.search(text):
            begun = {inode for since, inode in self._begun if when - since < SAME_BREAK}
            self._begun.clear()
            # Of several that were begun at a time nobody can tell which this is.
            self._latest[found[1]] = (when, begun.pop() if len(begun) == 1 else 0, int(found[2]))
        elif found := NOT_KEPT.search(text):
            since, inode, left = self._latest.get(found[1], (-math.inf, 0, 0))
            return inode if when - since < TAKING and left & READ and not left & HANDLE else 0
        return 0


def _entries(log: str) -> Iterator[tuple[float, str]]:
    """Yield what was logged, and when."""
    heads = list(HEADER.finditer(log))
    ends = [*(head.start() for head in heads[1:]), len(log)]
    for head, end in zip(heads, ends, strict=False):
        when = time.mktime(time.strptime(head[1], "%Y/%m/%d %H:%M:%S")) + float(head[2] or 0)
        yield when, log[head.end() : end]
