"""Names and attributes in directories that are kept with a lease (`smb3fs.cache.directories`): answered without asking.

Theory of operation. While the lease on a directory holds, its listing is true but for what this mount changes: every
change of ours is noted in it (`DirectoryTable.note_change`), and a name that was changed is asked for again, and what
comes is kept beside the listing. A listing in which anything was changed is not read to programs again; they get a new
one, which takes its place. A name that is not in it does not exist, if it is no other spelling of one that is.

The lease is about names, and about what the listing says of plain files. Not about

- what a writer has not closed yet, so a file that is open here is never answered for from the listing;
- other names of a file, so nor is one that is known to have several;
- the owner and mode of the POSIX extensions, which others can change without a break (seen on Samba 4.25): with them
  attributes are believed for `actimeo`, as without a lease;
- what changes a directory that is in it: its attributes are believed only while it is kept itself as well.

The kernel gets long timeouts for what is held, where it can be told to ask again. Attributes and names that were asked
for before a change or break and come after it are given short ones: a `Ticket` is taken before asking.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Final

import trio

from smb3fs.cache.directories import MOST_ENTRIES_EACH, CachedDirectory, DirectoryCache
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.vfs.attributes import UNTOLD, Entry, Listed
from smb3fs.vfs.contents import Asked, Contents, Name
from smb3fs.vfs.directories import Began, OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.joined import JoinedListings
from smb3fs.vfs.kept import Hold, KeptDirectories
from smb3fs.vfs.own_attributes import OwnAttributes
from smb3fs.vfs.spelling import Changes, key
from smb3fs.vfs.state import State, absent
from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)
# Seconds for which the kernel believes what is held; it is told when that ends.
LONG: Final = 3600.0


class CachedNames(KeptDirectories):
    """The directories of one mount that are kept, as the verbs use them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._cache: DirectoryCache[Contents] | None = None
        self._own = OwnAttributes(state, self._of)
        # What the kernel keeps of their listings.
        self.joined = JoinedListings(state, self._of)
        # Told of a directory that is not kept, in which a file was opened.
        self.on_opened: Callable[[Inode], None] = lambda parent: None
        # Whether a listing has all names that can be opened.
        self._tells_all: Callable[[], bool] = lambda: True

    def use(self, cache: DirectoryCache[Contents], *, root_held: bool, tells_all: Callable[[], bool]) -> None:
        """Keep directories from now on.

        `root_held` tells whether the lease on the root is also about the root's own attributes, `tells_all` whether
        the share lists all that can be opened.
        """
        self._cache, self._own.root_held, self._tells_all = cache, root_held, tells_all
        cache.on_drop = self._dropped
        self._state.directories.offer = self._offer

    def _of(self, inode: Inode) -> Contents | None:
        """Return what is known of a directory, if it is kept and to be believed."""
        if self._cache is None:
            return None
        contents = self._cache.get(inode.number)
        if contents is not None and contents.listing.outdated:
            self._cache.drop(inode.number)
            return None
        return contents

    def contents(self, inode: Inode) -> Contents | None:
        """Return what is known of a directory, if it is kept and nobody but us can have changed it."""
        return self._of(inode)

    def _hit(self, inode: Inode) -> None:
        """Count a request that was saved."""
        if self._cache is not None:
            self._cache.used(inode.number)

    def handle_of(self, inode: Inode) -> Open | None:
        """Return the handle of a directory that is kept."""
        return self._cache.handle(inode.number) if self._cache is not None else None

    # -- listings

    def wants(self, inode: Inode) -> bool:
        """Whether a lease is to be asked for; not for what is kept and would be listed anew for attributes alone."""
        contents = self._of(inode)
        if contents is not None and not contents.noted.count:
            return False
        return self._cache is not None and self._cache.wants(inode.number)

    def tells_all(self) -> bool:
        """Whether a listing has all names that can be opened, so that what is not in it does not exist."""
        return self._cache is not None and self._tells_all()

    def size(self, inode: Inode) -> int:
        """Return how many entries a directory has that is kept, 0 for others."""
        contents = self._of(inode)
        return len(contents.listing) if contents is not None else 0

    def begins(self, directory: OpenDirectory) -> None:
        """Take note of how a directory and the one that it is in are known before it is listed."""
        inode = directory.inode
        directory.began = Began(inode.changes, self._own.ticket(inode.parent) if inode.links else None)

    def lacks(self, inode: Inode) -> bool:
        """Whether a directory is not kept, and would be if it were listed now."""
        return self._cache is not None and self._cache.offered and self.wants(inode) and self._of(inode) is None

    def _offer(self, directory: OpenDirectory) -> bool:
        """Keep a directory all entries of which have come, if they are all true still and it has a lease."""
        pages = directory.pages
        if self._cache is None or pages is None or directory.outdated:
            return False
        if not directory.inode.links and directory.inode is not self._state.inodes.root:
            return False  # it was removed meanwhile, and its name is free when its last handle is closed
        if len(directory) > MOST_ENTRIES_EACH:
            return False
        before = self._of(directory.inode)
        if before is not None and not before.noted.count:
            return False  # somebody else was faster, and more holds under what he has kept
        handle = pages.take()
        if handle is None:
            return False
        listing = self._state.directories.add(directory.inode)
        listing.share(directory)
        contents = Contents(listing)
        # What was changed while the listing was under way may be in it or not.
        contents.noted.take(directory.changed)
        contents.own = self._own.listed(directory, contents)
        self._cache.keep(directory.inode.number, handle, contents, len(listing))
        return True

    def lists(self, inode: Inode) -> bool:
        """Whether a directory would be listed from what is kept."""
        return self._to_list(inode) is not None

    def _to_list(self, inode: Inode) -> Contents | None:
        """Return what a directory may be listed from."""
        contents = self._of(inode)
        if contents is None or contents.noted.count:
            return None
        if self._state.posix and trio.current_time() - contents.listing.came > self._state.presentation.file_timeout:
            return None
        return contents

    def list(self, directory: OpenDirectory) -> bool:
        """Read an open directory from what is kept; False if the server has to be asked."""
        contents = self._to_list(directory.inode)
        if contents is None:
            return False
        directory.share(contents.listing)
        directory.changed = Changes()
        self._hit(directory.inode)
        self._own.ask(directory.inode, contents, self.handle_of(directory.inode))
        return True

    def base(self) -> int:
        """Return what the positions of a new listing are to be counted from."""
        return self.joined.next_base() if self._cache is not None and self._cache.offered and self._state.expires else 0

    def place(self, directory: OpenDirectory, position: int) -> int:
        """Return where a position is in an open directory, which goes on with the listing that it is of."""
        return self.joined.place(directory, position)

    def may_join(self, directory: OpenDirectory) -> bool:
        """Whether what is read from the beginning of an open directory may become what the kernel keeps of it."""
        return self.joined.may_join(directory)

    def holding(self, directory: OpenDirectory) -> Hold | None:
        """Return what gives an entry of an open directory its timeouts, if that is kept."""
        parent = directory.inode
        contents = self._of(parent)
        if contents is None or contents.listing.pages is not directory.pages or not self._state.expires:
            return None

        def hold(entry: Entry, inode: Inode | None, name: str, kind: int) -> None:
            if inode is not None and self._state.spellings(inode, parent, name):
                return
            entry.entry_timeout = LONG
            if kind not in UNTOLD and kind != stat.S_IFDIR and self._is_plain(inode):
                entry.attr_timeout = LONG

        return hold

    def _is_plain(self, inode: Inode | None) -> bool:
        """Whether what the listing says of a file's attributes is all that there is to say."""
        if self._state.posix:
            return False
        return inode is None or (inode.nlink <= 1 and len(inode.links) <= 1 and not self._state.files.of(inode))

    # -- names

    def look_up(self, parent: Inode, name: str) -> Entry | None:
        """Return what is under a name of a directory, None if the server has to be asked; raises ENOENT."""
        contents = self._of(parent)
        if contents is None or self._state.is_hidden(name):
            return None
        learned = contents.noted.learned.get(key(name))
        if learned is not None and learned[0] == name:
            return self._learned(parent, name, learned[1], learned[2])
        if name in contents.noted:
            return None
        position = contents.position(name)
        if position is not None:
            told, came = contents.listing.entry(position)
            return self._listed(parent, told, came) if told is not None else None
        if not self._tells_all() or contents.may_have(name):
            return None
        self._hit(parent)
        raise absent()

    def _learned(self, parent: Inode, name: str, told: FileAttributes | None, came: float) -> Entry | None:
        """Return what was learned of a name."""
        if told is None:
            self._hit(parent)
            raise absent()
        known = self._state.inodes.find(parent, name, told.file_id, told.created, told.kind)
        age = trio.current_time() - came
        if self._state.posix or told.is_directory or not self._is_plain(known):
            if known is not None and told.is_directory and (own := self._own.of(known)) is not None:
                told, age = own, 0.0
            if age > self._patience(told.kind) or (known is not None and self._state.files.of(known)):
                return None
        inode = self._state.seen(parent, name, told)
        self._hit(parent)
        entry = self._state.counted(inode, told)
        self._give(entry, inode, parent, name, told, age)
        return entry

    def _listed(self, parent: Inode, told: Listed, came: float) -> Entry | None:
        """Return what the listing says of a name."""
        state = self._state
        kind = state.presentation.listed_kind(told)
        if kind in UNTOLD:
            return None
        created, age = filetime_to_ns(told.creation_time), trio.current_time() - came
        known = state.inodes.find(parent, told.name, told.file_id, created, kind)
        if known is not None and kind == stat.S_IFDIR and (own := self._own.of(known)) is not None:
            return self._learned(parent, told.name, own, came)
        plain = kind != stat.S_IFDIR and self._is_plain(known)
        if not plain and (age > self._patience(kind) or (known is not None and state.files.of(known))):
            return None
        inode = state.inodes.enter(parent, told.name, told.file_id, created, kind)
        inode.tell()
        self._hit(parent)
        entry = state.presentation.listed(inode.number, told, age, kind, inode.nlink)
        if state.spellings(inode, parent, told.name):
            entry.entry_timeout = 0.0
        elif state.expires:
            entry.entry_timeout = LONG
            if plain:
                entry.attr_timeout = LONG
        return entry

    def _patience(self, kind: int) -> float:
        """How old attributes may be that no lease is about, in seconds."""
        presentation = self._state.presentation
        return presentation.directory_timeout if kind == stat.S_IFDIR else presentation.file_timeout

    # -- attributes

    def attributes(self, inode: Inode) -> Entry | None:
        """Return the attributes of an inode, None if the server has to be asked."""
        if self._cache is None:
            return None
        if inode.is_directory:
            told = self._own.of(inode)
            if told is None:
                return None
            self._hit(inode)
            entry = self._state.told(inode, told)
            if self._state.expires:
                entry.attr_timeout = LONG
            return entry
        if len(inode.links) != 1 or inode.nlink > 1 or self._state.posix:
            return None
        opens = self._state.files.of(inode)
        if any(file.handle.writable or not _is_watched(file.handle) for file in opens):
            return None
        parent, name = inode.links[0]
        contents = self._of(parent) if not self._state.is_hidden(name) else None
        known = self._attributes_in(contents, name, inode) if contents is not None else None
        if known is not None:
            self._hit(parent)
            if not opens:  # else they are what they were at the open, so what came with that is no older
                inode.told += 1
                if self._state.expires:
                    known.attr_timeout = LONG
        return known

    def _attributes_in(self, contents: Contents, name: str, inode: Inode) -> Entry | None:
        """Return what is known in a directory of one of its files."""
        state = self._state
        learned = contents.noted.learned.get(key(name))
        if learned is not None and learned[0] == name:
            now = learned[1]
            same = now is not None and state.inodes.is_same(inode, now.file_id, now.created, now.kind)
            return state.presentation.entry(inode.number, now) if now is not None and same else None
        position = contents.position(name) if name not in contents.noted else None
        if position is None:
            return None
        told, _ = contents.listing.entry(position)
        if told is None:
            return None
        kind = state.presentation.listed_kind(told)
        if kind in UNTOLD or not state.inodes.is_same(inode, told.file_id, filetime_to_ns(told.creation_time), kind):
            return None
        return state.presentation.listed(inode.number, told, 0.0, kind, inode.nlink)

    # -- learning

    def asked(self, parent: Inode, child: Inode | None) -> Asked:
        """Take note of how things are before a name is asked for, or its inode if that is known."""
        return self._own.asked(parent, child)

    def learn_absent(self, parent: Inode, name: str, asked: Asked) -> None:
        """Remember that the server says that there is no such name; one that was listed says that nothing holds."""
        before = asked.parent
        if before is None or self._own.ticket(parent) != before or self._cache is None:
            return
        contents = before.contents
        if name not in contents.noted and contents.position(name) is not None:
            self._cache.drop(parent.number)
        else:
            contents.noted.learn(name, None, trio.current_time())

    def learn(
        self, name: Name, inode: Inode, told: FileAttributes, entry: Entry, asked: Asked, age: float = 0.0
    ) -> None:
        """Remember what the server has said of an inode under a name, `age` seconds ago; let the kernel believe it."""
        parent, text = name
        before, own = asked
        if before is not None and self._own.ticket(parent) == before and not self._state.files.of(inode):
            before.contents.noted.learn(text, told, trio.current_time() - age)
        else:
            before = None
        if own is not None and self._own.own_ticket(inode) == own and (before is not None or parent is inode):
            own.contents.own = (told, own, before)
        if before is not None and entry.entry_timeout:
            self._give(entry, inode, parent, text, told, 0.0)
        elif parent is inode and self._own.of(inode) is not None and self._state.expires:
            entry.attr_timeout = LONG

    def _give(self, entry: Entry, inode: Inode, parent: Inode, name: str, told: FileAttributes, age: float) -> None:
        """Give an entry the timeouts that the leases permit."""
        entry.attr_timeout = max(0.0, entry.attr_timeout - age)
        if self._state.spellings(inode, parent, name):
            entry.entry_timeout = 0.0
        elif self._state.expires:
            entry.entry_timeout = LONG
            if self._own.of(inode) is not None if told.is_directory else self._is_plain(inode):
                entry.attr_timeout = LONG

    # -- the end of it

    def opened(self, inode: Inode, handle: Open) -> None:
        """Take note of what the server says of a file that is being opened: the listing may not know it yet.

        Where others may write to it unnoticed from now on, the kernel asks for attributes again, and while the file is
        open as often as without a lease. With R nobody may: the kernel forgets attributes together with pages.
        """
        if self._cache is None or inode.is_directory:
            return
        told = handle.attributes_at_open
        for parent, name in inode.links:
            contents = self._of(parent)
            if contents is None:
                self.on_opened(parent)
                continue
            known = self._attributes_in(contents, name, inode)
            true = known is not None and (known.attr.size, known.attr.mtime_ns) == (told.size, told.modified)
            if not true:
                contents.noted.add(name)
            if not true or not (self._state.posix or self._state.pages.watches(handle)):
                self._state.forget_attributes(inode.number)

    def moved(self, old_parent: Inode, parent: Inode, name: str) -> None:
        """Take note that something has got this name, which the kernel believes for as long as the one before.

        That may have been for as long as another directory is kept, or this one was until a moment ago.
        """
        state = self._state
        if self._cache is None or not self._cache.offered or state.directory_changed is None:
            return
        seen = state.names.to_kernel(name)
        if isinstance(seen, bytes) and (old_parent is not parent or self._of(parent) is None):
            state.directory_changed(parent.number, (), ((parent.number, seen),))

    def closed(self, inode: Inode) -> None:
        """Take note that a file which was open for writing is closed."""
        self._state.directories.note_change_of(inode)

    def distrust(self, inode: Inode) -> None:
        """Keep a directory no longer in which something is not as it is known."""
        if self._cache is not None:
            self._cache.drop(inode.number)

    def leave(self, inode: Inode | None) -> None:
        """Close a directory and all below it, which are about to be moved or removed; None: all."""
        if self._cache is None or (inode is not None and not inode.is_directory):
            return
        for cached in self._cache:
            above = cached.known.listing.inode
            while inode is not None and above is not inode and above.links:
                above = above.parent
            if inode is None or above is inode:
                self._cache.drop(cached.number)

    def _dropped(self, cached: CachedDirectory[Contents]) -> trio.Event | None:
        """Have the kernel forget what it was told of a directory and of what is in it."""
        state, inode = self._state, cached.known.listing.inode
        state.directories.remove(cached.known.listing.fh)
        children, names = [], []
        for name, child in (inode.names or {}).items():
            if child.shown:
                children.append(child.number)
                seen = state.names.to_kernel(name)
                if isinstance(seen, bytes):
                    names.append((inode.number, seen))
        state.inodes.drop_unused(inode)
        return state.directory_changed(inode.number, children, names) if state.directory_changed is not None else None

    def counts(self) -> dict[str, int]:
        """Return what `smb3fs status` shows."""
        cache = self._cache
        if cache is None:
            return {"directories": 0, "entries": 0, "hits": 0, "breaks": 0}
        return {"directories": len(cache), "entries": cache.entries, "hits": cache.hits, "breaks": cache.breaks}


def _is_watched(handle: Open) -> bool:
    """Whether the server tells when others write to an open file."""
    return handle.lease is not None and bool(handle.lease.state & READ)
