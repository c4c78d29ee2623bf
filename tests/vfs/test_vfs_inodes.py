"""The inode table, by example and against a simple model."""

from __future__ import annotations

import errno
import gc
import tracemalloc
from stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from vfs_world import fails

from smb3fs.vfs.inodes import FALLBACK, MAX_LINKS, NO_IDS, ROOT, Inode, InodeTable

CREATED = 1_700_000_000 * 10**9


def enter(
    table: InodeTable, parent: Inode, name: str, file_id: int, *, created: int = CREATED, kind: int = S_IFREG
) -> Inode:
    """See something under a name, as a lookup does."""
    inode = table.enter(parent, name, file_id, created, kind)
    inode.lookups += 1
    return inode


def path(table: InodeTable, inode: Inode) -> str:
    return next(table.paths(inode))


def test_the_servers_id_is_the_number() -> None:
    table = InodeTable()
    inode = enter(table, table.root, "a", 77)
    assert inode.number == 77
    assert table.get(77) is inode
    assert path(table, inode) == "a"
    assert inode.expect == 77
    assert enter(table, table.root, "a", 77) is inode
    assert inode.lookups == 2


@pytest.mark.parametrize("file_id", [0, 1, 2**64 - 1])
def test_ids_that_cannot_be_numbers(file_id: int) -> None:
    table = InodeTable()
    inode = enter(table, table.root, "a", file_id)
    other = enter(table, table.root, "b", file_id, created=CREATED + 1)
    assert inode.number >= FALLBACK
    assert other.number >= FALLBACK
    assert inode.number != other.number
    assert enter(table, table.root, "a", file_id) is inode
    assert (inode.expect is None) == (file_id in NO_IDS)


def test_without_ids_a_name_is_a_file() -> None:
    table = InodeTable()
    assert enter(table, table.root, "a", 0) is not enter(table, table.root, "b", 0)


def test_noserverino_numbers_everything_itself() -> None:
    table = InodeTable(server_numbers=False)
    inode = enter(table, table.root, "a", 77)
    assert inode.number >= FALLBACK
    assert inode.expect == 77
    assert enter(table, table.root, "b", 77) is inode  # a hard link still is one


def test_an_id_that_repeats_gets_another_number() -> None:
    table = InodeTable()
    first = enter(table, table.root, "a", 77)
    second = enter(table, table.root, "b", 77, created=CREATED + 5)
    third = enter(table, table.root, "c", 77, kind=S_IFDIR)
    assert len({first.number, second.number, third.number}) == 3
    assert first.number == 77
    assert enter(table, table.root, "b", 77, created=CREATED + 5) is second
    assert enter(table, table.root, "elsewhere", 77, created=CREATED + 5) is second
    assert enter(table, table.root, "c", 77, kind=S_IFDIR) is third


def test_a_fallback_number_is_not_used_twice() -> None:
    table = InodeTable()
    numbers = set()
    for _ in range(50):
        inode = enter(table, table.root, "a", 0)
        numbers.add(inode.number)
        table.forget(inode.number, 1)
    assert len(numbers) == 50
    assert len(table) == 1


def test_a_server_id_may_be_a_number_that_we_would_have_given() -> None:
    table = InodeTable()
    theirs = enter(table, table.root, "theirs", FALLBACK)
    ours = enter(table, table.root, "ours", 0)
    assert theirs.number == FALLBACK
    assert ours.number == FALLBACK + 1
    again = enter(table, table.root, "again", FALLBACK + 1, created=CREATED + 1)
    assert again.number not in (FALLBACK, FALLBACK + 1)


def test_a_creation_time_that_moves() -> None:
    """As Samba's does for what was not created through it."""
    table = InodeTable()
    inode = enter(table, table.root, "a", 77)
    assert enter(table, table.root, "a", 77, created=CREATED + 1) is inode
    assert enter(table, table.root, "hard link", 77, created=CREATED + 1) is inode
    nameless = enter(table, table.root, "b", 0)
    assert enter(table, table.root, "b", 0, created=CREATED + 1) is not nameless


def test_an_unknown_creation_time_is_no_other_file() -> None:
    table = InodeTable()
    inode = enter(table, table.root, "a", 77, created=0)
    assert enter(table, table.root, "a", 77, created=CREATED) is inode
    assert inode.created == CREATED
    assert enter(table, table.root, "a", 77, created=0) is inode
    assert inode.created == CREATED


def test_an_id_learned_later_is_kept() -> None:
    """A listing without ids, then a lookup that has one."""
    table = InodeTable()
    inode = enter(table, table.root, "a", 0)
    assert enter(table, table.root, "a", 77) is inode
    assert inode.expect == 77
    assert enter(table, table.root, "b", 77) is inode
    table.forget(inode.number, 3)
    assert enter(table, table.root, "b", 77) is not inode


