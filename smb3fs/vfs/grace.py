"""Steps that belong together, of which a signal to the caller must not leave the half."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable
from typing import Final, TypeVar

import trio

from smb3fs.errors import Smb3fsError

T = TypeVar("T")

# Seconds for which they go on after the caller has stopped waiting.
GRACE: Final = 5.0


async def to_the_end(steps: Awaitable[T]) -> T:
    """Await `steps`, and go on for `GRACE` seconds when cancelled meanwhile; the caller learns of that afterwards.

    Without a cancellation they take as long as they take. Raises what they raise, ETIMEDOUT after the grace.
    """
    failure: OSError | Smb3fsError | None = None
    shield = trio.CancelScope(shield=True)

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            shield.deadline = trio.current_time() + GRACE

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with shield:
            try:
                result = await steps
            except (OSError, Smb3fsError) as error:
                failure = error  # raised outside of the nursery, which would wrap it into a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if shield.cancelled_caught:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return result
