"""What a lab's servers wrote, kept beyond the lab's end, so that the cause of a failure can be looked for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab.owner import BASE

# In the clone, where nobody else looks; `samba.py clean` removes it, which tools/test begins with.
PLACE: Final = Path(__file__).resolve().parents[2] / ".lab" / "logs"
# So many failures are kept, and so many bytes from the end of each file.
MOST: Final = 20
TAIL: Final = 2 << 20
# Where a lab's servers write, and how they call it. Nothing else in a lab is looked at: mounts are among it, and hang.
FOLDERS: Final = ("", "samba", "dc", "dc/log")
LOG: Final = re.compile(r"output|log|log\..+|smb\.conf")


def keep_logs(name: str, *, place: Path = PLACE, base: Path = BASE) -> Path | None:
    """Copy what the servers of this process's labs have written so far to a folder that has this name; return it.

    None if there is nothing. Of many such folders the oldest go.
    """
    files = [(lab, file) for lab in sorted(base.glob(f"smb3fs-lab-{os.getpid()}-*")) for file in _logs(lab)]
    if not files:
        return None
    target = place / re.sub(r"[^\w.,=-]+", "_", name)[:150]
    shutil.rmtree(target, ignore_errors=True)
    for lab, file in files:
        copy = target / lab.name / file.relative_to(lab)
        copy.parent.mkdir(parents=True, exist_ok=True)
        _copy_end(file, copy)
    others = sorted((one for one in place.iterdir() if one != target), key=lambda one: one.stat().st_mtime_ns)
    for old in others[: max(0, len(others) - MOST + 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def drop_logs(place: Path = PLACE) -> None:
    """Remove all that was kept."""
    shutil.rmtree(place, ignore_errors=True)


def _logs(lab: Path) -> Iterator[Path]:
    """Yield the files of a lab that its servers write."""
    for folder in FOLDERS:
        if (lab / folder).is_dir():
            files = sorted((lab / folder).iterdir())
            yield from (file for file in files if LOG.fullmatch(file.name) and file.is_file())


def _copy_end(file: Path, copy: Path) -> None:
    """Copy the end of a file, which may be growing."""
    with file.open("rb") as source, copy.open("wb") as kept:
        source.seek(max(0, file.stat().st_size - TAIL))
        kept.write(source.read(TAIL))
