"""Operations on one large file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

from benchlib.workload import MIB, Operation, Pattern, Place, Sizes, WorkloadError, remote_path


class Bulk(Operation):
    """An operation on one large file."""

    step = "MiB"
    unit = "MB/s"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(sizes, pattern)
        self.steps = sizes.bulk_mib
        self.amount = sizes.bulk_mib * MIB / 1e6

    def source(self, place: Place) -> Path:
        """The file on this machine that copies are made of; made once."""
        path = place.local / f"source-{self.steps}"
        if not path.exists():
            self.pattern.write(path, self.steps)
        return path


class Deposit(Bulk):
    """An operation that puts one large file on the server."""

    target = "deposited"

    def prepare(self, place: Place) -> None:
        """Make the local source."""
        self.source(place)

    def arrived(self, place: Place) -> bool:
        """Whether the file has its size."""
        try:
            return (place.server / self.target).stat().st_size == self.steps * MIB
        except FileNotFoundError:
            return False

    def verify(self, place: Place) -> None:
        """Compare every byte."""
        self.pattern.check(place.server / self.target, self.steps)


class Write(Deposit):
    """Sequential write of a new file."""

    name = "write"
    label = "sequential write, {bulk_mib} MiB in 1 MiB writes, fsync, close"

    def perform(self, directory: Path, place: Place) -> None:
        """Write, fsync, close."""
        del place
        buffer = bytearray(self.pattern.block(0))
        fd = os.open(directory / self.target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            for index in range(self.steps):
                buffer[:8] = buffer[-8:] = self.pattern.stamp(index)
                if os.write(fd, buffer) != MIB:
                    raise WorkloadError("a short write")
            os.fsync(fd)
        finally:
            os.close(fd)

    def smbclient(self, place: Place) -> list[str]:
        """One put."""
        return [f"put {self.source(place)} {remote_path(place, self.target)}"]


class Copy(Deposit):
    """The same by cp."""

    name = "cp"
    label = "cp of {bulk_mib} MiB into the mount"

    def perform(self, directory: Path, place: Place) -> None:
        """Run cp."""
        subprocess.run(["cp", str(self.source(place)), str(directory / self.target)], check=True)


class Read(Bulk):
    """Cold sequential read."""

    name = "read"
    fixture: ClassVar[str | None] = "bulk"
    target = "to-read"
    label = "cold sequential read, {bulk_mib} MiB in 1 MiB reads"

    def prepare(self, place: Place) -> None:
        """Make the file."""
        self.pattern.write(place.server / self.target, self.steps)

    def perform(self, directory: Path, place: Place) -> None:
        """Read to the end, looking at the stamps of each block."""
        del place
        buffer = bytearray(MIB)
        view = memoryview(buffer)
        fd = os.open(directory / self.target, os.O_RDONLY)
        try:
            for index in range(self.steps):
                filled = 0
                while filled < MIB:
                    count = os.readv(fd, [view[filled:]])
                    if not count:
                        raise WorkloadError(f"the file ends in block {index}")
                    filled += count
                stamp = self.pattern.stamp(index)
                if buffer[:8] != stamp or buffer[-8:] != stamp:
                    raise WorkloadError(f"block {index} was read wrong")
            if os.read(fd, 1):
                raise WorkloadError("the file does not end where it should")
        finally:
            os.close(fd)

    def smbclient(self, place: Place) -> list[str]:
        """One get."""
        return [f"get {remote_path(place, self.target)} /dev/null"]
