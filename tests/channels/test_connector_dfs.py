"""The connector among servers that refer to each other: what is asked of whom, and what is not believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from login_server import POLICY, USER, Behaviour, LoginServer
from peer import Element, Message, real_time_test

from smb3fs.channels.connector import Connector, Target
from smb3fs.channels.dialling import Dialler
from smb3fs.channels.logins import Logins
from smb3fs.channels.places import Place
from smb3fs.channels.session import Session
from smb3fs.errors import LinkError, MountError, Smb3fsError, Status, StatusError
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateRequest, Disposition, FileId
from smb3fs.wire.dfs import FSCTL_DFS_GET_REFERRALS, Referral, ReferralRequest, ReferralResponse
from smb3fs.wire.header import FLAG_DFS, Command
from smb3fs.wire.ioctl import IoctlResponse
from smb3fs.wire.tree import ShareFlag, ShareType

pytestmark = pytest.mark.usefixtures("users")


class NamespaceServer(LoginServer):
    """A server with shares; those in `links` are somewhere else, or have links on the way to a directory."""

    def __init__(self, world: World, name: str, like: Behaviour | None = None) -> None:
        super().__init__(like, self._inside_tree)
        self.world = world
        self.name = name
        self.names: list[str] = []
        self.protect = True

    def _tree_connect(self, element: Element) -> None:
        """Connect IPC$ and the shares that are here."""
        share = element.request.path.rpartition("\\")[2]
        self.like.tree_status = Status.SUCCESS
        self.like.share_type, self.like.share_flags = ShareType.DISK, 0
        if share == "IPC$":
            self.like.share_type = ShareType.PIPE
        elif f"\\{self.name}\\{share}" in self.world.links:
            self.like.tree_status = Status.BAD_NETWORK_NAME
        elif share == "dfs":
            self.like.share_flags = ShareFlag.DFS | ShareFlag.DFS_ROOT
        super()._tree_connect(element)

    def _inside_tree(self, message: Message) -> None:
        """Open what is here, and refer for what is not."""
        element = message.elements[0]
        if element.command == Command.CREATE:
            assert bool(element.header.flags & FLAG_DFS) == ("dfs" in element.request.name)
            self.names.append(element.request.name)
            if self.world.link_on(f"\\{element.request.name}"):
                self.answer(message, statuses=[Status.PATH_NOT_COVERED] * len(message.elements))
                return
        if element.command == Command.IOCTL and element.request.ctl_code == FSCTL_DFS_GET_REFERRALS:
            self._refer(element)
            return
        self.obey(message)

    def _refer(self, element: Element) -> None:
        """Answer where a path leads."""
        path = ReferralRequest.parse(element.request.input).path
        link = self.world.link_on(path)
        if link is None:
            self.send(self.reply(element, status=0xC0000225))
            return
        targets = [Referral(3, 0, 0, target, 600, link, link) for target in self.world.links[link]]
        output = self.world.distort(ReferralResponse(2 * len(link), 2, list(targets)).encode())
        body = IoctlResponse(FSCTL_DFS_GET_REFERRALS, FileId(0, 0), output).encode()
        self.send(self.reply(element, body), protect=self.protect)


class World:
    """Servers by name, the links between them, and one attempt to reach a place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **links: list[str]) -> None:
        self.links = {"\\" + source.replace("_", "\\"): targets for source, targets in links.items()}
        self.servers: dict[str, list[NamespaceServer]] = {}
        self.distort: Callable[[bytes], bytes] = lambda output: output
        self.protect = True
        self.refuse: dict[str, OSError] = {}
        self.left = 0

        async def connect(dialler: Dialler, **_: object) -> object:
            host = dialler.host
            await trio.lowlevel.checkpoint()
            if host in self.refuse:
                raise self.refuse[host]
            server = NamespaceServer(self, host)
            server.protect = self.protect
            self.servers.setdefault(host, []).append(server)
            return server.transport

        monkeypatch.setattr(Dialler, "connect", connect)

    def link_on(self, path: str) -> str | None:
        """The link on the way to a path."""
        return next((link for link in self.links if path == link or path.startswith(f"{link}\\")), None)

    async def reach(self, source: str, *, follow: bool = True, use: str = "") -> Session:
        """Make a session for a source; `use` is then opened in it."""
        place = Place.parse(source.replace("/", "\\"))
        target = Target(place.server, 445, place, timeout=10, echo_interval=60, follow=follow)
        session: Session | None = None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            connector = Connector(nursery, target, POLICY, Logins(USER), Trace(), lambda _, __: None)
            try:
                session = await connector.connect()
                if use:
                    await session.call([CreateRequest(f"{place.path}\\{use}".strip("\\"), 1, Disposition.OPEN)])
            except (Smb3fsError, OSError) as error:
                failure = error
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            self.left = len(nursery.child_tasks)
            nursery.cancel_scope.cancel()
        if failure is not None:
            assert not self.left
            raise failure
        assert session is not None
        return session


