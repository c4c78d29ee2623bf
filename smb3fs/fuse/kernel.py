"""What the kernel lets an administrator tune of a FUSE mount once it is there, found without touching the mount.

libfuse fixes read-ahead at 128 KiB and leaves 12 requests for the kernel to have under way on its own account (reads
ahead, closes). Both are files below /sys that root may write; where that fails, the mount works, only slower.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# Enough for several files that are read ahead, 1 MiB a request. Half of it is when the kernel begins to think the
# mount congested; its own ratio is three quarters.
MAX_BACKGROUND: Final = 64
CONGESTION_THRESHOLD: Final = 48

# proc(5): the octal escapes in a path of mountinfo.
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def device_of(mountpoint: str, mountinfo: str) -> str | None:
    """Return MAJOR:MINOR of the FUSE mount that covers `mountpoint`, from the text of /proc/self/mountinfo."""
    found = None
    for line in mountinfo.splitlines():
        # proc(5): id, parent, MAJOR:MINOR, root, mountpoint, options, optional fields, "-", type, source, options
        fields, _, tail = line.partition(" - ")
        words = fields.split(" ")
        if len(words) < 5 or not tail.startswith("fuse"):
            continue
        if _ESCAPE.sub(lambda match: chr(int(match[1], 8)), words[4]) == mountpoint:
            found = words[2]  # a later mount covers an earlier one
    return found


def tune(mountpoint: str, read_ahead: int) -> None:
    """Set the mount's read-ahead (bytes) and how many requests the kernel may have under way by itself."""
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    device = device_of(os.path.abspath(mountpoint), text)
    if device is None:
        log.info("the mount is not in /proc/self/mountinfo, and stays with the kernel's read-ahead")
        return
    _write(f"/sys/class/bdi/{device}/read_ahead_kb", read_ahead // 1024)
    connection = f"/sys/fs/fuse/connections/{device.partition(':')[2]}"
    _write(f"{connection}/max_background", MAX_BACKGROUND)
    _write(f"{connection}/congestion_threshold", CONGESTION_THRESHOLD)


def _write(path: str, value: int) -> None:
    """Write a number into a file below /sys."""
    try:
        Path(path).write_text(f"{value}\n")
    except OSError as error:
        log.info("%s keeps its value: %s", path, error.strerror)