def test_a_creation_time_learned_through_a_handle() -> None:
    table = InodeTable()
    enter(table, table.root, "a", 77)
    other = enter(table, table.root, "b", 77, created=CREATED + 1)
    table.adopt(other, 77, CREATED + 2)
    assert enter(table, table.root, "c", 77, created=CREATED + 2) is other
    assert enter(table, table.root, "d", 77, created=CREATED + 1) is not other


def test_hard_links() -> None:
    table = InodeTable()
    inode = enter(table, table.root, "a", 77)
    assert enter(table, table.root, "b", 77) is inode
    assert list(table.paths(inode)) == ["b", "a"]
    table.unlink(table.root, "b")
    assert list(table.paths(inode)) == ["a"]
    for number in range(3 * MAX_LINKS):
        enter(table, table.root, f"link{number}", 77)
    assert len(list(table.paths(inode))) == MAX_LINKS
    assert path(table, inode) == f"link{3 * MAX_LINKS - 1}"


def test_a_directory_has_one_place() -> None:
    table = InodeTable()
    folder = enter(table, table.root, "old", 10, kind=S_IFDIR)
    file = enter(table, folder, "file", 11)
    assert enter(table, table.root, "new", 10, kind=S_IFDIR) is folder
    assert path(table, file) == "new\\file"
    assert list(table.paths(folder)) == ["new"]
    assert table.root.child("old") is None


def test_renaming_a_directory_moves_all_below_it() -> None:
    table = InodeTable()
    a = enter(table, table.root, "a", 10, kind=S_IFDIR)
    b = enter(table, a, "b", 11, kind=S_IFDIR)
    c = enter(table, b, "c", 12)
    table.rename(table.root, "a", table.root, "z")
    assert path(table, c) == "z\\b\\c"
    d = enter(table, table.root, "d", 13, kind=S_IFDIR)
    table.rename(a, "b", d, "moved")
    assert path(table, c) == "d\\moved\\c"
    assert c.parent is b
    assert b.parent is d


def test_renaming_onto_something_takes_its_name() -> None:
    table = InodeTable()
    one, two = enter(table, table.root, "one", 10), enter(table, table.root, "two", 11)
    table.rename(table.root, "one", table.root, "two")
    assert path(table, one) == "two"
    assert list(table.paths(two)) == []
    assert table.get(11) is two  # the kernel still knows it
    table.forget(11, 1)
    with fails(errno.ESTALE):
        table.get(11)


def test_renaming_what_nobody_has_seen() -> None:
    table = InodeTable()
    two = enter(table, table.root, "two", 11)
    table.rename(table.root, "unknown", table.root, "two")
    assert list(table.paths(two)) == []


def test_renaming_onto_itself() -> None:
    table = InodeTable()
    one = enter(table, table.root, "one", 10)
    table.rename(table.root, "one", table.root, "one")
    assert list(table.paths(one)) == ["one"]


def test_a_name_that_stands_for_another_file_now() -> None:
    table = InodeTable()
    one = enter(table, table.root, "name", 10)
    two = enter(table, table.root, "name", 11)
    assert list(table.paths(one)) == []
    assert list(table.paths(two)) == ["name"]


def test_directories_live_as_long_as_what_is_below_them() -> None:
    table = InodeTable()
    folders = [table.root]
    for depth in range(5000):  # deeper than Python's stack
        folders.append(enter(table, folders[-1], "d", 100 + depth, kind=S_IFDIR))
    leaf = enter(table, folders[-1], "leaf", 99)
    for folder in folders[1:]:
        table.forget(folder.number, 1)
    assert len(table) == 5002
    assert path(table, leaf).count("\\") == 5000
    table.forget(leaf.number, 1)
    assert len(table) == 1
    assert table.root.names is None


def test_an_open_file_outlives_its_lookups_and_its_name() -> None:
    table = InodeTable()
    inode = enter(table, table.root, "a", 10)
    inode.opens += 1
    table.unlink(table.root, "a")
    table.forget(10, 1)
    assert table.get(10) is inode
    inode.opens -= 1
    table.drop_unused(inode)
    assert len(table) == 1


def test_the_root_stays() -> None:
    table = InodeTable()
    table.forget(ROOT, 1)
    assert table.get(ROOT) is table.root
    assert list(table.paths(table.root)) == [""]
    assert table.root.expect is None
    table.adopt(table.root, 5, CREATED)
    assert table.root.expect is None
    assert enter(table, table.root, "bind", 5, kind=S_IFDIR) is not table.root


def test_forgetting_more_than_there_was(expect_log) -> None:  # type: ignore[no-untyped-def]
    expect_log("the kernel forgets inode 10 3 times")
    table = InodeTable()
    enter(table, table.root, "a", 10)
    table.forget(10, 3)
    assert len(table) == 1