@real_time_test
async def test_a_link_is_followed_and_names_are_put_into_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_dfs_link=["\\b\\share\\sub"])
    session = await world.reach("//a/dfs/link/deep", use="file")
    assert str(session.place) == "//b/share/sub/deep"
    assert [server.names for server in world.servers["a"]] == [["a\\dfs\\link\\deep"]]
    assert [server.names for server in world.servers["b"]] == [["sub\\deep\\file"]]
    assert world.left == 1


@real_time_test
async def test_a_namespace_takes_whole_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    session = await world.reach("//a/dfs/plain", use="file")
    assert str(session.place) == "//a/dfs/plain"
    assert world.servers["a"][0].names == ["a\\dfs\\plain", "a\\dfs\\plain\\file"]


@real_time_test
async def test_an_ordinary_share_is_asked_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.reach("//a/share/sub", use="file")
    (server,) = world.servers["a"]
    assert server.names == ["sub\\file"]
    assert not [message for message in server.messages if message.commands == ["IOCTL"]]


@real_time_test
async def test_a_share_that_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain's controller names the servers of a namespace, the first of which is dead."""
    world = World(monkeypatch, domain_dfs=["\\dead\\dfs", "\\b\\dfs"], b_dfs_link=["\\c\\share"])
    world.refuse["dead"] = ConnectionRefusedError(111, "refused")
    session = await world.reach("//domain/dfs/link/deep")
    assert str(session.place) == "//c/share/deep"
    assert world.left == 1


@real_time_test
async def test_nodfs_does_not_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_dfs_link=["\\b\\share"])
    with pytest.raises(MountError, match=r"//b/share.*nodfs"):
        await world.reach("//a/dfs/link", follow=False)
    assert world.servers.keys() == {"a"}


@real_time_test
async def test_a_share_that_nobody_knows_is_refused_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_gone=["\\a\\gone"])  # a server that refers to itself says nothing
    with pytest.raises(StatusError) as error:
        await world.reach("//a/gone")
    assert (error.value.command, error.value.status) == ("TREE_CONNECT", Status.BAD_NETWORK_NAME)


@pytest.mark.parametrize(
    "distort",
    [
        lambda output: output[:-3],
        lambda output: output[:2] + b"\xff\xff" + output[4:],
        lambda output: b"\x05\x00" + output[2:],
        lambda output: output.replace("\\b\\share".encode("utf-16-le"), "\\b\\..\0\0\0".encode("utf-16-le")),
    ],
    ids=["cut short", "65535 referrals", "half a name", "no place"],
)
@real_time_test
async def test_nonsense_is_followed_nowhere(monkeypatch: pytest.MonkeyPatch, distort: Callable[[bytes], bytes]) -> None:
    world = World(monkeypatch, a_dfs_link=["\\b\\share"])
    world.distort = distort
    with pytest.raises(Smb3fsError):
        await world.reach("//a/dfs/link")
    assert world.servers.keys() == {"a"}


@real_time_test
async def test_a_referral_that_is_not_signed_is_followed_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_dfs_link=["\\evil\\share"])
    world.protect = False
    with pytest.raises(Smb3fsError):
        await world.reach("//a/dfs/link")
    assert world.servers.keys() == {"a"}


@real_time_test
async def test_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, a_dfs_link=["\\b\\dfs\\link"], b_dfs_link=["\\a\\dfs\\link"])
    with pytest.raises(LinkError, match="circle"):
        await world.reach("//a/dfs/link")
