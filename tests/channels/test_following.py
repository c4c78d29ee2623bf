"""DFS links: the order in which targets are tried, what is remembered and for how long, and what no server can do."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from peer import trio_test

from smb3fs.channels.following import MAX_LINKS, Follower, Referred
from smb3fs.channels.places import Place, Placement
from smb3fs.channels.referrals import LONGEST_TTL, MAX_TARGETS, SHORTEST_TTL, Link, read_link
from smb3fs.errors import ConnectionLost, LinkError, MountError, Smb3fsError, Status, StatusError, WireError
from smb3fs.recovery import REFUSED_INTERVAL, pause
from smb3fs.wire.create import CreateRequest, Disposition, FileId
from smb3fs.wire.dfs import NameListReferral, Referral, ReferralResponse
from smb3fs.wire.infoclass import FileBasicInformation, FileRenameInformation
from smb3fs.wire.io import FlushRequest
from smb3fs.wire.query import InfoType, SetInfoRequest

FILE = FileId(1, 2)
TTL = 600


def place(text: str) -> Place:
    """A place, written with slashes."""
    return Place.parse(text.replace("/", "\\"))


class World:
    """Servers, links and what was asked of whom."""

    def __init__(self, *, follow: bool = True, **links: list[str]) -> None:
        self.links = {source.replace("_", "/"): targets for source, targets in links.items()}
        self.dead: dict[str, Smb3fsError | OSError] = {}
        self.asked: list[str] = []
        self.follower = Follower(self._reach, follow=follow)

    async def _reach(self, wanted: Place) -> Any:
        """Be the server of a place."""
        await trio.lowlevel.checkpoint()
        self.asked.append(str(wanted))
        for server, error in self.dead.items():
            if wanted.server == server:
                raise error
        for source, targets in self.links.items():
            link = Link(place(f"//{source}"), [place(target) for target in targets], trio.current_time() + TTL)
            if link.covers(wanted):
                raise Referred(link)
        return str(wanted)

    async def open(self, text: str) -> list[str]:
        """Open a place; return who was asked for that, the last of which is where it is."""
        self.asked = []
        found: Any = await self.follower.open(place(text))
        assert found == self.asked[-1]
        return self.asked


@trio_test
async def test_without_links_a_place_is_where_its_name_says() -> None:
    assert await World().open("//a/share/deep") == ["//a/share/deep"]


@trio_test
async def test_targets_are_tried_in_their_order() -> None:
    world = World(a_dfs_link=["//b/share", "//c/share/sub", "//d/share"])
    assert await world.open("//a/dfs/link/deep/er") == ["//a/dfs/link/deep/er", "//b/share/deep/er"]
    world.dead["b"] = ConnectionRefusedError("dead")
    assert await world.open("//a/dfs/link/deep/er") == ["//b/share/deep/er", "//c/share/sub/deep/er"]


@trio_test
async def test_the_target_that_was_reached_is_tried_first() -> None:
    world = World(a_dfs_link=["//b/share", "//c/share"])
    world.dead["b"] = ConnectionLost("dead")
    await world.open("//a/dfs/link")
    del world.dead["b"]
    assert await world.open("//a/dfs/link") == ["//c/share"]
    # When the referral has run out, the server's order counts again.
    await trio.sleep(TTL + 1)
    assert await world.open("//a/dfs/link") == ["//a/dfs/link", "//b/share"]


@trio_test
async def test_the_namespace_is_asked_again_when_no_target_answers() -> None:
    world = World(a_dfs_link=["//b/share"])
    await world.open("//a/dfs/link")
    world.dead["b"] = OSError("dead")
    with pytest.raises(LinkError):
        await world.open("//a/dfs/link")
    assert world.asked == ["//b/share"]
    world.links["a/dfs/link"] = ["//c/share"]
    assert await world.open("//a/dfs/link") == ["//a/dfs/link", "//c/share"]


@trio_test
async def test_what_is_known_is_better_than_nothing() -> None:
    world = World(a_dfs_link=["//b/share"])
    await world.open("//a/dfs/link")
    await trio.sleep(TTL + 1)
    world.dead["a"] = ConnectionLost("dead")
    assert await world.open("//a/dfs/link") == ["//a/dfs/link", "//b/share"]


@trio_test
async def test_links_to_links() -> None:
    world = World(a_dfs_one=["//b/dfs/two"], b_dfs_two=["//c/share"])
    assert await world.open("//a/dfs/one/deep") == ["//a/dfs/one/deep", "//b/dfs/two/deep", "//c/share/deep"]
    assert await world.open("//a/dfs/one/deep") == ["//c/share/deep"]


@trio_test
async def test_circles_and_endless_chains_end() -> None:
    world = World(a_dfs_one=["//B/dfs/two"], b_dfs_two=["//A/DFS/One"])
    with pytest.raises(MountError, match="circle"):
        await world.open("//a/dfs/one")
    growing = World()

    async def reach(wanted: Place) -> Any:
        growing.asked.append(str(wanted))
        await trio.lowlevel.checkpoint()
        raise Referred(Link(wanted, [wanted.below("on")], trio.current_time() + TTL))

    with pytest.raises(MountError, match=r"DFS links lead|leads? in a circle|more than"):
        await Follower(reach, follow=True).open(place("//a/dfs/link"))
    assert len(growing.asked) <= MAX_LINKS + 1


@trio_test
async def test_nodfs_names_the_targets() -> None:
    world = World(follow=False, a_dfs_link=["//b/share", "//c/share"])
    with pytest.raises(MountError, match=r"//b/share and //c/share.*nodfs"):
        await world.open("//a/dfs/link")
    assert world.asked == ["//a/dfs/link"]


@trio_test
async def test_every_reason_is_told_and_a_refused_login_is_not_repeated_quickly() -> None:
    world = World(a_dfs_link=["//b/share", "//c/share"])
    world.dead["b"] = ConnectionRefusedError("nobody there")
    world.dead["c"] = StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")
    with pytest.raises(LinkError, match=r"//b/share: nobody there; //c/share: .*LOGON_FAILURE") as error:
        await world.open("//a/dfs/link")
    assert pause(error.value, 1, 0.0) == REFUSED_INTERVAL
    world.dead["c"] = ConnectionLost("gone")
    with pytest.raises(LinkError) as error:
        await world.open("//a/dfs/link")
    assert pause(error.value, 1, 0.0) < REFUSED_INTERVAL


# -- what a server may say


def told(*targets: str, consumed: int | None = None, ttl: int = 300, asked: str = "\\a\\dfs\\link") -> ReferralResponse:
    """An answer about a path, all of which it is about unless `consumed` says otherwise."""
    referrals: list[Any] = [Referral(3, 0, 0, target, ttl, asked, asked) for target in targets]
    return ReferralResponse(2 * len(asked) if consumed is None else consumed, 2, referrals)


@trio_test
async def test_an_answer_becomes_a_link() -> None:
    asked = place("//a/dfs/link/deep/er")
    link = read_link(asked, told("\\b\\share", "\\\\c\\share\\sub", "\\B\\Share"))
    assert link is not None
    assert link.place == place("//a/dfs/link")
    assert list(map(str, link.resolve(asked))) == ["//B/Share/deep/er", "//c/share/sub/deep/er"]
    assert not link.expired
    await trio.sleep(301)
    assert link.expired


@trio_test
async def test_times_and_numbers_are_kept_within_bounds() -> None:
    now = trio.current_time()
    for ttl, expected in ((0, SHORTEST_TTL), (2**32 - 1, LONGEST_TTL), (600, 600)):
        link = read_link(place("//a/dfs/link"), told("\\b\\share", ttl=ttl))
        assert link is not None
        assert link.expires - now == expected
    many = read_link(place("//a/dfs/link"), told(*(f"\\b{number}\\share" for number in range(100))))
    assert many is not None
    assert len(many.targets) == MAX_TARGETS


@trio_test
async def test_an_answer_without_targets_is_none() -> None:
    assert read_link(place("//a/dfs"), told()) is None
    names: list[Any] = [NameListReferral(3, 0, 2, 600, "lab.test", ["\\dc1"])]
    assert read_link(place("//a/dfs"), ReferralResponse(0, 0, names)) is None


@pytest.mark.parametrize(
    "target", ["", "\\", "\\b", "b\\", "\\b\\..", "\\b\\share\\..\\x", "\\b\\sh/are", "\\b\\share\x01", "\\.\\share"]
)
@trio_test
async def test_targets_that_are_no_places(target: str) -> None:
    with pytest.raises(WireError):
        read_link(place("//a/dfs/link"), told(target))


@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 8, 10, 13, 16, 20, 1000])
@trio_test
async def test_parts_of_a_path_that_are_no_directory(consumed: int) -> None:
    with pytest.raises(WireError):
        read_link(place("//a/dfs/link"), told("\\b\\share", consumed=consumed))


# -- names in their place


def create(name: str) -> CreateRequest:
    """A CREATE of a name."""
    return CreateRequest(name, 1, Disposition.OPEN)


def rename(name: str) -> SetInfoRequest:
    """A rename to a name."""
    info = FileRenameInformation(replace=True, name=name)
    return SetInfoRequest(FILE, InfoType.FILE, info.information_class, info.encode())


@pytest.mark.parametrize(
    ("placement", "name", "created", "renamed"),
    [
        (Placement("", "sub"), "a\\b", "sub\\a\\b", "sub\\a\\b"),
        (Placement("", "sub"), "", "sub", "sub"),
        (Placement("link", ""), "link\\a", "a", "a"),
        (Placement("link", ""), "link", "", ""),
        (Placement("link\\deep", "x\\y"), "link\\deep\\a", "x\\y\\a", "x\\y\\a"),
        (Placement("p", "p", "srv\\dfs"), "p\\a", "srv\\dfs\\p\\a", "p\\a"),
        (Placement("", "", "srv\\dfs"), "", "srv\\dfs", ""),
    ],
)
def test_names_are_put_into_their_place(placement: Placement, name: str, created: str, renamed: str) -> None:
    changed = placement.place(create(name))
    assert isinstance(changed, CreateRequest)
    assert changed == CreateRequest(created, 1, Disposition.OPEN)
    changed = placement.place(rename(name))
    assert isinstance(changed, SetInfoRequest)
    assert FileRenameInformation.parse(changed.data) == FileRenameInformation(replace=True, name=renamed)


def test_what_carries_no_name_stays_as_it_is() -> None:
    placement = Placement("", "sub")
    information = FileBasicInformation(1, 2, 3, 4, 5)
    basic = SetInfoRequest(FILE, InfoType.FILE, information.information_class, information.encode())
    for request in (basic, FlushRequest(FILE)):
        assert placement.place(request) is request


def test_names_that_become_too_long_are_refused() -> None:
    with pytest.raises(OSError, match="too long"):
        Placement("", "sub").place(create("n" * 0x7FFE))
