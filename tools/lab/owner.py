"""Whose a lab is: a folder claims it, so that a later run can tell a live lab from what a crash left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lab.commands import run
from lab.network import Network

# On a disk, not in memory: Samba keeps DOS attributes in extended attributes, which an older kernel's tmpfs has not.
BASE: Final = Path("/var/tmp")
NAMESPACES: Final = Path("/run/netns")
NAME: Final = re.compile(r"smb3fs-lab-(\d+)-(\d+)")
# Labs that one process may have at a time; the number goes into link names, which hold 15 characters.
PER_PROCESS: Final = 16
OWNER_FILE: Final = "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a lab belongs to, and what cannot be read from the lab's name."""

    pid: int
    started: str
    subnet: str
    kept: bool = False

    def alive(self) -> bool:
        """Whether that very process still runs (ids are used again, start times are not)."""
        return _start_time(self.pid) == self.started


def claim() -> tuple[Path, Network]:
    """Make a folder that is this process's alone, and the network that goes with it (not up yet)."""
    for index in range(PER_PROCESS):
        folder = BASE / f"smb3fs-lab-{os.getpid()}-{index}"
        with suppress(FileExistsError):
            # 0755 because the server works in it as another user.
            folder.mkdir(mode=0o755)
            network = Network(folder.name, _ordinal(folder.name))
            write_owner(folder, Owner(os.getpid(), _start_time(os.getpid()), str(network.subnet)))
            return folder, network
    raise RuntimeError(f"this process has {PER_PROCESS} labs already")


def write_owner(folder: Path, owner: Owner) -> None:
    """Write down whose the folder is."""
    (folder / OWNER_FILE).write_text(json.dumps(asdict(owner)))


def read_owner(folder: Path) -> Owner | None:
    """Whose the folder is; None when a crash came before it was written."""
    with suppress(OSError, ValueError, TypeError):
        return Owner(**json.loads((folder / OWNER_FILE).read_text()))
    return None


def keep(folder: Path) -> None:
    """Let the lab outlive this process: only `clean(kept=True)` removes it then."""
    owner = read_owner(folder)
    if owner is not None:
        write_owner(folder, Owner(owner.pid, owner.started, owner.subnet, kept=True))


def labs() -> dict[str, Owner | None]:
    """Every lab of which anything is left on this machine, by name."""
    names = {path.name for base in (BASE, NAMESPACES) if base.is_dir() for path in base.iterdir()}
    return {name: read_owner(BASE / name) for name in sorted(names) if NAME.fullmatch(name)}


def clean(*, kept: bool = False) -> list[str]:
    """Remove the labs whose process has gone (with `kept` also those left on purpose); their names."""
    removed = []
    for name, owner in labs().items():
        if _in_use(name, owner) or (owner is not None and owner.kept and not kept):
            continue
        remove(name, owner)
        removed.append(name)
    return removed


def _in_use(name: str, owner: Owner | None) -> bool:
    """Whether the lab's process runs; one that has not signed yet is known by its id alone."""
    return owner.alive() if owner else bool(_start_time(int(name.split("-")[2])))


def remove(name: str, owner: Owner | None) -> None:
    """Take down one lab: mounts below its folder first, then their daemons, the server, the network, the folder."""
    folder = BASE / name
    for mountpoint in mounts_below(folder):
        if run("umount", mountpoint, check=False, timeout=60).returncode:
            run("umount", "--lazy", mountpoint, check=False)
    end_mentioning(folder)
    Network(name, _ordinal(name), owner.subnet if owner else None).down()
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    decoded = [re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), point) for point in points]
    return sorted((point for point in decoded if point.startswith(f"{folder}/")), key=len, reverse=True)


def mentioning(path: Path) -> list[int]:
    """Processes whose command line names a path below `path`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(os.fsencode(path)) for word in words):
                    found.append(int(entry.name))
    return found


def end_mentioning(folder: Path, grace: float = 10) -> list[int]:
    """End the processes that work below the folder, by id; those that had to be killed."""
    for pid in mentioning(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + grace
    while time.monotonic() < limit and mentioning(folder):
        time.sleep(0.05)
    stubborn = mentioning(folder)
    for pid in stubborn:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return stubborn


def _ordinal(name: str) -> int:
    """A number for each lab of this machine, from the two in its name."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not the name of a lab")
    return int(match[1]) * PER_PROCESS + int(match[2])


def _start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty when there is none."""
    with suppress(OSError):
        # Field 22 of proc_pid_stat(5); the name in parentheses may hold blanks.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
