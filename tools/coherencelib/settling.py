"""After a fault, or an operation that failed over one: what the server has, and whether it is one of what may be.

An operation that failed was done or was not. Which of the two is seen on the server's own disk, which holds what the
server has acknowledged and nothing else; from there on the model knows again.
"""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from faultlib.trying import LOST

from coherencelib.actor import ASIDE
from coherencelib.model import File, Model
from coherencelib.operations import ASKING, LEFT, RIGHT, SMBCLIENT, Operation, difference
from coherencelib.outages import Outages
from coherencelib.sides import ERRORS, Answer, Side

# Longer than the mounts' timeout= and than a server waits for the acknowledgement of a lease's break.
PATIENCE: Final = 90.0
LOST_NAMES: Final = frozenset(errno.errorcode[number] for number in LOST)
# Where each mount tries whether it can change something again; outside of what the model knows.
HEALED: Final = "../healed-by-{}"
EMPTIED: Final = frozenset({"put"})
"""What empties a file before it writes to it."""


class LostError(Exception):
    """An operation has failed with what a lost server makes of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.answer = answer


def is_lost(operation: Operation, answer: Answer, outages: Outages, before: Model) -> bool:
    """Whether an answer is what may come of a lost server, as things stood before it.

    smbclient has many words for that, while it is lost; and of a file that is not where it was opened any more a lost
    handle leaves nothing to go by, which is ESTALE.
    """
    if outages.is_kept_back(operation, before, answer.error):
        return True
    if operation.side == SMBCLIENT:
        return outages.active and answer.error not in ("", *ERRORS.values())
    return answer.error in LOST_NAMES or (answer.error == "ESTALE" and before.is_moved(operation))


class Settling:
    """Brings model and share together again, by the server's disk."""

    def __init__(self, outages: Outages, sides: Mapping[str, Side], folder: Path, renew: Callable[[], None]) -> None:
        """`folder` is the history's, on the server's disk; `renew` gives smbclient a new connection."""
        self.outages = outages
        self._sides, self._folder, self._renew = sides, folder, renew

    def settle(self, model: Model, failed: Operation | None = None, before: Model | None = None) -> tuple[Model, str]:
        """End the fault, have what is gathered arrive, and look; the model from here on, and what is wrong if anything.

        `failed` is what failed if something did, and `before` the model without it.
        """
        self.outages.wait()
        self._renew()
        told = self.outages.healed({name: lambda name=name: self._changes(name) for name in (LEFT, RIGHT)}, PATIENCE)
        candidates = [model] if failed is None or before is None else [model, before]
        if failed is not None:
            told = told or self._close_what_failed(candidates, failed)
        told = told or self._sync(candidates)
        self.outages.over()
        if told:
            return model, told
        return self._look(candidates, failed)

    def _changes(self, name: str) -> str:
        """Whether a mount changes something at the server: the error if not."""
        answer = self._sides[name].do(Operation(0, name, "put", (HEALED.format(name), 1)))
        return answer.error

    def _close_what_failed(self, candidates: list[Model], failed: Operation) -> str:
        """What a side has open of a file of which it lost something is closed: each open may tell of it once."""
        slot = candidates[-1].slot(failed)
        file = candidates[-1].slots[slot][0] if slot in candidates[-1].slots else None
        mine = [one for one, (of, _) in candidates[-1].slots.items() if of is file and one[0] == failed.side]
        for one in mine:
            if (failed.verb, one) != ("close", slot):
                self._close(one)
        if failed.verb in ("create", "open"):
            mine.append((failed.side, failed.arguments[1]))
        for model in candidates:
            for one in mine:
                model.lose(one)
        return ""

    def _close(self, slot: tuple[str, int]) -> None:
        """Close; whatever that says, it is closed."""
        self._sides[slot[0]].do(Operation(0, slot[0], "close", slot[1:]))

    def _sync(self, candidates: list[Model]) -> str:
        """Have all that is gathered arrive, or fail."""
        for slot in sorted({slot for file, _ in candidates[0].slots.values() for slot in file.dirty}):
            if slot not in candidates[0].slots:
                continue
            sync = Operation(0, slot[0], "fsync", slot[1:])
            answer = self._sides[slot[0]].do(sync)
            if not answer.error:
                for model in candidates:
                    model.slots[slot][0].arrived(slot)
            elif not is_lost(sync, answer, self.outages, candidates[0]) or not self.outages.excused(
                sync, candidates[0], answer.error
            ):
                return f"{sync.side} fsync({slot[1]}) of what was written before: {answer.error} in place of success"
            else:
                self._close_what_failed(candidates, sync)
        return ""

    def _look(self, candidates: list[Model], failed: Operation | None) -> tuple[Model, str]:
        """Take over what the disk has, if it is one of what may be."""
        directories, files = seen(self._folder)
        fitting = [
            model for model in candidates if model.directories == directories and model.files.keys() == files.keys()
        ]
        if not fitting:
            wanted = " or ".join(names(model.directories, model.files) for model in candidates)
            return candidates[0], f"the server has {names(directories, files)} in place of {wanted}"
        # What may have been changed in part may hold what either model says.
        other = candidates[-1] if failed is not None else None
        exactly = [model for model in fitting if all(bytes(model.files[path].data) == files[path] for path in files)]
        found = next((model for model in (*exactly, *fitting) if not _wrong(model, other, failed, files)), None)
        if found is None:
            return fitting[0], f"the server has of {_wrong(fitting[0], other, failed, files)}"
        if failed is not None and failed.verb not in ASKING:
            become = "in part" if not exactly else "done" if found is candidates[0] else "not done"
            self.outages.felt.settled[f"{failed.verb} {become}"] += 1
        for path, file in found.files.items():
            if bytes(file.data) != files[path]:
                file.data[:] = files[path]
                file.modified = None
            if failed is not None and (path in failed.arguments or failed.verb == "utime"):
                file.modified = None
            file.past, file.ends, file.dirty = [], set(), set()
        return found, ""


def _wrong(model: Model, other: Model | None, failed: Operation | None, files: Mapping[str, bytes]) -> str:
    """The first file that holds what it may not, in words."""
    for path, file in model.files.items():
        if not _may_hold(file, other.files.get(path) if other is not None else None, failed, files[path]):
            return f"{path}: {difference(files[path], bytes(file.data))}"
    return ""


def _may_hold(file: File, other: File | None, failed: Operation | None, data: bytes) -> bool:
    """Whether a file may hold that: what it is known to, or what it did without an operation that failed."""
    either = copy.deepcopy(file)
    if other is not None:
        either.past += [bytes(other.data), *other.past]
        either.ends |= other.ends
    if failed is not None and failed.verb in EMPTIED and (other is None or other.data != file.data):
        either.past.append(b"")
    return either.may_hold(data)


def seen(folder: Path) -> tuple[set[str], dict[str, bytes]]:
    """The directories and files of a history, as the server's disk has them, but for those that are set aside."""
    directories, files = set(), {}
    for place, _, inside in os.walk(folder):
        relative = os.path.relpath(place, folder)
        above = "" if relative == "." else f"{relative}/"
        directories.add(above.rstrip("/"))
        files.update({f"{above}{name}": (Path(place) / name).read_bytes() for name in inside if ASIDE not in name})
    return directories, files


def names(directories: set[str], files: Mapping[str, object]) -> str:
    """What there is, in words."""
    return " ".join(sorted([*files, *(f"{name}/" for name in directories if name)])) or "nothing"
