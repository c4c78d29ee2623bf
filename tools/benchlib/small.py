"""Operations on many small files and on long listings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchlib.workload import SMALL, Operation, Pattern, Place, Sizes, WorkloadError, remote_path


def small_name(index: int) -> str:
    """Name of the small file of that number."""
    return f"file-{index:05d}"


class Small(Operation):
    """An operation on many small files in one directory."""

    step = "file"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(sizes, pattern)
        self.steps = sizes.files
        self.amount = sizes.files

    def prepare(self, place: Place) -> None:
        """Make the files."""
        owner = place.server.stat()
        for index in range(self.steps):
            path = place.server / small_name(index)
            path.write_bytes(self.pattern.small(index))
            os.chown(path, owner.st_uid, owner.st_gid)


class Create(Small):
    """Create, write, close."""

    name = "create"
    label = "create of {files} files of 4 KiB (open, write, close)"

    def prepare(self, place: Place) -> None:
        """Nothing is there before."""

    def perform(self, directory: Path, place: Place) -> None:
        """Create them one after the other."""
        del place
        for index in range(self.steps):
            fd = os.open(directory / small_name(index), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                if os.write(fd, self.pattern.small(index)) != SMALL:
                    raise WorkloadError("a short write")
            finally:
                os.close(fd)

    def smbclient(self, place: Place) -> list[str]:
        """A put for each; the local files are made once."""
        folder = place.local / f"small-{self.steps}"
        if not folder.exists():
            folder.mkdir()
            for index in range(self.steps):
                (folder / small_name(index)).write_bytes(self.pattern.small(index))
        names = [small_name(index) for index in range(self.steps)]
        return [f"put {folder / name} {remote_path(place, name)}" for name in names]

    def arrived(self, place: Place) -> bool:
        """Whether all files have their size."""
        if len(os.listdir(place.server)) < self.steps:
            return False
        with os.scandir(place.server) as entries:
            return all(entry.stat().st_size == SMALL for entry in entries)

    def verify(self, place: Place) -> None:
        """Compare every byte of every file."""
        for index in range(self.steps):
            if (place.server / small_name(index)).read_bytes() != self.pattern.small(index):
                raise WorkloadError(f"on the server, {small_name(index)} is not what was written")


class OpenRead(Small):
    """Open, read to the end, close; cold."""

    name = "open-read"
    fixture = "small"
    label = "open+read+close of {files} cold files of 4 KiB"

    def perform(self, directory: Path, place: Place) -> None:
        """Open, read and close them one after the other."""
        del place
        for index in range(self.steps):
            fd = os.open(directory / small_name(index), os.O_RDONLY)
            try:
                parts = []
                while part := os.read(fd, 1 << 16):
                    parts.append(part)
            finally:
                os.close(fd)
            if b"".join(parts) != self.pattern.small(index):
                raise WorkloadError(f"{small_name(index)} was read wrong")

    def smbclient(self, place: Place) -> list[str]:
        """A get for each."""
        return [f"get {remote_path(place, small_name(index))} /dev/null" for index in range(self.steps)]


class Stat(Small):
    """Attributes of names that the client has never seen."""

    name = "stat"
    step = "name"
    fixture = "small"
    label = "stat of {files} cold names"

    def perform(self, directory: Path, place: Place) -> None:
        """Ask for them one after the other."""
        del place
        for index in range(self.steps):
            if os.stat(directory / small_name(index)).st_size != SMALL:
                raise WorkloadError(f"{small_name(index)} has a wrong size")


class Unlink(Small):
    """Removal, one by one."""

    name = "unlink"
    label = "unlink of {files} files"

    def perform(self, directory: Path, place: Place) -> None:
        """Remove them one after the other."""
        del place
        for index in range(self.steps):
            os.unlink(directory / small_name(index))

    def smbclient(self, place: Place) -> list[str]:
        """A del for each."""
        return [f"del {remote_path(place, small_name(index))}" for index in range(self.steps)]

    def arrived(self, place: Place) -> bool:
        """Whether nothing is left."""
        return not os.listdir(place.server)


class List(Operation):
    """A long listing, cold."""

    name = "ls"
    step = "listing"
    unit = "entries/s"
    fixture = "listing"
    label = "cold `ls -l` of {entries:,} entries"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(sizes, pattern)
        self.amount = sizes.entries

    def prepare(self, place: Place) -> None:
        """Make the entries, empty."""
        owner = place.server.stat()
        for index in range(self.sizes.entries):
            path = place.server / f"entry-{index:06d}.txt"
            path.touch()
            os.chown(path, owner.st_uid, owner.st_gid)

    def perform(self, directory: Path, place: Place) -> None:
        """Run ls."""
        listing = place.local / "listing.out"
        with listing.open("w") as stream:
            subprocess.run(["ls", "-l", str(directory)], stdout=stream, env={**os.environ, "LC_ALL": "C"}, check=True)
        lines = listing.read_text().splitlines()
        if len(lines) != self.sizes.entries + 1:  # the first says "total"
            raise WorkloadError(f"{len(lines) - 1} entries listed instead of {self.sizes.entries}")

    def smbclient(self, place: Place) -> list[str]:
        """One ls."""
        return [f"ls {remote_path(place, '*')}"]
