"""A shorter history that still fails: parts are left out, ever smaller ones, as long as tries remain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def minimised(things: Sequence[Thing], fails: Callable[[Sequence[Thing]], bool], tries: int) -> tuple[list[Thing], int]:
    """The shortest found within so many calls of `fails`, and how many were left.

    Delta debugging: the last element is kept, since it is the one that failed.
    """
    kept = list(things)
    size = max(1, len(kept) // 2)
    while tries > 0:
        shorter = False
        at = len(kept) - 1
        while at > 0 and tries > 0:
            begin = max(0, at - size)
            attempt = kept[:begin] + kept[at:]
            tries -= 1
            if fails(attempt):
                kept, shorter = attempt, True
            at = begin
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return kept, tries
