"""What every group of verbs stands on: the wall, the tables of the mount, and its share."""

from __future__ import annotations

from smb3fs.trace import Trace
from smb3fs.vfs.anticipation import Anticipation
from smb3fs.vfs.attributes import Settings
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.cached import CachedNames
from smb3fs.vfs.listing_ahead import ListingsAhead
from smb3fs.vfs.state import State
from smb3fs.vfs.wall import Walled


class Verbs(Walled):
    """A group of verbs; `operations.Vfs` joins them."""

    def __init__(self, share: ShareVerbs, settings: Settings, trace: Trace) -> None:
        super().__init__(settings.timeout, trace, hard=settings.hard)
        self.state = State(share, settings, trace)
        self.cached = CachedNames(self.state)
        self.state.cached = self.cached
        self._share = share
        self._inodes = self.state.inodes
        self._files = self.state.files
        lifetime = 0.0 if self.state.uncached else min(settings.acregmax, settings.acdirmax)
        self._ahead = Anticipation(self.state, lifetime)
        self.listings_ahead = ListingsAhead(self.state, lifetime)
        self.state.listings_ahead = self.listings_ahead
        self.state.on_stale = self._ahead.leave_alone
        self.cached.on_opened = self._ahead.want
