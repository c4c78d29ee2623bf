"""Names of ours that nobody else knows: what they look like, and which of them are left out of listings.

Files and directories have them for a while: what is removed or replaced while it is open, what is being made, what is
to keep its number. Who gives them, and sees to it that they go, is `handles.given_names`.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

PREFIX: Final = ".smb3fs-"
# So many names that are gone are still left out of listings: none is ever given twice.
MOST_STRUCK: Final = 1000


def hidden_name(folder: str = "", separator: str = "\\") -> str:
    """Return a name that nobody else has, in a folder of the share."""
    return (f"{folder}{separator}" if folder else "") + PREFIX + os.urandom(8).hex()


def is_hidden(name: str) -> bool:
    """Whether the last component of a path is such a name."""
    return name.rpartition("\\")[2].startswith(PREFIX)


class Unlisted:
    """Which names of ours no listing shows; each by its last component, in a set that others look at."""

    def __init__(self, names: set[str] | None = None) -> None:
        self.names = names if names is not None else set()
        # What is gone, but may be in a listing that the server has made before.
        self._struck: deque[str] = deque()

    def add(self, name: str) -> None:
        """Leave a name out, if it is one that nobody else knows."""
        if is_hidden(name):
            self.names.add(name.rpartition("\\")[2])

    def strike(self, name: str) -> None:
        """Take notice that there is nothing of that name any more."""
        component = name.rpartition("\\")[2]
        if component in self.names:
            self._struck.append(component)
            if len(self._struck) > MOST_STRUCK:
                self.names.discard(self._struck.popleft())

    def show(self, name: str) -> None:
        """Take notice that something else has that name."""
        self.names.discard(name.rpartition("\\")[2])
