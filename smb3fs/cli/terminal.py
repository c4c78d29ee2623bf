"""A terminal that shows one screen after the other, and gets back as it was however that ends.

The sequences are ECMA-48's and xterm's, which every terminal of the last decades understands, the Linux console among
them. Why not curses: docs/decisions/0037-what-shows-a-mount.md.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Self

# Another screen than the one with the shell's output, without a cursor and without wrapping; and back.
ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
END_OF_LINE: Final = "\x1b[K"
END_OF_SCREEN: Final = "\x1b[J"
PLAIN: Final = "\x1b[0m"


def is_interactive() -> bool:
    """Whether somebody sits at a terminal that can show a screen, and can press a key there."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


class Terminal:
    """The terminal of this process, within a `with` block; SIGTERM and SIGHUP end that by SystemExit."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        # A signal writes a byte here, so that it ends a wait.
        self._woken, self._waker = socket.socketpair()

    def __enter__(self) -> Self:
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._before = termios.tcgetattr(self._input)
        self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGWINCH, lambda *_: None),
            (signal.SIGTERM, _end),
            (signal.SIGHUP, _end),
            (signal.SIGTSTP, self._pause),
        ):
            self._handlers[number] = signal.signal(number, handler)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._woken.close()
        self._waker.close()

    def _take(self) -> None:
        """Begin: keys come at once and are not shown."""
        tty.setcbreak(self._input)
        _write(ENTER)

    def _give_back(self) -> None:
        """Have everything as it was; a terminal that is gone needs nothing."""
        with suppress(OSError, termios.error):
            _write(PLAIN + LEAVE)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)

    def _pause(self, number: int, _: FrameType | None) -> None:
        """Be stopped with the terminal as the shell wants it, and begin anew when that is over."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here it goes on after SIGCONT.
        signal.signal(number, self._pause)
        self._take()

    @staticmethod
    def size() -> tuple[int, int]:
        """Return how many columns and rows there are."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            found = shutil.get_terminal_size()
        return max(found.columns, 1), max(found.lines, 1)

    def show(self, lines: Iterable[tuple[str, str]]) -> None:
        """Show lines, each with the sequence for its style, in place of what was there."""
        told = "\n".join(f"{style}{text}{PLAIN if style else ''}{END_OF_LINE}" for text, style in lines)
        _write(HOME + told + END_OF_SCREEN)

    def wait(self, seconds: float) -> str:
        """Return the keys that are pressed, the empty string when the time is over or the size has changed.

        EOFError says that no more can come.
        """
        ready, _, _ = select.select([self._input, self._woken], [], [], max(seconds, 0))
        if self._woken in ready:
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._input not in ready:
            return ""
        pressed = os.read(self._input, 1024)
        if not pressed:
            raise EOFError
        return pressed.decode(errors="replace")


def _write(text: str) -> None:
    """Write all of a text to the terminal."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _end(number: int, _: FrameType | None) -> None:
    """End the program as the signal asks, by way of whoever has something to put back."""
    raise SystemExit(128 + number)
