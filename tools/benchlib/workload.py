"""What is measured: each operation, how the server's side is prepared and how its success is proved there."""

from __future__ import annotations

import os
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final

MIB: Final = 1 << 20
SMALL: Final = 4096
# How often the server's side is looked at when a client answers before the bytes are there.
POLL_SECONDS: Final = 0.002
# A client that says "done" and has not delivered by then has lost the data.
DELIVERY_SECONDS: Final = 120.0


class WorkloadError(Exception):
    """An operation that did not do what it was measured for."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each."""

    bulk_mib: int
    files: int
    entries: int
    tarred: int = 2000
    found: int = 10_000
    again_mib: int = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where one measurement happens: the directory as the server sees it and its name in the share."""

    server: Path
    relative: str
    local: Path


class Pattern:
    """Bytes that are known everywhere: random blocks of 1 MiB, each with its number at both ends."""

    def __init__(self) -> None:
        self._body = os.urandom(MIB - 16)

    def block(self, index: int) -> bytes:
        """The block of that number."""
        stamp = self.stamp(index)
        return b"".join((stamp, self._body, stamp))

    def small(self, index: int) -> bytes:
        """The content of the small file of that number."""
        return self.stamp(index) + self._body[: SMALL - 8]

    @staticmethod
    def stamp(index: int) -> bytes:
        """What a block begins and ends with; never zeros."""
        return (index + 1).to_bytes(8, "big")

    def write(self, path: Path, blocks: int) -> None:
        """Make a file of so many blocks."""
        with path.open("wb") as stream:
            for index in range(blocks):
                stream.write(self.block(index))

    def check(self, path: Path, blocks: int) -> None:
        """Compare every byte of a file with what it has to be."""
        with path.open("rb") as stream:
            for index in range(blocks):
                if stream.read(MIB) != self.block(index):
                    raise WorkloadError(f"on the server, block {index} of {path.name} is not what was written")


def remote_path(place: Place, name: str) -> str:
    """A name in smbclient's words."""
    return f"{place.relative}\\{name}"


class Operation(ABC):
    """One thing that is measured."""

    name: ClassVar[str]
    # What the table calls it, with the fields of Sizes to fill in.
    label: ClassVar[str]
    # What round trips are counted by, in the singular.
    step: ClassVar[str]
    unit: ClassVar[str] = "/s"
    # The directory that all measurements share, for operations that change nothing.
    fixture: ClassVar[str | None] = None

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        self.sizes = sizes
        self.pattern = pattern
        self.title = self.label.format(**asdict(sizes))
        # How many steps one measurement makes, and how much of `unit` that is.
        self.steps = 1
        self.amount = 1.0

    def rate(self, seconds: float) -> float:
        """The figure for the table: more is better."""
        return self.amount / seconds

    def prepare(self, place: Place) -> None:
        """Make on the server what the operation finds there; the directory exists and is empty."""
        del place

    @abstractmethod
    def perform(self, directory: Path, place: Place) -> None:
        """Do it through a mount, where `directory` is the mount's view of the place."""

    def smbclient(self, place: Place) -> list[str] | None:
        """Commands that do the same in smbclient; None where there is no such thing."""
        del place
        return None

    def arrived(self, place: Place) -> bool:
        """Whether, at a glance, the server has it all."""
        del place
        return True

    def verify(self, place: Place) -> None:
        """Look closely, outside the time measured; raise WorkloadError."""
        del place

    def await_arrival(self, place: Place) -> None:
        """Wait until the server has it all."""
        limit = time.perf_counter() + DELIVERY_SECONDS
        while not self.arrived(place):
            if time.perf_counter() > limit:
                raise WorkloadError(f"{DELIVERY_SECONDS:.0f} s after its end the server still has not all of it")
            time.sleep(POLL_SECONDS)

    def timed(self, directory: Path, place: Place) -> float:
        """Seconds from the first call to the proof that the server has it."""
        began = time.perf_counter()
        self.perform(directory, place)
        self.await_arrival(place)
        return time.perf_counter() - began


def lay_out(operation: Operation, share: Path, local: Path, unique: str, *, prepared: bool = True) -> Place:
    """Make the place of one measurement, and prepare it if wanted; a fixture is made only once."""
    relative = operation.fixture or unique
    place = Place(share / relative, relative, local)
    if not place.server.exists():
        owner = share.stat()
        place.server.mkdir()
        os.chown(place.server, owner.st_uid, owner.st_gid)
        if prepared:
            operation.prepare(place)
    return place


def clear(operation: Operation, place: Place) -> None:
    """Remove what the measurement left on the server, unless later ones use it."""
    if operation.fixture is None:
        shutil.rmtree(place.server, ignore_errors=True)
