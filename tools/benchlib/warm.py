"""Unpacking a tree of small files; going through one, and reading a large file, for the second time."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from benchlib.bulk import Read
from benchlib.small import small_name
from benchlib.workload import SMALL, Operation, Pattern, Place, Sizes, WorkloadError

# Files in each directory of a tree.
EACH = 100


def spread(count: int) -> list[str]:
    """Names of so many files, some in each of several directories."""
    return [f"dir-{index // EACH:03d}/{small_name(index)}" for index in range(count)]


class Untar(Operation):
    """Unpacking an archive of small files."""

    name = "untar"
    step = "file"
    label = "tar x of {tarred:,} files of 4 KiB in directories of 100"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(sizes, pattern)
        self.steps = sizes.tarred
        self.amount = sizes.tarred

    def prepare(self, place: Place) -> None:
        """Make the archive, once."""
        archive = self._archive(place)
        if archive.exists():
            return
        with tarfile.open(archive, "w") as made:
            for index, name in enumerate(spread(self.steps)):
                told = tarfile.TarInfo(name)
                told.size, told.mtime, told.mode = SMALL, 10**9 + index, 0o644
                made.addfile(told, io.BytesIO(self.pattern.small(index)))

    def _archive(self, place: Place) -> Path:
        """Where it is."""
        return place.local / f"small-{self.steps}.tar"

    def perform(self, directory: Path, place: Place) -> None:
        """Run tar. Not every client lets owners and modes be set, and none is asked to."""
        words = [
            "tar",
            "xf",
            str(self._archive(place)),
            "-C",
            str(directory),
            "--no-same-owner",
            "--no-same-permissions",
        ]
        subprocess.run(words, check=True)

    def arrived(self, place: Place) -> bool:
        """Whether all files have their size."""
        sizes = [
            entry.stat().st_size
            for folder in os.scandir(place.server)
            if folder.is_dir()
            for entry in os.scandir(folder)
        ]
        return sizes == [SMALL] * self.steps

    def verify(self, place: Place) -> None:
        """Compare every byte of every file."""
        for index, name in enumerate(spread(self.steps)):
            path = place.server / name
            if path.read_bytes() != self.pattern.small(index):
                raise WorkloadError(f"on the server, {name} is not what was unpacked")


class Find(Operation):
    """Going through a tree, with its attributes, that was gone through just before."""

    name = "find"
    step = "run"
    unit = "entries/s"
    fixture = "tree"
    label = "warm `find -ls` over {found:,} files in directories of 100"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(sizes, pattern)
        self.amount = sizes.found

    def prepare(self, place: Place) -> None:
        """Make the tree, of empty files."""
        owner = place.server.stat()
        for name in spread(self.sizes.found):
            path = place.server / name
            if not path.parent.exists():
                path.parent.mkdir()
                os.chown(path.parent, owner.st_uid, owner.st_gid)
            path.touch()
            os.chown(path, owner.st_uid, owner.st_gid)

    def perform(self, directory: Path, place: Place) -> None:
        """Run find."""
        told = place.local / "find.out"
        with told.open("w") as stream:
            subprocess.run(["find", str(directory), "-type", "f", "-ls"], stdout=stream, check=True)
        found = told.read_bytes().count(b"\n")
        if found != self.sizes.found:
            raise WorkloadError(f"{found} files were found instead of {self.sizes.found}")

    def timed(self, directory: Path, place: Place) -> float:
        """Seconds of the second time."""
        self.perform(directory, place)
        return super().timed(directory, place)


class ReadAgain(Read):
    """Reading a large file that was read just before."""

    name = "re-read"
    fixture = "again"
    label = "re-read of {again_mib} MiB in 1 MiB reads"

    def __init__(self, sizes: Sizes, pattern: Pattern) -> None:
        super().__init__(Sizes(sizes.again_mib, 0, 0, again_mib=sizes.again_mib), pattern)

    def timed(self, directory: Path, place: Place) -> float:
        """Seconds of the second time."""
        self.perform(directory, place)
        return super().timed(directory, place)

    def smbclient(self, place: Place) -> None:
        """It keeps nothing."""
        del place
