"""What there is when a history has failed: who was wrong, the client that answered or the server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from lab.commands import CommandError

# Events and errors of each mount.
LAST: Final = 6


def known(find: Callable[[], list[str]]) -> list[str]:
    """What is found, or in one line why it is not: smbstatus may panic, at length, and the rest is to be told."""
    try:
        return find()
    except (OSError, ValueError, LookupError, TypeError, CommandError, subprocess.SubprocessError) as error:
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        panic = next((line for line in words if "PANIC" in line), "")
        return [f"not known: {words[0] if words else type(error).__name__}{f' ... {panic}' if panic else ''}"]


def on_disk(top: Path) -> list[str]:
    """What the server's own disk has below a directory: each name with the file's number, size and links."""
    lines = []
    for path in sorted(top.rglob("*")):
        try:
            found = path.lstat()
        except OSError as error:  # it is being removed
            lines.append(f"{path.relative_to(top)}: {error.strerror}")
            continue
        kind = "directory" if path.is_dir() else f"{found.st_size} bytes, {found.st_nlink} names"
        lines.append(f"{path.relative_to(top)}: number {found.st_ino}, {kind}")
    return lines


def open_there(open_files: dict[str, Any], folder: str) -> list[str]:
    """What smbstatus says is open in a folder: by whom, with which access, and under which lease."""
    lines = []
    for name, file in sorted(open_files.items()):
        if folder not in name:
            continue
        for held in file.get("opens", {}).values():
            lease = held.get("lease", {})
            lines.append(
                f"{name.partition(folder)[2].lstrip('/') or '.'}: process {held.get('server_id', {}).get('pid')}, "
                f"access {held.get('access_mask', {}).get('hex')}, {held.get('oplock', {}).get('text') or 'no lease'}"
                f"{' of ' + lease['lease_key'] if lease.get('lease_key') else ''}"
            )
    return lines


def of_mounts(statuses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the mounts tell of themselves: the last events, and the last errors."""
    return [
        f"{name}: {time.strftime('%H:%M:%S', time.localtime(told['time']))} {told['text']}"
        for name, status in statuses.items()
        for told in sorted([*status.get("events", ())[-LAST:], *status.get("last_errors", ())[-LAST:]], key=_when)
    ]


def _when(told: Mapping[str, Any]) -> float:
    """When something was that a mount tells of."""
    return float(told["time"])


def in_words(disk: list[str], opens: list[str], mounts: list[str]) -> str:
    """All of it, for a reader."""
    lines = ["  on the server's disk:", *(f"    {line}" for line in disk or ["nothing"])]
    lines += ["  open on the server:", *(f"    {line}" for line in opens or ["nothing"])]
    lines += ["  the mounts tell:", *(f"    {line}" for line in mounts or ["nothing"])]
    return "\n".join(lines)
