"""Random operations on two trees at a time: one on the mount, one on this machine's own disk, which is the model."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from live.oracle import outcome

NAMES: Final = ("a", "b", "c", "d", "long name with spaces", "\u00e4", "x.")
# Held open files live here, which is never renamed or removed: a server of SMB lets nobody rename what is above one.
HELD: Final = "held"
Act = Callable[[Path], object]


def shape(root: Path) -> dict[str, bytes | str | None]:
    """Every path below a directory: a file's content, where a symbolic link points, None for a directory."""
    found: dict[str, bytes | str | None] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            told = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(root))] = told
    return found


class Difference(AssertionError):  # noqa: N818 (it is the finding)
    """The two trees did not come out the same; the text tells how to see it again."""


class RandomTree:
    """A tree under random operations, and the tree that they should lead to."""

    def __init__(self, place: Path, behind: Path, model: Path, seed: int, *, symlinks: bool) -> None:
        self.place, self.behind, self.model, self.seed = place, behind, model, seed
        self.chance = random.Random(seed)
        self.history: list[str] = []
        self.held: list[tuple[int, int]] = []
        for root in (place, model):
            (root / HELD).mkdir()
        self.operations: list[tuple[float, Callable[[], tuple[str, Act]]]] = [
            (5, self.write),
            (2, self.append),
            (2, self.truncate),
            (2, self.read),
            (4, self.make_directory),
            (2, self.remove_directory),
            (3, self.unlink),
            (8, self.rename),
            (2, self.list),
            (2, self.stat),
            (1, self.times),
            (1, self.create_exclusively),
            (2, self.link),
        ]
        if symlinks:
            self.operations.append((2, self.symlink))

    def run(self, steps: int) -> None:
        """Do so many operations, compare after each, and both whole trees now and then and in the end."""
        weights, operations = zip(*self.operations, strict=True)
        try:
            for step in range(steps):
                if self.chance.random() < 0.15:
                    self.hold_or_use()
                else:
                    what, act = self.chance.choices(operations, weights)[0]()
                    self.history.append(what)
                    self.same(what, *(self.alike(outcome(act, root)) for root in (self.place, self.model)))
                if step % 25 == 0:
                    self.compare_trees()
            while self.held:
                self.release()
            self.compare_trees()
        except (AssertionError, OSError) as error:
            lines = "\n  ".join(self.history[-25:])
            raise Difference(
                f"SMB3FS_SEED={self.seed}, step {len(self.history)}: {error!r} after\n  {lines}"
            ) from error
        finally:
            for pair in self.held:
                for number in pair:
                    with suppress(OSError):
                        os.close(number)

    # -- comparing

    @staticmethod
    def alike(result: object) -> object:
        """POSIX allows either of two errors where a directory is in the way."""
        return "ENOTEMPTY" if result == "EEXIST" else result

    def same(self, what: str, ours: object, theirs: object) -> None:
        """Raise when two results differ."""
        if ours != theirs:
            raise AssertionError(f"{what}: {ours!r:.300} instead of {theirs!r:.300}")

    def compare_trees(self) -> None:
        """The mount, the server's directory and the model."""
        self.history.append("compare the trees")
        model = shape(self.model)
        self.same("the tree", shape(self.place), model)
        # At the server's own disk a name may be spelled otherwise, an open file set aside, a link be a file.
        plain = {name: told for name, told in model.items() if not isinstance(told, str) and "x." not in name}
        behind = shape(self.behind)
        self.same("the server's tree", {name: behind.get(name, "absent") for name in plain}, plain)
        self.same("the number of names", len([name for name in behind if "/.smb3fs-" not in name]), len(model))

    # -- what is drawn

    def path(self) -> Path:
        """A path of one to three names, relative to either root; its directories are there or not."""
        names = [self.chance.choice(NAMES[:4] if level else NAMES) for level in range(self.chance.choice([1, 1, 2, 3]))]
        return Path(*names)

    # -- what is done: its description, and the action on a root

    def write(self) -> tuple[str, Act]:
        """Create or replace a file's contents."""
        path, data = self.path(), self.chance.randbytes(self.chance.choice([0, 1, 100, 5000, 70_000]))
        return f"write {len(data)} to {path}", lambda root: (root / path).write_bytes(data)

    def append(self) -> tuple[str, Act]:
        """Add to what is there."""
        path, data = self.path(), self.chance.randbytes(10)

        def act(root: Path) -> None:
            with (root / path).open("ab") as file:
                file.write(data)

        return f"append to {path}", act

    def truncate(self) -> tuple[str, Act]:
        """truncate(2)."""
        path, size = self.path(), self.chance.choice([0, 3, 6000])
        return f"truncate {path} to {size}", lambda root: os.truncate(root / path, size)

    def read(self) -> tuple[str, Act]:
        """Read a file."""
        path = self.path()
        return f"read {path}", lambda root: (root / path).read_bytes()

    def make_directory(self) -> tuple[str, Act]:
        """mkdir(2)."""
        path = self.path()
        return f"mkdir {path}", lambda root: os.mkdir(root / path)

    def remove_directory(self) -> tuple[str, Act]:
        """rmdir(2)."""
        path = self.path()
        return f"rmdir {path}", lambda root: os.rmdir(root / path)

    def unlink(self) -> tuple[str, Act]:
        """unlink(2)."""
        path = self.path()
        return f"unlink {path}", lambda root: os.unlink(root / path)

    def rename(self) -> tuple[str, Act]:
        """rename(2), of anything to anywhere."""
        old, new = self.path(), self.path()
        return f"rename {old} to {new}", lambda root: os.rename(root / old, root / new)

    def list(self) -> tuple[str, Act]:
        """Names and types of a directory."""
        path = self.path().parent
        return f"list {path}", lambda root: sorted(
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(root / path)
        )

    def stat(self) -> tuple[str, Act]:
        """Type and size."""
        path = self.path()

        def act(root: Path) -> tuple[int, int | None]:
            found = (root / path).lstat()
            kind = found.st_mode & 0o170000
            return kind, found.st_size if kind != 0o040000 else None

        return f"stat {path}", act

    def times(self) -> tuple[str, Act]:
        """Set a time and look at it."""
        path, stamp = self.path(), self.chance.randrange(2**31)

        def act(root: Path) -> float:
            os.utime(root / path, (stamp, stamp))
            return (root / path).stat().st_mtime

        return f"set the times of {path}", act

    def create_exclusively(self) -> tuple[str, Act]:
        """O_EXCL."""
        path = self.path()
        return f"create {path}", lambda root: os.close(os.open(root / path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def link(self) -> tuple[str, Act]:
        """link(2), and the number of links then."""
        old, new = self.path(), self.path()
        return f"link {old} to {new}", lambda root: (os.link(root / old, root / new), (root / old).stat().st_nlink)[1]

    def symlink(self) -> tuple[str, Act]:
        """symlink(2), and what is read from it."""
        path, target = self.path(), self.chance.choice(["a", "b", "nowhere"])
        return f"symlink {path} to {target}", lambda root: (os.symlink(target, root / path), os.readlink(root / path))[
            1
        ]

    # -- files that stay open

    def hold_or_use(self) -> None:
        """Open a file and keep it, or do something to one that is kept, or to its name."""
        what = self.chance.random()
        name = Path(HELD) / self.chance.choice(NAMES[:4])
        other = Path(HELD) / self.chance.choice(NAMES[:4])
        if what < 0.25 and len(self.held) < 6:
            self.history.append(f"hold {name}")
            ours, theirs = (os.open(root / name, os.O_RDWR | os.O_CREAT, 0o644) for root in (self.place, self.model))
            self.held.append((ours, theirs))
        elif what < 0.35 and self.held:
            self.release()
        elif what < 0.5:
            self.history.append(f"unlink {name}")
            self.same("unlink", *(outcome(os.unlink, root / name) for root in (self.place, self.model)))
        elif what < 0.65:
            self.history.append(f"rename {name} to {other}")
            self.same("rename", *(outcome(os.rename, root / name, root / other) for root in (self.place, self.model)))
        elif self.held:
            self.use(self.chance.choice(self.held))

    def use(self, pair: tuple[int, int]) -> None:
        """Read, write and truncate a file that is open, whatever has become of its name."""
        size, offset, data = self.chance.choice([0, 4000]), self.chance.randrange(9000), self.chance.randbytes(50)
        what = self.chance.random()
        self.history.append(f"use {pair[0]} {what:.2f}")
        if what < 0.6:
            self.same("pwrite", *(outcome(os.pwrite, number, data, offset) for number in pair))
        elif what < 0.8:
            self.same("ftruncate", *(outcome(os.ftruncate, number, size) for number in pair))
        self.same("pread", *(outcome(os.pread, number, 20_000, 0) for number in pair))
        self.same("fstat", *(os.fstat(number).st_size for number in pair))

    def release(self) -> None:
        """Close one that is held."""
        pair = self.held.pop(self.chance.randrange(len(self.held)))
        self.history.append(f"release {pair[0]}")
        for number in pair:
            os.close(number)
