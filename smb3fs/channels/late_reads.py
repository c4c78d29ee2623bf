"""What was read ahead by one of several channels, and does not come: a sibling is asked for it too, or instead.

A READ may be done twice. So one that was lost with its channel is asked of another one, and so is one that is long
overdue on a channel from which data come, ever so slowly: whoever reads the file in its order would wait for it. Which
answer is first counts; the other one is dropped when it is in.

Not all that is late has a slow way. A disk that takes its time does so on every channel, and asking it twice makes it
slower still. Hence only a sibling is asked from which something has come just now, or that has nothing to bring, as far
as it has room for what nobody waits for; and each READ once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smb3fs.channels.channel import Channel
from smb3fs.channels.session import Session
from smb3fs.connection import Answer

# What is told the answers, once; None if there will be none.
Told = Callable[[Sequence[Answer | None] | None], None]


class LateReads:
    """The READs of one session that were asked for ahead by one of several channels; the oldest first."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.again = 0
        """How many were asked for a second time since the first answer was late."""
        self._reads: dict[LateRead, None] = {}

    def begin(self, size: int, channel: Channel, told: Told, ask: Callable[[Told, Channel], bool], now: float) -> bool:
        """Ask for something by `ask`, by a channel that was allotted for it; False if that is not possible."""
        one = LateRead(self, size, channel, told, ask, now + self.session.patience(channel, size, now))
        self._reads[one] = None
        if ask(one.came, channel):
            return True
        self._reads.pop(one, None)
        return False

    def look(self, now: float) -> None:
        """Ask siblings for what is late."""
        for one in tuple(self._reads):
            if one.over or one.again or now < one.late:
                continue
            sibling = self.session.sibling(one.channel, one.size, now)
            if sibling is None:
                return
            self.again += one.ask_again(sibling)

    def forget(self, one: LateRead) -> None:
        """Take note that one has been told."""
        self._reads.pop(one, None)

    def heir(self, size: int) -> Channel | None:
        """Return the channel to ask for what was lost with another one."""
        return self.session.heir(size)


class LateRead:
    """One of them."""

    __slots__ = ("_ask", "_of", "_told", "_under_way", "again", "channel", "late", "over", "size")

    def __init__(
        self, of: LateReads, size: int, channel: Channel, told: Told, ask: Callable[[Told, Channel], bool], late: float
    ) -> None:
        self.size = size
        self.channel = channel
        self.late = late
        self.again = False
        self.over = False
        self._of = of
        self._told = told
        self._ask = ask
        self._under_way = 1

    def came(self, answers: Sequence[Answer | None] | None) -> None:
        """Take the answers of one channel, or the news that there will be none from it."""
        self._under_way -= 1
        if self.over or (answers is None and self._under_way):
            return
        if answers is None:
            heir = self._of.heir(self.size)
            if heir is not None and self._once_more(heir):
                return
        self.over = True
        self._of.forget(self)
        self._told(answers)

    def ask_again(self, sibling: Channel) -> bool:
        """Ask a sibling as well; False if that is not possible now."""
        self.again = self._once_more(sibling)
        return self.again

    def _once_more(self, channel: Channel) -> bool:
        """Ask once more."""
        self._under_way += 1
        if self._ask(self.came, channel):
            return True
        self._under_way -= 1
        return False
