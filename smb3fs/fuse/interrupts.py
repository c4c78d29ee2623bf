"""Which signals end a call that waits for the server.

The kernel says that whoever waits has had a signal, and not which one. Programs do not expect that calls on files fail
with EINTR because a timer has fired or a child has ended (Go's runtime sends itself a signal to switch goroutines), so
only those signals count by which somebody asks the program to end. What kills a process does so by SIGKILL, whatever it
was at first, so a default action that ends the process is among them.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

# proc(5): bit n-1 of a mask stands for signal n.
ENDING: Final = sum(
    1 << number - 1 for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
)
# Seconds until somebody who was interrupted by another signal is looked at again: the kernel tells of the first only.
LOOK_AGAIN: Final = 0.2


def asked_to_end(thread: int) -> bool:
    """Whether a thread has a signal before it that asks it to end, or may have: it may be nobody we can see."""
    try:
        text = Path(f"/proc/{thread}/status").read_text(errors="replace")
    except OSError:
        return True
    return asks_to_end(text)


def asks_to_end(status: str) -> bool:
    """Read the same from the text of /proc/PID/status."""
    masks = {"SigPnd": 0, "ShdPnd": 0, "SigBlk": 0}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in masks:
            masks[name] = int(value, 16)
    return bool((masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ENDING)
