"""The local filesystem as the judge: the same action in two places must come out the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def outcome(action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | str:
    """What an action returned, or the name of the errno that it failed with."""
    try:
        return action(*arguments, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def tree(path: Path) -> dict[str, bytes | None]:
    """Every path below a directory, with a file's content and None for a directory."""
    found: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(path):
        relative = Path(folder).relative_to(path)
        found.update({str(relative / name): None for name in folders})
        found.update({str(relative / name): (Path(folder) / name).read_bytes() for name in files})
    return found
