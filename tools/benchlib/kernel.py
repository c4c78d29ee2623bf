"""What the kernel knows of mounts and processes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of /proc/self/mountinfo."""

    device: str
    kind: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used: seconds of CPU, and the most memory that was resident at once, in KiB."""

    cpu: float
    memory: int


def parse_mountinfo(text: str, path: str) -> MountInfo | None:
    """The topmost mount on `path` in the words of proc_pid_mountinfo(5); None when there is none."""
    for line in reversed(text.splitlines()):
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
        if point == path:
            return MountInfo(words[2], rest.split()[0])
    return None


def mount_at(path: Path) -> MountInfo | None:
    """The mount on `path`."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(), str(path))


def read_ahead_kib(path: Path) -> int | None:
    """The kernel's read-ahead for the mount on `path`."""
    mount = mount_at(path)
    with suppress(OSError):
        if mount is not None:
            return int(Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").read_text())
    return None


def family(*roots: int) -> list[int]:
    """The processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
    found = []
    pending = list(roots)
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def usage(pids: list[int]) -> Usage:
    """CPU and memory of these processes together; those that have ended count nothing."""
    cpu = 0
    memory = 0
    for pid in pids:
        with suppress(OSError):
            fields = _stat_fields(pid)
            cpu += int(fields[11]) + int(fields[12])  # utime and stime
            memory += high_water_kib(Path(f"/proc/{pid}/status").read_text())
    return Usage(cpu / CLOCK_TICKS, memory)


def high_water_kib(status: str) -> int:
    """VmHWM out of the text of /proc/PID/status; 0 for a process that has no memory any more."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) if match else 0


def _stat_fields(pid: int) -> list[str]:
    """Fields of proc_pid_stat(5) from the third (state) on; the name before them may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
