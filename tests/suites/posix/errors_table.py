"""Calls that must fail, and with which errno; and their neighbours that must succeed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from .scene import (
    NAME_MAX,
    PATH_MAX,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    Case,
    Descriptor,
    cases,
    libc,
    opened,
    renameat2,
    with_descriptor,
)

RO, WO, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
LONG: Final = "n" * (NAME_MAX + 1)
LONGEST: Final = "n" * NAME_MAX


def far(place: Path) -> str:
    """A path that is one byte too long."""
    start = f"{place}/"
    return start + "./" * ((PATH_MAX - len(start)) // 2) + "f" * ((PATH_MAX - len(start)) % 2)


def loop(place: Path) -> Path:
    """Two symbolic links that point at each other."""
    os.symlink("turn", place / "return")
    os.symlink("return", place / "turn")
    return place / "turn"


# Failures that every call with a path shares: (what, errno, the path).
COMMON: Final = (
    ("below a file", "ENOTDIR", lambda p: p / "file/below"),
    ("below nothing", "ENOENT", lambda p: p / "absent/below"),
    ("of a name too long", "ENAMETOOLONG", lambda p: p / LONG),
    ("of a path too long", "ENAMETOOLONG", far),
    ("below a loop", "ELOOP", lambda p: loop(p) / "below"),
)
CALLS: Final = {
    "open": lambda path: opened(path, RO),
    "creat": lambda path: opened(path, RW | os.O_CREAT),
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "truncate": lambda path: os.truncate(path, 1),
    "chmod": lambda path: os.chmod(path, 0o755),
    "chown": lambda path: os.chown(path, -1, -1),
    "utimensat": os.utime,
    "stat": os.stat,
    "lstat": os.lstat,
    "access": lambda path: opened(path, RO) if os.access(path, os.F_OK) else os.stat(path),
    "mknod": lambda path: os.mknod(path, 0o644),
    "mkfifo": os.mkfifo,
    "opendir": os.listdir,
    "statfs": os.statvfs,
    "readlink": os.readlink,
    "getxattr": lambda path: os.getxattr(path, "user.absent"),
    "symlink": lambda path: os.symlink("target", path),
    "chdir into": lambda path: os.close(os.open(path, os.O_PATH | os.O_DIRECTORY)),
}
SHARED: Final = [
    Case(f"{call} {what}", expected, lambda p, act=act, where=where: act(where(p)))  # type: ignore[misc]
    for call, act in CALLS.items()
    for what, expected, where in COMMON
] + [
    Case(f"{call} {side} {what}", expected, lambda p, act=act, where=where: act(p, where(p)))  # type: ignore[misc]
    for call, side, act in (
        ("rename", "from", lambda p, path: os.rename(path, p / "new")),
        ("rename", "to", lambda p, path: os.rename(p / "file", path)),
        ("link", "from", lambda p, path: os.link(path, p / "new")),
        ("link", "to", lambda p, path: os.link(p / "file", path)),
    )
    for what, expected, where in COMMON
]


def unlinked_directory(place: Path, name: str) -> int:
    """A descriptor of a directory that is gone."""
    number = os.open(place / name, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(place / name)
    return number


def in_removed_directory(place: Path) -> None:
    """Create a file in a directory that has been removed but is open."""
    number = unlinked_directory(place, "empty")
    try:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=number))
    finally:
        os.close(number)


def busy_text(place: Path) -> None:
    """Write to a program that runs."""
    program = place / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    process = os.posix_spawn(program, ["program", "60"], {})
    try:
        # The child has run its execve when posix_spawn returns.
        opened(program, WO)
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)


OPEN: Final = cases(
    "open",
    ("absent", "ENOENT", lambda p: opened(p / "absent", RO)),
    ("a file", None, lambda p: opened(p / "file", RO)),
    ("exclusively a file", "EEXIST", lambda p: opened(p / "file", RW | os.O_CREAT | os.O_EXCL)),
    ("exclusively a directory", "EEXIST", lambda p: opened(p / "empty", RO | os.O_CREAT | os.O_EXCL)),
    ("a directory to write", "EISDIR", lambda p: opened(p / "empty", WO)),
    ("a directory to read and write", "EISDIR", lambda p: opened(p / "empty", RW)),
    ("a directory to create", "EISDIR", lambda p: opened(p / "empty", RO | os.O_CREAT)),
    ("a directory to truncate", "EISDIR", lambda p: opened(p / "empty", RO | os.O_TRUNC)),
    ("a directory as such", None, lambda p: opened(p / "empty", RO | os.O_DIRECTORY)),
    ("a file as a directory", "ENOTDIR", lambda p: opened(p / "file", RO | os.O_DIRECTORY)),
    ("a file with a slash behind", "ENOTDIR", lambda p: os.close(os.open(f"{p}/file/", RO))),
    ("a new file with a slash behind", "EISDIR", lambda p: os.close(os.open(f"{p}/new/", RW | os.O_CREAT))),
    ("the empty path", "ENOENT", lambda p: os.close(os.open("", RO))),
    ("the longest name", None, lambda p: opened(p / LONGEST, RW | os.O_CREAT | os.O_EXCL)),
    ("through a loop", "ELOOP", lambda p: opened(loop(p), RO)),
    ("a symlink not to follow", "ELOOP", lambda p: (os.symlink("file", p / "s"), opened(p / "s", RO | os.O_NOFOLLOW))),
    ("exclusively a dangling symlink", "EEXIST",
     lambda p: (os.symlink("absent", p / "s"), opened(p / "s", RW | os.O_CREAT | os.O_EXCL))),
    ("a dangling symlink to create", b"made",
     lambda p: (os.symlink("absent", p / "s"), (p / "s").write_bytes(b"made"), (p / "absent").read_bytes())[2]),
    ("a fifo without a reader", "ENXIO", lambda p: (os.mkfifo(p / "f"), opened(p / "f", WO | os.O_NONBLOCK))),
    ("a program that runs", "ETXTBSY", busy_text),
    ("in a removed directory", "ENOENT", in_removed_directory),
    ("unnamed in a directory", None, lambda p: opened(p, RW | os.O_TMPFILE)),
)  # fmt: skip
DIRECTORIES: Final = (
    cases(
        "mkdir",
        ("new", None, lambda p: os.mkdir(p / "new")),
        ("over a file", "EEXIST", lambda p: os.mkdir(p / "file")),
        ("over a directory", "EEXIST", lambda p: os.mkdir(p / "empty")),
        ("over a dangling symlink", "EEXIST", lambda p: (os.symlink("absent", p / "s"), os.mkdir(p / "s"))),
        ("with a slash behind", None, lambda p: os.mkdir(f"{p}/new/")),
        ("of the longest name", None, lambda p: os.mkdir(p / LONGEST)),
    )
    + cases(
        "rmdir",
        ("empty", None, lambda p: os.rmdir(p / "empty")),
        ("absent", "ENOENT", lambda p: os.rmdir(p / "absent")),
        ("with a file in it", "ENOTEMPTY", lambda p: os.rmdir(p / "full")),
        ("with a directory in it", "ENOTEMPTY", lambda p: (os.mkdir(p / "empty/sub"), os.rmdir(p / "empty"))),
        ("of a file", "ENOTDIR", lambda p: os.rmdir(p / "file")),
        ("of .", "EINVAL", lambda p: os.rmdir(f"{p}/empty/.")),
        ("of ..", "ENOTEMPTY", lambda p: os.rmdir(f"{p}/empty/..")),
        ("of a symlink to a directory", "ENOTDIR", lambda p: (os.symlink("empty", p / "s"), os.rmdir(p / "s"))),
    )
    + cases(
        "unlink",
        ("a file", None, lambda p: os.unlink(p / "file")),
        ("absent", "ENOENT", lambda p: os.unlink(p / "absent")),
        ("a directory", "EISDIR", lambda p: os.unlink(p / "empty")),
        ("a file with a slash behind", "ENOTDIR", lambda p: os.unlink(f"{p}/file/")),
        ("the longest name", None, lambda p: (opened(p / LONGEST, RW | os.O_CREAT), os.unlink(p / LONGEST))[1]),
    )
    + cases(
        "opendir",
        ("a file", "ENOTDIR", lambda p: os.listdir(p / "file")),
        ("absent", "ENOENT", lambda p: os.listdir(p / "absent")),
        ("empty", [], lambda p: os.listdir(p / "empty")),
    )
)
RENAME: Final = cases(
    "rename",
    ("absent", "ENOENT", lambda p: os.rename(p / "absent", p / "new")),
    ("to itself", None, lambda p: os.rename(p / "file", p / "file")),
    ("a directory to itself", None, lambda p: os.rename(p / "full", p / "full")),
    ("a file over a file", b"0123456789",
     lambda p: (os.rename(p / "file", p / "other"), (p / "other").read_bytes())[1]),
    ("a file over a directory", "EISDIR", lambda p: os.rename(p / "file", p / "empty")),
    ("a directory over a file", "ENOTDIR", lambda p: os.rename(p / "empty", p / "file")),
    ("a directory over an empty one", ["inside"],
     lambda p: (os.rename(p / "full", p / "empty"), os.listdir(p / "empty"))[1]),
    ("a directory over a full one", "ENOTEMPTY", lambda p: os.rename(p / "empty", p / "full")),
    ("a directory below itself", "EINVAL", lambda p: os.rename(p / "full", p / "full/below")),
    ("a directory far below itself", "EINVAL",
     lambda p: (os.mkdir(p / "full/sub"), os.rename(p / "full", p / "full/sub/below"))),
    ("over a directory it is in", "ENOTEMPTY", lambda p: os.rename(p / "full/inside", p / "full")),
    (".", "EBUSY", lambda p: os.rename(f"{p}/empty/.", p / "new")),
    ("..", "EBUSY", lambda p: os.rename(f"{p}/empty/..", p / "new")),
    ("to .", "EBUSY", lambda p: os.rename(p / "empty", f"{p}/hollow/.")),
    ("a file with a slash behind", "ENOTDIR", lambda p: os.rename(f"{p}/file/", p / "new")),
    ("a directory to a name with a slash behind", None, lambda p: os.rename(p / "empty", f"{p}/new/")),
    ("to the longest name", None, lambda p: os.rename(p / "file", p / LONGEST)),
    ("without replacing a file", "EEXIST", lambda p: renameat2(p / "file", p / "other", RENAME_NOREPLACE)),
    ("without replacing nothing", None, lambda p: renameat2(p / "file", p / "new", RENAME_NOREPLACE)),
    ("exchanging with nothing", "ENOENT", lambda p: renameat2(p / "file", p / "absent", RENAME_EXCHANGE)),
    ("exchanging", b"other",
     lambda p: (renameat2(p / "file", p / "other", RENAME_EXCHANGE), (p / "file").read_bytes())[1]),
    ("with contradicting flags", "EINVAL",
     lambda p: renameat2(p / "file", p / "other", RENAME_NOREPLACE | RENAME_EXCHANGE)),
    ("leaving a whiteout", None, lambda p: renameat2(p / "file", p / "new", RENAME_WHITEOUT)),
    ("a symlink itself", "other",
     lambda p: (os.symlink("other", p / "s"), os.rename(p / "s", p / "t"), os.readlink(p / "t"))[2]),
    ("to another filesystem", "EXDEV", lambda p: os.rename(p / "file", "/dev/shm/smb3fs-exdev")),
)  # fmt: skip
LINKS: Final = (
    cases(
        "link",
        ("to a new name", 2, lambda p: (os.link(p / "file", p / "new"), (p / "file").stat().st_nlink)[1]),
        ("is the same inode", True,
         lambda p: (os.link(p / "file", p / "new"), (p / "file").samefile(p / "new"))[1]),
        ("keeps the file when the first name goes", b"0123456789",
         lambda p: (os.link(p / "file", p / "new"), os.unlink(p / "file"), (p / "new").read_bytes())[2]),
        ("of what is absent", "ENOENT", lambda p: os.link(p / "absent", p / "new")),
        ("over a file", "EEXIST", lambda p: os.link(p / "file", p / "other")),
        ("of a directory", "EPERM", lambda p: os.link(p / "empty", p / "new")),
        ("to another filesystem", "EXDEV", lambda p: os.link(p / "file", "/dev/shm/smb3fs-exdev")),
        ("then rename one over the other", [b"0123456789", b"0123456789"],
         lambda p: (os.link(p / "file", p / "new"), os.rename(p / "file", p / "new"),
                    [(p / name).read_bytes() for name in ("file", "new")])[2]),
    )
    + cases(
        "symlink",
        ("tells where it points", "target", lambda p: (os.symlink("target", p / "s"), os.readlink(p / "s"))[1]),
        ("is followed", b"0123456789", lambda p: (os.symlink("file", p / "s"), (p / "s").read_bytes())[1]),
        ("is followed as a folder", ["inside"],
         lambda p: (os.symlink("full", p / "s"), os.listdir(p / "s"))[1]),
        ("is followed upwards", b"other",
         lambda p: (os.symlink("../other", p / "full/s"), (p / "full/s").read_bytes())[1]),
        ("is followed to an absolute path", b"0123456789",
         lambda p: (os.symlink(p / "file", p / "s"), (p / "s").read_bytes())[1]),
        ("is a symlink to lstat", True, lambda p: (os.symlink("file", p / "s"), (p / "s").is_symlink())[1]),
        ("has its target's length", 6,
         lambda p: (os.symlink("target", p / "s"), (p / "s").lstat().st_size)[1]),
        ("over a file", "EEXIST", lambda p: os.symlink("target", p / "file")),
        ("over a directory", "EEXIST", lambda p: os.symlink("target", p / "empty")),
        ("to nothing", "ENOENT", lambda p: os.symlink("", p / "s")),
        ("keeps bytes with a backslash", "a\\b:c*?",
         lambda p: (os.symlink("a\\b:c*?", p / "s"), os.readlink(p / "s"))[1]),
        ("to itself", "ELOOP", lambda p: (os.symlink("s", p / "s"), os.stat(p / "s"))),
        ("is unlinked itself", b"0123456789",
         lambda p: (os.symlink("file", p / "s"), os.unlink(p / "s"), (p / "file").read_bytes())[2]),
        ("is listed as one", [True],
         lambda p: (os.symlink("file", p / "empty/s"),
                    [entry.is_symlink() for entry in os.scandir(p / "empty")])[1]),
    )
    + cases(
        "readlink",
        ("of a file", "EINVAL", lambda p: os.readlink(p / "file")),
        ("of a directory", "EINVAL", lambda p: os.readlink(p / "empty")),
    )
)  # fmt: skip
SIZES: Final = (
    cases(
        "truncate",
        ("shorter", b"012", lambda p: (os.truncate(p / "file", 3), (p / "file").read_bytes())[1]),
        ("longer", b"0123456789\0\0", lambda p: (os.truncate(p / "file", 12), (p / "file").read_bytes())[1]),
        ("to the same", b"0123456789", lambda p: (os.truncate(p / "file", 10), (p / "file").read_bytes())[1]),
        ("a directory", "EISDIR", lambda p: os.truncate(p / "empty", 0)),
        ("to less than nothing", "EINVAL", lambda p: os.truncate(p / "file", -1)),
        ("to more than a file can be", "EFBIG", lambda p: os.truncate(p / "file", 2**63 - 1)),
        ("absent", "ENOENT", lambda p: os.truncate(p / "absent", 0)),
    )
    + cases(
        "ftruncate",
        ("shorter", 3, lambda p: with_descriptor(
            p / "file", RW, lambda fd: (os.ftruncate(fd, 3), os.fstat(fd).st_size)[1])),
        ("of a descriptor to read", "EINVAL",
         lambda p: with_descriptor(p / "file", RO, lambda fd: os.ftruncate(fd, 3))),
        ("to less than nothing", "EINVAL", lambda p: with_descriptor(p / "file", RW, lambda fd: os.ftruncate(fd, -1))),
        ("after unlink", 3, lambda p: with_descriptor(
            p / "file", RW, lambda fd: (os.unlink(p / "file"), os.ftruncate(fd, 3), os.fstat(fd).st_size)[2])),
    )
    + cases(
        "read",
        ("of a descriptor to write", "EBADF", lambda p: with_descriptor(p / "file", WO, lambda fd: os.read(fd, 1))),
        ("of a directory", "EISDIR", lambda p: with_descriptor(p / "empty", RO, lambda fd: os.read(fd, 1))),
        ("before the beginning", "EINVAL", lambda p: with_descriptor(p / "file", RO, lambda fd: os.pread(fd, 1, -1))),
        ("beyond the end", b"", lambda p: with_descriptor(p / "file", RO, lambda fd: os.pread(fd, 1, 10))),
    )
    + cases(
        "write",
        ("of a descriptor to read", "EBADF", lambda p: with_descriptor(p / "file", RO, lambda fd: os.write(fd, b"x"))),
        ("of nothing", 0, lambda p: with_descriptor(p / "file", WO, lambda fd: os.write(fd, b""))),
        ("beyond what a file can hold", "EINVAL",
         lambda p: with_descriptor(p / "file", WO, lambda fd: os.pwrite(fd, b"xx", 2**63 - 1))),
    )
    + cases(
        "lseek",
        ("before the beginning", "EINVAL",
         lambda p: with_descriptor(p / "file", RO, lambda fd: os.lseek(fd, -1, os.SEEK_SET))),
        ("to the end", 10, lambda p: with_descriptor(p / "file", RO, lambda fd: os.lseek(fd, 0, os.SEEK_END))),
        ("to data", 4, lambda p: with_descriptor(p / "file", RO, lambda fd: os.lseek(fd, 4, os.SEEK_DATA))),
        ("to a hole", 10, lambda p: with_descriptor(p / "file", RO, lambda fd: os.lseek(fd, 4, os.SEEK_HOLE))),
        ("to data beyond the end", "ENXIO",
         lambda p: with_descriptor(p / "file", RO, lambda fd: os.lseek(fd, 11, os.SEEK_DATA))),
    )
    + cases(
        "fallocate",
        ("more", 20, lambda p: with_descriptor(
            p / "file", RW, lambda fd: (libc("fallocate", fd, 0, 0, 20), os.fstat(fd).st_size)[1])),
        ("and keep the size", 10, lambda p: with_descriptor(
            p / "file", RW, lambda fd: (libc("fallocate", fd, 1, 0, 20), os.fstat(fd).st_size)[1])),
        ("a hole", b"01" + bytes(4) + b"6789", lambda p: with_descriptor(
            p / "file", RW, lambda fd: (libc("fallocate", fd, 3, 2, 4), os.pread(fd, 20, 0))[1])),
        ("of a descriptor to read", "EBADF",
         lambda p: with_descriptor(p / "file", RO, lambda fd: libc("fallocate", fd, 0, 0, 20))),
        ("of no length", "EINVAL",
         lambda p: with_descriptor(p / "file", RW, lambda fd: libc("fallocate", fd, 0, 0, 0))),
    )
    + cases(
        "posix_fallocate",
        ("more", 20, lambda p: with_descriptor(
            p / "file", RW, lambda fd: (os.posix_fallocate(fd, 0, 20), os.fstat(fd).st_size)[1])),
    )
    + cases(
        "copy_file_range",
        ("within the mount", b"0123456789", lambda p: with_descriptor(p / "file", RO, lambda source: with_descriptor(
            p / "new", RW | os.O_CREAT,
            lambda to: (os.copy_file_range(source, to, 10), os.pread(to, 20, 0))[1]))),
        ("onto a descriptor to read", "EBADF",
         lambda p: with_descriptor(p / "file", RO, lambda source: with_descriptor(
             p / "other", RO, lambda to: os.copy_file_range(source, to, 10)))),
    )
    + cases(
        "fsync",
        ("a file", None, lambda p: with_descriptor(p / "file", RW, os.fsync)),
        ("a file open to read", None, lambda p: with_descriptor(p / "file", RO, os.fsync)),
        ("a directory", None, lambda p: with_descriptor(p / "empty", RO, os.fsync)),
        ("the data alone", None, lambda p: with_descriptor(p / "file", RW, os.fdatasync)),
        ("the filesystem", 0, lambda p: with_descriptor(p / "file", RW, lambda fd: libc("syncfs", fd))),
    )
)  # fmt: skip


def made(place: Path, kind: int) -> int:
    """mknod(2), and the type that stat(2) then tells."""
    os.mknod(place / "new", kind | 0o644, os.makedev(1, 3))
    return (place / "new").lstat().st_mode & 0o170000


MKNOD: Final = cases(
    "mknod",
    ("a file", 0o100000, lambda p: made(p, 0o100000)),
    ("a fifo", 0o010000, lambda p: made(p, 0o010000)),
    ("a socket", 0o140000, lambda p: made(p, 0o140000)),
    ("a character device", 0o020000, lambda p: made(p, 0o020000)),
    ("a block device", 0o060000, lambda p: made(p, 0o060000)),
    ("over a file", "EEXIST", lambda p: os.mknod(p / "file", 0o100644)),
    ("a directory", "EPERM", lambda p: os.mknod(p / "new", 0o040755)),
)
XATTR: Final = cases(
    "setxattr",
    ("then getxattr", b"value",
     lambda p: (os.setxattr(p / "file", "user.name", b"value"), os.getxattr(p / "file", "user.name"))[1]),
    ("then listxattr", True,
     lambda p: (os.setxattr(p / "file", "user.name", b"value"), "user.name" in os.listxattr(p / "file"))[1]),
    ("to create what is there", "EEXIST",
     lambda p: (os.setxattr(p / "file", "user.a", b"1"), os.setxattr(p / "file", "user.a", b"2", os.XATTR_CREATE))),
    ("to replace what is absent", "ENODATA",
     lambda p: os.setxattr(p / "file", "user.absent", b"2", os.XATTR_REPLACE)),
    ("then remove", "ENODATA",
     lambda p: (os.setxattr(p / "file", "user.a", b"1"), os.removexattr(p / "file", "user.a"),
                os.getxattr(p / "file", "user.a"))),
    ("of a directory", b"value",
     lambda p: (os.setxattr(p / "empty", "user.name", b"value"), os.getxattr(p / "empty", "user.name"))[1]),
    ("of an unknown namespace", "ENOTSUP", lambda p: os.setxattr(p / "file", "nonsense.name", b"value")),
) + cases(
    "getxattr",
    ("of what is absent", "ENODATA", lambda p: os.getxattr(p / "file", "user.absent")),
)  # fmt: skip


def locked_twice(place: Path, lock: str) -> None:
    """Lock one file through two descriptors: the second has to wait, and is told so."""
    with Descriptor(place / "file", RW) as first, Descriptor(place / "file", RW) as second:
        getattr(fcntl, lock)(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        getattr(fcntl, lock)(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCKS: Final = cases(
    "flock",
    ("twice", "EAGAIN", lambda p: locked_twice(p, "flock")),
) + cases(
    "fcntl lock",
    ("twice in one process", None, lambda p: locked_twice(p, "lockf")),
)
EVERY: Final = [*SHARED, *OPEN, *DIRECTORIES, *RENAME, *LINKS, *SIZES, *MKNOD, *XATTR, *LOCKS]