def test_a_circle_of_directories_is_no_path() -> None:
    """What others do to directories can look like one, when seen piece by piece."""
    table = InodeTable()
    a = enter(table, table.root, "a", 10, kind=S_IFDIR)
    b = enter(table, a, "b", 11, kind=S_IFDIR)
    file = enter(table, b, "file", 12)
    enter(table, b, "a", 10, kind=S_IFDIR)
    assert list(table.paths(file)) == []
    with fails(errno.ESTALE):
        table.path_below(a, "x")
    enter(table, table.root, "a", 10, kind=S_IFDIR)
    assert path(table, file) == "a\\b\\file"


def test_a_path_that_no_server_takes() -> None:
    table = InodeTable()
    folder = table.root
    for depth in range(200):
        folder = enter(table, folder, "y" * 200, 100 + depth, kind=S_IFDIR)
    with fails(errno.ENAMETOOLONG):
        table.path_below(folder, "z")


def test_what_an_inode_weighs() -> None:
    """A hundred thousand of them are to fit into 50 MB; tables of 30,000 are as full as those of 120,000."""
    table = InodeTable()
    folder = enter(table, table.root, "folder", 2**62, kind=S_IFDIR)
    gc.collect()
    tracemalloc.start()
    for number in range(30_000):
        enter(table, folder, f"entry-{number:012d}", 2**61 + number, created=CREATED + number)
    weight = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert weight / 30_000 < 500


NAMES = st.sampled_from(["a", "b", "c", "d"])
# File ids that repeat, with creation times and types that tell the files apart, and the ids that are none.
IDENTITIES = st.tuples(st.sampled_from([0, 1, 7, 8, 2**64 - 1]), st.sampled_from([1, 2]))


