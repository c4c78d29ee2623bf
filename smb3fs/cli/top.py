"""`smb3fs top`: the mounts of this machine at work, shown anew every second on a terminal, or printed for a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from smb3fs.cli.printable import cut
from smb3fs.cli.terminal import Terminal, is_interactive
from smb3fs.cli.top_text import Line, Style, View, screen
from smb3fs.status import StatusUnavailableError, mounted_shares, query_status

# Seconds between two looks, if nobody says otherwise, and at least.
INTERVAL: Final = 1.0
SHORTEST: Final = 0.1
# How long a daemon may take to answer: it does so at once, unless it does not at all.
PATIENCE: Final = 2.0
# The width where there is no terminal: that of the widest row.
BATCH_COLUMNS: Final = 132

Query = Callable[[str, float], dict[str, Any]]


class Mounts:
    """One mount or all there are, asked time and again."""

    def __init__(self, mountpoint: str | None, query: Query) -> None:
        self._mountpoint = mountpoint
        self._query = query
        self._before: dict[str, dict[str, Any]] = {}

    def look(self) -> list[View]:
        """Ask each daemon once."""
        places = [self._mountpoint] if self._mountpoint is not None else list_mounts()
        views = [self._view(place) for place in places]
        self._before = {view.mountpoint: dict(view.now) for view in views if view.now is not None}
        return views

    def _view(self, place: str) -> View:
        """Ask one daemon."""
        try:
            return View(place, self._query(place, PATIENCE), self._before.get(place))
        except StatusUnavailableError as error:
            return View(place, complaint=str(error))


def list_mounts() -> list[str]:
    """Return where there are mounts; where one hides another, once."""
    return list(dict.fromkeys(mount.mountpoint for mount in mounted_shares()))


def run(
    mountpoint: str | None,
    *,
    batch: bool = False,
    count: int | None = None,
    interval: float = INTERVAL,
    query: Query = query_status,
) -> None:
    """Show a mount, or all, `count` times or until somebody has seen enough.

    Raises StatusUnavailableError if there is nothing to show to begin with.
    """
    mounts = Mounts(mountpoint, query)
    views = mounts.look()
    if not views:
        raise StatusUnavailableError("nothing is mounted; findmnt -t fuse.smb3fs would list it")
    if all(view.now is None for view in views):
        raise StatusUnavailableError("; ".join(view.complaint for view in views))
    interval = max(interval, SHORTEST)
    try:
        if batch or not is_interactive():
            _print(mounts, count, interval)
        else:
            _show(mounts, views, count, interval)
    except KeyboardInterrupt:
        return  # how most people end it
    except BrokenPipeError:
        # Who reads has seen enough; what is left in the buffer is not to be complained of at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(mounts: Mounts, count: int | None, interval: float) -> None:
    """Print one screen after the other; the first one when there are rates to tell."""
    printed = 0
    while count is None or printed < count:
        time.sleep(interval)
        texts = [_title(), *(line.text for line in screen(mounts.look(), BATCH_COLUMNS)), ""]
        print("\n".join(texts if printed == 0 else ["", *texts]), end="", flush=True)
        printed += 1


def _show(mounts: Mounts, views: Sequence[View], count: int | None, interval: float) -> None:
    """Show one screen after the other on the terminal, until q is pressed."""
    with Terminal() as terminal:
        shown, due = 1, time.monotonic() + interval
        while True:
            columns, rows = terminal.size()
            title = Line(cut(f"{_title()}   q ends it", columns), Style.TITLE)
            lines = [title, *screen(views, columns, rows - 1)] if rows > 1 else [title]
            terminal.show((line.text, line.style.value) for line in lines)
            try:
                pressed = terminal.wait(due - time.monotonic())
            except EOFError:
                return
            if "q" in pressed.lower():
                return
            if time.monotonic() < due and " " not in pressed:
                continue
            if count is not None and shown >= count:
                return
            views = mounts.look()
            shown, due = shown + 1, time.monotonic() + interval


def _title() -> str:
    """Return the line above all mounts."""
    return time.strftime("smb3fs top  %Y-%m-%d %H:%M:%S")
