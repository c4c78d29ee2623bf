"""What comes of claims: why an open was not given back, and how many fell into which state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from smb3fs.errors import Status


class Refusal(NamedTuple):
    """Why an open was not given back, and the status by which the server said so, if it did."""

    why: str
    status: int = Status.SUCCESS


LATE: Final = Refusal("the server did not answer in time")
NOT_DURABLE: Final = Refusal("it was not durable")
OTHER_RULES: Final = Refusal("the server has given it back under other rules for locks")
ROBBED: Final = Refusal("the server has given it back without its locks")
# So that it is claimed by its old name, which the file has been given again for an attempt that came to nothing.
NAMED: Final = Refusal("its file has its old name", Status.OBJECT_NAME_NOT_FOUND)


@dataclass(slots=True)
class Tally:
    """How many opens fell into which state."""

    claimed: int = 0
    reopened: int = 0
    lost: int = 0
    robbed: int = 0
    """How many of these the server had given back without their locks."""
    example: str = ""
    """One that was lost, and why."""

    def __bool__(self) -> bool:
        """Whether there was anything."""
        return bool(self.claimed or self.reopened or self.lost)

    def __str__(self) -> str:
        """Write it for the log."""
        told = f"{self.claimed} handles claimed, {self.reopened} reopened, {self.lost} lost"
        return f"{told}, for one {self.example}" if self.example else told

    def add(self, other: Tally) -> None:
        """Count another one in."""
        self.claimed += other.claimed
        self.reopened += other.reopened
        self.lost += other.lost
        self.robbed += other.robbed
