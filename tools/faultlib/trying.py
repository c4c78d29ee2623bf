"""Operations that may fail: what a lost server may say, how often something is tried, and what must not be."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from faultlib.verdicts import stuck_in

T = TypeVar("T")

# What a call may say of a server that is not there; on a share that promises nothing these are no fault.
LOST: Final = frozenset(
    {
        errno.EIO,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
    }
)
# What waited for so long may have been stuck, which the server's log says a moment later.
STUCK_AFTER: Final = 30.0
TELLING: Final = 3.0
# How names begin that a mount gives files for a while.
OWN_NAME: Final = ".smb3fs-"
# How the error of something that was is told.
STUCK: Final = " (stuck)"
SLOW: Final = 0.05
HEARTBEAT: Final = 0.25
RETRY_PAUSE: Final = 0.02
# An operation that fails for so long after the last fault will not succeed any more.
PATIENCE: Final = 90.0


class LeftAsideError(Exception):
    """Some files cannot be used any more, by the server's own word."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(f"left aside: {paths}")
        self.paths = paths


class Behind:
    """What can be told of files without asking the mount: the server's directory, and its log."""

    def __init__(self, mount: Path, behind: Path, log: Path) -> None:
        self._mount, self._behind, self._log = mount, behind, log

    def path(self, place: Path) -> Path:
        """Where a directory of the mount is on the server's disk."""
        return self._behind / place.relative_to(self._mount)

    def inode(self, place: object) -> int:
        """The number of the file of a path or a descriptor, 0 if it is not known."""
        try:
            path = Path(os.readlink(f"/proc/self/fd/{place}")) if isinstance(place, int) else place
            return os.stat(self._behind / path.relative_to(self._mount)).st_ino if isinstance(path, Path) else 0
        except (OSError, ValueError):
            return 0

    def stuck(self, inode: int) -> bool:
        """Whether the server's log says that nobody can open a file any more, or does so in a moment."""
        limit = time.monotonic() + TELLING
        while inode and time.monotonic() < limit:
            if inode in stuck_in(self._log.read_text(errors="replace")):
                return True
            time.sleep(0.2)
        return False


class NotHealedError(Exception):
    """An operation went on failing after all faults were over."""


@dataclass
class Findings:
    """What a worker hands over in the end."""

    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """By operation and errno, as in "rename EIO"."""
    violations: list[str] = field(default_factory=list)
    races: dict[int, str] = field(default_factory=dict)
    """For each name raced for: won, lost, or doubt."""
    counted: Counter[int] = field(default_factory=Counter)
    perhaps_counted: Counter[int] = field(default_factory=Counter)
    appended: list[int] = field(default_factory=list)
    perhaps_appended: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the report's process."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Trying:
    """How one worker does things; `tell` hears of each that was slow or failed, and of one now and then."""

    def __init__(self, number: int, tell: Callable[..., None], behind: Behind | None = None) -> None:
        self.number = number
        self._behind = behind
        self.found = Findings()
        self.stopping_since: float | None = None
        self._tell = tell
        self._told = 0.0
        self._failed = False
        self._violated: set[str] = set()
        self._stuck: set[int] = set()

    def behind(self, place: Path) -> Path | None:
        """Where a directory of the mount is on the server's disk, if that is known."""
        return self._behind.path(place) if self._behind is not None else None

    def once(self, what: str, action: Callable[..., T], *arguments: Any, fine: tuple[int, ...] = ()) -> T | OSError:
        """Do something once: its result, or the error of a lost server or one that is `fine`; others are violations."""
        before = self._inodes(arguments)
        began = time.monotonic()
        result: T | OSError
        said = ""
        try:
            result = action(*arguments)
        except OSError as error:
            result = error
            if error.errno not in fine:
                said = errno.errorcode.get(error.errno or 0, str(error.errno))
        ended = time.monotonic()
        if not said:
            self.found.done[what] += 1
            if self._failed or ended - began >= SLOW or ended - self._told >= HEARTBEAT:
                self._tell(began, ended, what, "")
                self._told, self._failed = ended, False
            return result
        self._failed = True
        # What is to be removed may have another name by now, and what is to be made had none before.
        inodes = [*before, *self._inodes(arguments)]
        late = isinstance(result, OSError) and result.errno == errno.ETIMEDOUT and ended - began > STUCK_AFTER
        inode = next((inode for inode in inodes if late and self._behind and self._behind.stuck(inode)), 0)
        said += STUCK if inode else ""
        self.found.errors[f"{what} {said}"] += 1
        self._tell(began, ended, what, said, inode or max(inodes, default=0))
        if inode:
            self._stuck.add(inode)
            raise LeftAsideError([place for place in arguments if isinstance(place, Path)])
        if isinstance(result, OSError) and result.errno not in LOST:
            self.violation(f"{what}: {result}")
        return result

    def _inodes(self, arguments: Sequence[Any]) -> list[int]:
        """The numbers of the files that an operation is about, as far as they are known."""
        # A number in the second place is none of a descriptor, but the kind of a lock, or a length.
        places = [*arguments[:1], *(place for place in arguments[1:2] if not isinstance(place, int))]
        return [self._behind.inode(place) for place in places] if self._behind is not None else [0]

    def is_aside(self, path: Path) -> bool:
        """Whether what has a name is a file that was left aside, by whatever name that was.

        So is what has a name of a mount's own, if the server does not let the mount take that away.
        """
        if self._behind is None:
            return False
        inode = self._behind.inode(path)
        return inode in self._stuck or (path.name.startswith(OWN_NAME) and self._behind.stuck(inode))

    def until_done(
        self, what: str, action: Callable[..., T], *arguments: Any, explained: tuple[int, ...] = ()
    ) -> T | None:
        """Do something until it succeeds, or after a failure says that it was done; None stands for the latter."""
        result = self.once(what, action, *arguments)
        while isinstance(result, OSError):
            if result.errno not in LOST:
                return None
            self.patience(what, result)
            result = self.once(what, action, *arguments, fine=explained)
            if isinstance(result, OSError) and result.errno in explained:
                return None
        return result

    def patience(self, what: str, error: OSError) -> None:
        """Wait before the next try, which must succeed some time after the last fault."""
        if self.stopping_since is not None and time.monotonic() > self.stopping_since + PATIENCE:
            raise NotHealedError(f"{what} still fails {PATIENCE:.0f} s after the last fault: {error}")
        time.sleep(RETRY_PAUSE)

    def violation(self, text: str) -> None:
        """Remember what must not be; once, as it may be seen again and again."""
        if text in self._violated:
            return
        self._violated.add(text)
        now = time.monotonic()
        self.found.violations.append(f"{now:.3f} worker {self.number}: {text}")
        self._tell(now, now, "violation", text)
