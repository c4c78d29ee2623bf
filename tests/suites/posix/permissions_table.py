"""What a user without privileges may do, and what modes and owners then are."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from .scene import NOBODY, Action, Case, cases, opened, unprivileged

RO, WO, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR


def mode_of(path: Path) -> int:
    """The permission bits."""
    return path.lstat().st_mode & 0o7777


def after(prepare: Action, action: Action) -> Action:
    """An action by a user without privileges, after one by root."""

    def act(place: Path) -> object:
        try:
            prepare(place)
        except OSError as error:
            # It must not pass for the error that the action is to have.
            return f"{errno.errorcode[error.errno or 0]} before"
        return unprivileged(action)(place)

    return act


FOREIGN: Final = cases(
    "foreign user",
    ("reads a file", None, unprivileged(lambda p: opened(p / "file", RO))),
    ("opens a file to write", "EACCES", unprivileged(lambda p: opened(p / "file", WO))),
    ("truncates", "EACCES", unprivileged(lambda p: os.truncate(p / "file", 0))),
    ("creates", "EACCES", unprivileged(lambda p: opened(p / "new", RW | os.O_CREAT))),
    ("makes a directory", "EACCES", unprivileged(lambda p: os.mkdir(p / "new"))),
    ("removes a directory", "EACCES", unprivileged(lambda p: os.rmdir(p / "empty"))),
    ("unlinks", "EACCES", unprivileged(lambda p: os.unlink(p / "file"))),
    ("renames", "EACCES", unprivileged(lambda p: os.rename(p / "file", p / "new"))),
    ("makes a symlink", "EACCES", unprivileged(lambda p: os.symlink("file", p / "new"))),
    ("changes the mode", "EPERM", unprivileged(lambda p: os.chmod(p / "file", 0o777))),
    ("takes the file", "EPERM", unprivileged(lambda p: os.chown(p / "file", NOBODY, -1))),
    ("sets times", "EPERM", unprivileged(lambda p: os.utime(p / "file", (1, 1)))),
    ("sets times to now", "EACCES", unprivileged(lambda p: os.utime(p / "file"))),
    ("asks access", [True, False],
     unprivileged(lambda p: [os.access(p / "file", mode, effective_ids=True) for mode in (os.R_OK, os.W_OK)])),
)  # fmt: skip
MODES: Final = cases(
    "mode",
    ("0600 keeps others out", "EACCES",
     after(lambda p: os.chmod(p / "file", 0o600), lambda p: opened(p / "file", RO))),
    ("0700 closes a directory", "EACCES",
     after(lambda p: os.chmod(p / "full", 0o700), lambda p: opened(p / "full/inside", RO))),
    ("0711 lets pass and not list", "EACCES",
     after(lambda p: os.chmod(p / "full", 0o711), lambda p: os.listdir(p / "full"))),
    ("0777 lets everybody create", None,
     after(lambda p: os.chmod(p / "empty", 0o777), lambda p: opened(p / "empty/new", RW | os.O_CREAT))),
    ("1777 protects the files of others", "EPERM",
     after(lambda p: os.chmod(p / "full", 0o1777), lambda p: os.unlink(p / "full/inside"))),
    ("without read for its owner", "EACCES",
     after(lambda p: (os.chmod(p / "file", 0o077), os.chown(p / "file", NOBODY, NOBODY)),
           lambda p: opened(p / "file", RO))),
    ("0444 keeps a writer out", "EACCES",
     after(lambda p: (os.chown(p / "file", NOBODY, NOBODY), os.chmod(p / "file", 0o444)),
           lambda p: opened(p / "file", WO))),
) + cases(
    "chmod",
    ("tells every bit", 0o640, lambda p: (os.chmod(p / "file", 0o640), mode_of(p / "file"))[1]),
    ("to nothing at all", 0, lambda p: (os.chmod(p / "file", 0), mode_of(p / "file"))[1]),
    ("sets setuid, setgid and sticky", 0o7755, lambda p: (os.chmod(p / "file", 0o7755), mode_of(p / "file"))[1]),
    ("of a directory", 0o710, lambda p: (os.chmod(p / "empty", 0o710), mode_of(p / "empty"))[1]),
    ("takes the execute bits away", False,
     lambda p: (os.chmod(p / "file", 0o644), os.access(p / "file", os.X_OK))[1]),
    ("takes the write bits away and gives them back", 0o755,
     lambda p: (os.chmod(p / "file", 0o555), os.chmod(p / "file", 0o755), mode_of(p / "file"))[2]),
    ("follows a symlink", 0o600,
     lambda p: (os.symlink("file", p / "s"), os.chmod(p / "s", 0o600), mode_of(p / "file"))[2]),
) + cases(
    "create",
    ("with a mode", 0o640, lambda p: (opened(p / "new", RW | os.O_CREAT, 0o640), mode_of(p / "new"))[1]),
    ("read-only and write", b"data",
     lambda p: (_written(p / "new", 0o444), (p / "new").read_bytes())[1]),
    ("a directory with a mode", 0o700, lambda p: (os.mkdir(p / "new", 0o700), mode_of(p / "new"))[1]),
    ("as another user, who owns it", NOBODY,
     after(lambda p: os.chmod(p / "empty", 0o777),
           lambda p: (opened(p / "empty/new", RW | os.O_CREAT), (p / "empty/new").stat().st_uid)[1])),
    ("in a setgid directory, which gives its group", 12,
     lambda p: (os.chown(p / "empty", 0, 12), os.chmod(p / "empty", 0o2755),
                opened(p / "empty/new", RW | os.O_CREAT), (p / "empty/new").stat().st_gid)[3]),
) + cases(
    "chown",
    ("tells the new owner", (12, 13),
     lambda p: (os.chown(p / "file", 12, 13), ((p / "file").stat().st_uid, (p / "file").stat().st_gid))[1]),
    ("to nobody new", None, lambda p: os.chown(p / "file", -1, -1)),
    ("to the same owner", None, lambda p: os.chown(p / "file", os.getuid(), os.getgid())),
    ("takes setuid away", 0o755,
     lambda p: (os.chmod(p / "file", 0o4755), os.chown(p / "file", 12, 13), mode_of(p / "file"))[2]),
    ("of a symlink itself", 12,
     lambda p: (os.symlink("file", p / "s"), os.lchown(p / "s", 12, 13), (p / "s").lstat().st_uid)[2]),
) + cases(
    "write",
    ("takes setuid away", 0o755,
     lambda p: (os.chmod(p / "file", 0o4755), os.chown(p / "file", NOBODY, NOBODY), os.chmod(p / "file", 0o4755),
                unprivileged(lambda q: (q / "file").write_bytes(b"x"))(p), mode_of(p / "file"))[4]),
)  # fmt: skip
PERMISSIONS: Final[list[Case]] = [*FOREIGN, *MODES]


def _written(path: Path, mode: int) -> None:
    """Create a file with a mode and write to it through the descriptor of its creation."""
    number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    os.write(number, b"data")
    os.close(number)
