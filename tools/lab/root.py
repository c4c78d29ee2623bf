"""A later Samba than the machine's own: Debian's testing release unpacked into a folder, for `lab.server` to run from.

This machine's apt fetches the packages, with its proxies and its mirror, and checks them by the keys of Debian's
archive; they are unpacked and never configured: nothing in there is run but Samba's programs, in a mount namespace of
their own (`lab.server`). What has been fetched stays beside the folder until it is complete, so that a build that was
interrupted goes on where it was.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from lab.commands import CommandError, run

PLACE: Final = Path(__file__).resolve().parents[2] / ".samba-root"
SUITE: Final = "forky"
# The first with persistent handles; the suite moves on, and never back.
LEAST: Final = (4, 25)
# Samba, and what entering the root takes (`lab.server.ENTER_ROOT`); their dependencies come by themselves.
PACKAGES: Final = ("samba", "samba-common-bin", "dash", "coreutils", "mount", "base-passwd")
KEYS: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE: Final = "SMB3FS_DEBIAN_MIRROR"
ROOT_VARIABLE: Final = "SMB3FS_SAMBA_ROOT"
REQUIRE_VARIABLE: Final = "SMB3FS_REQUIRE_SAMBA_ROOT"
# What nobody reads in there.
LEFT_OUT: Final = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")
STAMP: Final = "complete"

# An apt with lists and a status of its own and the machine's settings (its proxies, say). No package of it is
# installed as far as it knows, so it fetches every one that is needed.
APT: Final = """
Dir::State "{work}/state";
Dir::State::status "{work}/state/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
"""


class RootError(Exception):
    """No such root can be made here; the text says why."""


def found() -> str:
    """The root that is there: the one named by SMB3FS_SAMBA_ROOT, else the project's own; empty if neither."""
    named = os.environ.get(ROOT_VARIABLE, "")
    return named or (str(PLACE) if complete(PLACE) else "")


def complete(place: Path) -> bool:
    """Whether a root of these packages is there, whole."""
    with suppress(OSError):
        return (place / STAMP).read_text() == _recipe()
    return False


def build(place: Path = PLACE) -> bool:
    """Make the root unless it is there; whether there was anything to do. Raises RootError."""
    if complete(place):
        return False
    work = place.with_name(f"{place.name}.building")
    with _alone(work):
        if complete(place):
            return False
        if place.exists() and not (place / STAMP).exists():
            raise RootError(f"{place} is there, and not of this tool's making: left alone")
        _say(f"making a root with Debian {SUITE}'s Samba in {place}")
        try:
            packages = _fetch(work)
            _unpack(packages, work / "root")
            version = _check(work / "root")
        except (CommandError, subprocess.TimeoutExpired, OSError) as error:
            raise RootError(f"no root with a later Samba: {error}") from error
        (work / "root" / STAMP).write_text(_recipe())
        shutil.rmtree(place, ignore_errors=True)
        (work / "root").rename(place)
        shutil.rmtree(work)
    _say(f"{version} is in {place}")
    return True


def _recipe() -> str:
    """What the stamp says: another recipe makes another root."""
    return f"{SUITE} {' '.join(PACKAGES)}\n"


def _say(text: str) -> None:
    """Announce a step."""
    print(f"==> {text}", file=sys.stderr, flush=True)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One build at a time; the lock's file goes with the folder that it locks."""
    if os.geteuid() != 0:
        raise RootError("making a root needs root")
    work.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work.mkdir(mode=0o755, exist_ok=True)  # a build that we waited for has removed it
        yield


def _mirror() -> str:
    """Where this machine gets Debian from."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named
    form = "$(ORIGIN) $(LABEL) $(REPO_URI)"
    told = run("apt-get", "indextargets", "--format", form, "Created-By: Packages", check=False).stdout
    for line in told.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise RootError(
        f"this machine's apt knows no mirror of Debian; {MIRROR_VARIABLE}=URL names one (after apt-get update)"
    )


def _fetch(work: Path) -> list[Path]:
    """Have apt fetch what is not there yet; the packages' files."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise RootError("no apt-get and dpkg-deb here, which fetch and unpack a later Samba")
    if not KEYS.exists():
        raise RootError(f"{KEYS} is not there: the package debian-archive-keyring has the keys of Debian's archive")
    archives = work / "cache/archives"
    for folder in (work / "state/lists/partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (work / "state/status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYS}] {_mirror()} {SUITE} main\n")
    settings = work / "apt.conf"
    settings.write_text(APT.format(work=work))
    # Read last of all settings, hence not by the variable APT_CONFIG, which is read first.
    apt = ("apt-get", "-c", str(settings), "-y")
    _say(f"fetching the lists of {SUITE}")
    _show(*apt, "update")
    _say(f"fetching {' '.join(PACKAGES)}, and what they need")
    _show(*apt, "install", "--download-only", "--no-install-recommends", *PACKAGES)
    # By name, not by what lies there: an interrupted build may have left an earlier version of something.
    planned = run(*apt, "--simulate", "install", "--no-install-recommends", *PACKAGES).stdout
    named = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", planned, re.MULTILINE)
    return [archives / f"{name}_{version.replace(':', '%3a')}_{kind}.deb" for name, version, kind in named]


def _show(*command: str) -> None:
    """Run a command that takes a while: on a terminal it tells its progress itself."""
    if sys.stderr.isatty():
        if status := subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
            raise CommandError(f"`{' '.join(command)}` ended with status {status}")
    else:
        run(*command, timeout=900)


def _unpack(packages: list[Path], root: Path) -> None:
    """Unpack the packages into a fresh folder, and make what their scripts would have made and Samba needs."""
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("dev", "etc/samba", "proc", "run", "tmp", "var/tmp", "var/lib/samba", "var/log/samba", "var/cache"):
        (root / folder).mkdir(parents=True)
    for merged in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / merged).mkdir(parents=True)
        (root / merged).symlink_to(f"usr/{merged}")
    for number, package in enumerate(packages, 1):
        if sys.stderr.isatty():
            print(f"\r\033[K    unpacking {number} of {len(packages)}: {package.name}", end="", file=sys.stderr)
        with tempfile.TemporaryFile() as contents:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=contents, check=True)
            contents.seek(0)
            exclude = [f"--exclude={path}" for path in LEFT_OUT]
            subprocess.run(["tar", "-x", "-C", root, "--keep-directory-symlink", *exclude], stdin=contents, check=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    for file in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{file}.master", root / "etc" / file)


def _check(root: Path) -> str:
    """Run its smbd, and return the version that it tells; raises RootError for one that is too old."""
    version = run("chroot", str(root), "smbd", "--version").stdout.strip()
    told = re.search(r"(\d+)\.(\d+)", version)
    if told is None or (int(told[1]), int(told[2])) < LEAST:
        raise RootError(f"Debian {SUITE} has {version}, and {'.'.join(map(str, LEAST))} or later is needed")
    run("chroot", str(root), "sh", "-ec", "command -v umount smbpasswd smbstatus net")
    return version