class Model(RuleBasedStateMachine):
    """A kernel's view of the table: what it holds lookups and opens of, and which name it saw last for what."""

    def __init__(self) -> None:
        super().__init__()
        self.table = InodeTable()
        self.identity: dict[int, tuple[int, int, bool]] = {}
        self.lookups: dict[int, int] = {}
        self.opens: dict[int, int] = {}
        self.names: dict[tuple[int, str], int] = {}  # (directory, name) -> number
        self.order: dict[int, list[tuple[int, str]]] = {}  # number -> its names, the latest last
        self.ever: set[int] = set()

    def directories(self) -> list[int]:
        """The directories in which the kernel may do something: those that it knows."""
        return [ROOT, *(n for n, count in self.lookups.items() if count and self.identity[n][2])]

    def above(self, number: int) -> set[int]:
        """A directory and all above it."""
        found = {number}
        while number != ROOT and self.order.get(number):
            number = self.order[number][-1][0]
            if number in found:
                break
            found.add(number)
        return found

    def drop_name(self, key: tuple[int, str]) -> None:
        number = self.names.pop(key, None)
        if number is not None:
            self.order[number].remove(key)

    def give_name(self, number: int, key: tuple[int, str]) -> None:
        if self.names.get(key) != number:
            self.drop_name(key)
        if self.identity[number][2]:
            for old in list(self.order[number]):
                self.drop_name(old)
        elif key in self.names:
            self.drop_name(key)
        self.names[key] = number
        self.order[number].append(key)

    def settle(self) -> None:
        """Remove what nobody needs."""
        while True:
            needed = {directory for directory, _ in self.names}
            idle = [n for n in self.identity if not self.lookups[n] and not self.opens[n] and n not in needed]
            if not idle:
                return
            for number in idle:
                for key in list(self.order[number]):
                    self.drop_name(key)
                for part in (self.identity, self.lookups, self.opens, self.order):
                    del part[number]

    @rule(data=st.data(), name=NAMES, identity=IDENTITIES, is_directory=st.booleans())
    def see(self, data: st.DataObject, name: str, identity: tuple[int, int], is_directory: bool) -> None:
        """A lookup, a creation or an entry of a listing."""
        parent = data.draw(st.sampled_from(self.directories()))
        file_id, created = identity
        if is_directory:
            # No server shows a directory inside of itself.
            for number in self.above(parent):
                if number != ROOT and self.identity[number][:2] == identity:
                    return
        fact = (file_id, created, is_directory)
        named = self.names.get((parent, name))
        if named is not None and not self.is_alike(self.identity[named], fact):
            named = None
        same = {n for n, other in self.identity.items() if other == fact} if file_id not in NO_IDS else set()
        if named is not None and (not same or named in same):
            same = {named}
        if is_directory and same & self.above(parent):
            return
        inode = self.table.enter(self.table.get(parent), name, file_id, created, S_IFDIR if is_directory else S_IFREG)
        inode.lookups += 1
        number = inode.number
        if same and (number in same or len(same) == 1):
            assert number in same
        elif number not in same:
            assert number not in self.identity
            assert number < FALLBACK or number not in self.ever
            if file_id in (7, 8) and file_id not in self.identity:
                assert number == file_id
            self.identity[number] = fact
            self.lookups[number] = self.opens[number] = 0
            self.order[number] = []
            self.ever.add(number)
        self.identity[number] = (self.identity[number][0] if file_id in NO_IDS else file_id, created, is_directory)
        self.lookups[number] += 1
        self.give_name(number, (parent, name))
        self.settle()

    @staticmethod
    def is_alike(old: tuple[int, int, bool], new: tuple[int, int, bool]) -> bool:
        """Whether a name may still stand for the same file."""
        if old[2] != new[2]:
            return False
        if {old[0], new[0]} & NO_IDS:
            return old[1] == new[1]
        return old[0] == new[0]

    @rule(data=st.data(), name=NAMES)
    def unlink(self, data: st.DataObject, name: str) -> None:
        """A name is removed."""
        parent = data.draw(st.sampled_from(self.directories()))
        gone = self.table.unlink(self.table.get(parent), name)
        assert (gone.number if gone is not None else None) == self.names.get((parent, name))
        self.drop_name((parent, name))
        self.settle()

    @rule(data=st.data(), old=NAMES, new=NAMES)
    def rename(self, data: st.DataObject, old: str, new: str) -> None:
        """A name becomes another."""
        parent = data.draw(st.sampled_from(self.directories()))
        target = data.draw(st.sampled_from(self.directories()))
        number = self.names.get((parent, old))
        if number is not None and self.identity[number][2] and number in self.above(target):
            return  # a directory into itself: no server does that
        self.table.rename(self.table.get(parent), old, self.table.get(target), new)
        if number is None:
            self.drop_name((target, new))
        elif (parent, old) != (target, new):
            self.give_name(number, (target, new))
            if self.names.get((parent, old)) == number:
                self.drop_name((parent, old))
        self.settle()

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """The kernel forgets some lookups."""
        known = [n for n, count in self.lookups.items() if count]
        if known:
            number = data.draw(st.sampled_from(known))
            count = data.draw(st.integers(1, self.lookups[number]))
            self.table.forget(number, count)
            self.lookups[number] -= count
            self.settle()

    @rule(data=st.data(), opening=st.booleans())
    def open_or_close(self, data: st.DataObject, opening: bool) -> None:
        """A file is opened, or closed."""
        fit = [n for n in self.identity if (self.lookups[n] if opening else self.opens[n])]
        if fit:
            number = data.draw(st.sampled_from(fit))
            inode = self.table.get(number)
            change = 1 if opening else -1
            inode.opens += change
            self.opens[number] += change
            self.table.drop_unused(inode)
            self.settle()

    @invariant()
    def the_same_inodes_are_alive(self) -> None:
        assert {inode.number for inode in self.table} == {ROOT, *self.identity}

    @invariant()
    def names_lead_to_inodes_and_back(self) -> None:
        for inode in self.table:
            assert self.table.get(inode.number) is inode
            if inode.number != ROOT:
                latest_first = [(parent.number, name) for parent, name in inode.links]
                assert latest_first == self.order[inode.number][::-1]
                assert inode.lookups == self.lookups[inode.number]
            for parent, name in inode.links:
                assert self.table.get(parent.number) is parent
                assert parent.child(name) is inode
            for name, child in (inode.names or {}).items():
                assert (inode, name) in child.links

    @invariant()
    def paths_are_the_links(self) -> None:
        for number, links in self.order.items():
            paths = list(self.table.paths(self.table.get(number)))
            assert len(paths) <= len(links)
            if links and ROOT in self.above(links[-1][0]):
                parts = [links[-1][1]]
                above = links[-1][0]
                while above != ROOT:
                    above, part = self.order[above][-1]
                    parts.append(part)
                assert paths[0] == "\\".join(reversed(parts))


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_a_file_that_became_a_link_is_another_one() -> None:
    table = InodeTable()
    file = enter(table, table.root, "a", 10)
    link = enter(table, table.root, "a", 10, kind=S_IFLNK)
    assert link is not file
    assert link.number != file.number
    assert table.root.child("a") is link


def test_a_listing_that_tells_no_type_means_what_is_known_unless_that_is_a_directory() -> None:
    table = InodeTable()
    link = enter(table, table.root, "a", 10, kind=S_IFLNK)
    assert enter(table, table.root, "a", 10, kind=0) is link
    assert link.kind == S_IFLNK
    newcomer = enter(table, table.root, "b", 11, kind=0)
    assert enter(table, table.root, "b", 11, kind=S_IFIFO) is newcomer
    assert newcomer.kind == S_IFIFO
    folder = enter(table, table.root, "c", 12, kind=S_IFDIR)
    assert enter(table, table.root, "c", 12, kind=0) is not folder
