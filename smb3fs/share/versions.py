"""Which previous version of the share a person means, and what is said where there is no such one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smb3fs.errors import MountError
from smb3fs.wire.snapshots import SECOND, snapshot_time, time_token, token_time

# How many of the versions that there are a refusal names.
NAMED: Final = 3


def chosen_time(text: str) -> int:
    """Return the FILETIME that the option `snapshot=` names."""
    filetime = snapshot_time(text)
    if filetime is None:
        raise MountError(f"option snapshot={text}: there is no such time; give one that 'smb3fs snapshots' prints")
    return filetime


def check_chosen(filetime: int, tokens: Sequence[str]) -> None:
    """Raise MountError if the version of that time is not among those that there are.

    Some servers show the share as it is to whoever asks for a version that they do not know.
    """
    known = sorted(time for token in tokens if (time := token_time(token)) is not None)
    if not known:
        raise MountError("the server has no previous versions of this share; leave out snapshot=")
    wanted = filetime // SECOND
    if any(time // SECOND == wanted for time in known):
        return
    nearest = sorted(sorted(known, key=lambda time: abs(time - filetime))[:NAMED])
    some = ", ".join(time_token(time) for time in nearest)
    raise MountError(
        f"the server has no previous version {_shown(filetime)}; of {len(known)} that there are, the nearest: {some}"
    )


def _shown(filetime: int) -> str:
    """Return a time in the way of tokens, or the number if it is too far away for one."""
    try:
        return time_token(filetime)
    except OverflowError:
        return str(filetime)
