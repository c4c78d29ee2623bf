"""The verbs of the share on a tree server: what they do, and in how many round trips."""

from __future__ import annotations

import errno
import random

import pytest
from peer import settle, trio_test
from stage import staged
from tree_server import BIRTH, Tree
from world import agreed

from smb3fs.errors import ConnectionLost, Status, StatusError, WireError, errno_of
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.share.data import AT_ONCE
from smb3fs.share.files import VolumeSpace
from smb3fs.wire.codec import EPOCH_AS_FILETIME, filetime_to_ns
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.infoclass import FileFsAttributeInformation
from smb3fs.wire.io import ReadResponse

DAY_NS = 86_400 * 10**9


def status_of(error: pytest.ExceptionInfo[StatusError]) -> int:
    return error.value.status


class TestLooking:
    @trio_test
    async def test_lookup_takes_one_round_trip_and_leaves_nothing_open(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                found = await stage.share.lookup("f")
            node = stage.tree.nodes["f"]
            assert (found.file_id, found.size, found.links, found.is_directory) == (node.number, 13, 1, False)
            assert found.created == filetime_to_ns(BIRTH)
            assert (found.accessed, found.modified, found.changed) == tuple(found.created + n * 100 for n in (1, 2, 3))
            await stage.nothing_open()

    @trio_test
    async def test_lookup_of_directories_and_of_the_root(self) -> None:
        async with staged() as stage:
            assert (await stage.share.lookup("d")).is_directory
            assert (await stage.share.lookup("")).file_id == stage.tree.nodes[""].number
            assert (await stage.share.lookup("d\\3")).size == 3

    @pytest.mark.parametrize(
        ("path", "number"), [("absent", errno.ENOENT), ("absent\\x", errno.ENOENT), ("d\\absent", errno.ENOENT)]
    )
    @trio_test
    async def test_what_is_not_there_costs_one_round_trip_too(self, path: str, number: int) -> None:
        async with staged() as stage:
            with stage.costs(1), pytest.raises(StatusError) as error:
                await stage.share.lookup(path)
            assert errno_of(error.value) == number
            await stage.nothing_open()

    @pytest.mark.parametrize("length", [400, 2000])
    @trio_test
    async def test_a_name_that_is_too_long_for_the_answer_is_no_error(self, length: int) -> None:
        tree = Tree()
        tree.add("n" * length, b"12345")
        async with staged(tree) as stage:
            with stage.costs(1):
                assert (await stage.share.lookup("n" * length)).size == 5
            handle = await stage.share.open("n" * length, read=True, write=False, expect=None)
            assert (await stage.share.attributes(handle)).size == 5
            assert handle.attributes_at_open.size == 5

    @pytest.mark.parametrize("path", ["n" * 32768, "\\".join(["d" * 255] * 129), "\U0001f600" * 16384])
    @trio_test
    async def test_a_path_that_no_request_can_express_is_refused_here(self, path: str) -> None:
        async with staged() as stage:
            with stage.costs(0):
                for verb in (stage.share.lookup(path), stage.share.rename("f", path, replace=False)):
                    with pytest.raises(OSError) as error:
                        await verb
                    assert error.value.errno == errno.ENAMETOOLONG
            assert (await stage.share.lookup("f")).size == 13

    @trio_test
    async def test_the_longest_path_that_one_can(self) -> None:
        async with staged() as stage:
            for path in ("n" * 32767, "\U0001f600" * 16383):
                with pytest.raises(StatusError):
                    await stage.share.lookup(path)
            assert (await stage.share.lookup("f")).size == 13

    @trio_test
    async def test_the_root_and_its_file_system_take_one_round_trip(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                root, volume = await stage.share.root()
            assert root.is_directory
            assert volume == FileFsAttributeInformation(3, 255, "NTFS")
            await stage.nothing_open()

    @trio_test
    async def test_space(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                assert await stage.share.space() == VolumeSpace(4096, 1000, 400, 300)
            await stage.nothing_open()

    @trio_test
    async def test_all_paths_are_below_the_prefix(self) -> None:
        tree = Tree()
        for directory in ("a", "a\\b"):
            tree.add(directory, directory=True)
        tree.add("a\\b\\f", b"1")
        async with staged(tree, prefix="a\\b") as stage:
            assert (await stage.share.lookup("")).file_id == tree.nodes["a\\b"].number
            assert (await stage.share.lookup("f")).size == 1
            await stage.share.rename("f", "g", replace=False)
            await stage.share.make_directory("new")
            listing = await stage.share.list_directory("", None)
            assert listing.complete
            assert sorted(tree.nodes) == ["", "a", "a\\b", "a\\b\\g", "a\\b\\new"]


class TestOpening:
    @trio_test
    async def test_open_takes_one_round_trip_and_close_none(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                handle = await stage.share.open("f", read=True, write=False, expect=None)
            assert handle.attributes_at_open.size == 13
            assert not handle.created
            assert stage.share.usable(handle)
            assert list(stage.opens) == [handle]
            with stage.costs(0, unwaited=1):
                stage.share.close(handle)
                stage.share.close(handle)
                await settle()
            assert not stage.share.usable(handle)
            await stage.nothing_open()

    @trio_test
    async def test_the_head_comes_along(self) -> None:
        async with staged() as stage:
            stage.tree.add("nothing")
            with stage.costs(1):
                handle = await stage.share.open("f", read=True, write=False, expect=None, head=8)
            assert handle.head == b"contents"
            whole = await stage.share.open("f", read=True, write=False, expect=None, head=65536)
            assert whole.head == b"contents of f"
            empty = await stage.share.open("nothing", read=True, write=False, expect=None, head=8)
            assert empty.head == b""
            without = await stage.share.open("f", read=True, write=False, expect=None)
            assert without.head is None

    @trio_test
    async def test_a_head_that_cannot_be_read_does_not_keep_the_file_from_being_opened(self) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=False, write=True, expect=None, head=8)
            assert handle.head is None

    @pytest.mark.parametrize(("read", "write"), [(True, False), (False, True), (True, True), (False, False)])
    @trio_test
    async def test_a_handle_may_do_what_it_was_opened_for(self, read: bool, write: bool) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=read, write=write, expect=None)
            assert handle.writable == write
            assert (await stage.share.attributes(handle)).size == 13
            if read:
                assert await stage.share.read(handle, 0, 100) == b"contents of f"
            if write:
                assert await stage.share.write(handle, 0, b"C") == 1

    @trio_test
    async def test_a_directory_is_not_opened_as_a_file(self) -> None:
        async with staged() as stage:
            with pytest.raises(StatusError) as error:
                await stage.share.open("d", read=True, write=False, expect=None)
            assert errno_of(error.value) == errno.EISDIR
            await stage.nothing_open()

    @trio_test
    async def test_create_takes_one_round_trip(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                handle = await stage.share.create("new", read=True, write=True, exclusive=True)
            assert handle.created
            assert handle.attributes_at_open.file_id == stage.tree.nodes["new"].number
            assert handle.attributes_at_open.links == 1
            assert await stage.share.write(handle, 0, b"data") == 4
            stage.share.close(handle)
            await stage.nothing_open()
            assert stage.tree.nodes["new"].data == b"data"

    @trio_test
    async def test_from_a_server_that_tells_no_id_it_is_asked(self) -> None:
        async with staged() as stage:
            stage.server.disk_ids = False
            with stage.costs(2):
                handle = await stage.share.create("new", read=True, write=True, exclusive=True)
            assert handle.attributes_at_open.file_id == stage.tree.nodes["new"].number

    @trio_test
    async def test_create_of_what_exists(self) -> None:
        async with staged() as stage:
            with pytest.raises(StatusError) as error:
                await stage.share.create("f", read=True, write=True, exclusive=True)
            assert errno_of(error.value) == errno.EEXIST
            await stage.nothing_open()
            stage.tree.nodes["f"].links = 3
            handle = await stage.share.create("f", read=True, write=True, exclusive=False)
            assert not handle.created
            assert handle.attributes_at_open.links == 3
            assert stage.tree.nodes["f"].data == b"contents of f"  # never cut

    @trio_test
    async def test_create_read_only(self) -> None:
        async with staged() as stage:
            handle = await stage.share.create("new", read=True, write=True, exclusive=True, readonly_attribute=True)
            assert stage.tree.nodes["new"].attributes == FileAttribute.READONLY
            assert await stage.share.write(handle, 0, b"once") == 4


class TestContents:
    @pytest.mark.parametrize(("offset", "size"), [(0, 5), (0, 13), (0, 14), (5, 100), (12, 1), (13, 1), (1000, 10)])
    @trio_test
    async def test_read_ends_at_the_end(self, offset: int, size: int) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=True, write=False, expect=None)
            with stage.costs(1):
                data = await stage.share.read(handle, offset, size)
            assert data == b"contents of f"[offset : offset + size]
            assert stage.world.trace.bytes_read == len(data)

    @pytest.mark.parametrize("size", [1, 65536, 65537, 200_000, 300_000])
    @trio_test
    async def test_more_than_a_request_holds_is_read_and_written_in_parts(self, size: int) -> None:
        sizes = agreed(read=65536, write=65536)
        data = random.Random(size).randbytes(size)
        async with staged(sizes=sizes) as stage:
            handle = await stage.share.open("f", read=True, write=True, expect=None)
            parts = -(-size // 65536)
            with stage.costs(parts):
                assert await stage.share.write(handle, 0, data) == size
            assert stage.tree.nodes["f"].data[:size] == data
            with stage.costs(parts):
                assert await stage.share.read(handle, 0, size) == data
            # Beyond the end: what there is, and one request to learn that this was all.
            assert await stage.share.read(handle, 0, 1_000_000) == bytes(stage.tree.nodes["f"].data)
            assert stage.world.trace.bytes_written == size

    @trio_test
    async def test_few_credits_make_small_requests(self) -> None:
        data = bytes(range(256)) * 2000
        async with staged(credits=8) as stage:
            handle = await stage.share.open("f", read=True, write=True, expect=None)
            window = stage.world.pool.session.channel.connection.credits.window  # type: ignore[union-attr]
            stage.server.grant = lambda header: header.credit_charge
            assert await stage.share.write(handle, 0, data) == len(data)
            assert await stage.share.read(handle, 0, len(data)) == data
            assert max(m.elements[0].header.credit_charge for m in stage.server.messages) <= max(window // 4, 1)

    @trio_test
    async def test_a_write_that_is_taken_in_part_is_continued(self) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=True, write=True, expect=None)
            serve = stage.server.serve

            def seven_at_a_time(message):  # type: ignore[no-untyped-def]
                for element in message.elements:
                    if message.commands == ["WRITE"]:
                        element.request.data = element.request.data[:7]
                serve(message)

            stage.server.handler = seven_at_a_time
            with stage.costs(3):
                assert await stage.share.write(handle, 2, b"twenty bytes of data") == 20
            assert stage.tree.nodes["f"].data == b"cotwenty bytes of data"

    @trio_test
    async def test_writing_nothing_costs_nothing(self) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            with stage.costs(0):
                assert await stage.share.write(handle, 5, b"") == 0

    @trio_test
    async def test_flush(self) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            with stage.costs(1):
                await stage.share.flush(handle)
            assert stage.server.messages[-1].commands == ["FLUSH"]


class TestAttributes:
    @pytest.mark.parametrize("size", [0, 5, 13, 100])
    @trio_test
    async def test_truncate(self, size: int) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            with stage.costs(1):
                assert (await stage.share.truncate(handle, size)).size == size
            assert stage.tree.nodes["f"].data == b"contents of f"[:size].ljust(size, b"\0")
            stage.share.close(handle)
            with stage.costs(2):
                assert (await stage.share.truncate_path("f", 3, None)).size == 3
            await stage.nothing_open()

    @trio_test
    async def test_times_by_path_and_by_handle(self) -> None:
        async with staged() as stage:
            node = stage.tree.nodes["d"]
            before = list(node.times)
            with stage.costs(2):
                told = await stage.share.set_basic("d", Basics(modified=5 * DAY_NS), expect=node.number)
            assert (told.modified, told.is_directory) == (5 * DAY_NS, True)
            assert node.times == [before[0], before[1], EPOCH_AS_FILETIME + 5 * DAY_NS // 100, before[3]]
            await stage.nothing_open()
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            with stage.costs(1):
                told = await stage.share.set_basic_open(handle, Basics(created=1 * DAY_NS, accessed=2 * DAY_NS))
            assert (told.created, told.accessed) == (DAY_NS, 2 * DAY_NS)

    @trio_test
    async def test_times_go_with_what_was_written_before_them(self) -> None:
        async with staged() as stage:
            node = stage.tree.nodes["f"]
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            with stage.costs(1):
                told = await stage.share.write_and_set(handle, 2, b"NEW", Basics(modified=5 * DAY_NS))
            assert told is not None
            assert (told.modified, bytes(node.data)) == (5 * DAY_NS, b"coNEWnts of f")
            assert handle.seen == told

    @pytest.mark.parametrize("wrong", [StatusError(Status.ACCESS_DENIED, "SET_INFO"), WireError("cut short")])
    @trio_test
    async def test_what_was_written_has_arrived_whatever_comes_behind_it(
        self, wrong: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=False, write=True, expect=None)

            def told(*_: object) -> None:
                raise wrong

            monkeypatch.setattr(stage.share, "_told", told)
            assert await stage.share.write_and_set(handle, 2, b"NEW", Basics(modified=DAY_NS)) is None
            assert bytes(stage.tree.nodes["f"].data) == b"coNEWnts of f"

    @trio_test
    async def test_what_no_single_request_takes_is_written_alone(self) -> None:
        async with staged() as stage:
            node = stage.tree.nodes["f"]
            before = list(node.times)
            handle = await stage.share.open("f", read=False, write=True, expect=None)
            data = bytes(AT_ONCE + 1)
            assert await stage.share.write_and_set(handle, 0, data, Basics(modified=DAY_NS)) is None
            assert (bytes(node.data), node.times[2]) == (data, before[2])

    @trio_test
    async def test_attributes(self) -> None:
        async with staged() as stage:
            told = await stage.share.set_basic("f", Basics(attributes=FileAttribute.READONLY), expect=None)
            assert told.attributes == FileAttribute.READONLY
            assert stage.tree.nodes["f"].times == [BIRTH, BIRTH + 1, BIRTH + 2, BIRTH + 3]


class TestNames:
    @trio_test
    async def test_make_directory(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                told = await stage.share.make_directory("d\\new")
            assert told.is_directory
            assert stage.tree.nodes["d\\new"].directory
            with pytest.raises(StatusError) as error:
                await stage.share.make_directory("d")
            assert errno_of(error.value) == errno.EEXIST
            await stage.nothing_open()

    @trio_test
    async def test_remove_file(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                await stage.share.remove_file("f")
            assert "f" not in stage.tree.nodes
            with stage.costs(2):  # that it is read-only is known only afterwards
                await stage.share.remove_file("protected")
            assert "protected" not in stage.tree.nodes
            with stage.costs(1), pytest.raises(StatusError) as error:
                await stage.share.remove_file("protected")
            assert errno_of(error.value) == errno.ENOENT
            await stage.nothing_open()

    @trio_test
    async def test_remove_directory(self) -> None:
        async with staged() as stage:
            with stage.costs(1):
                await stage.share.remove_directory("empty")
            assert "empty" not in stage.tree.nodes
            for path, number in (("d", errno.ENOTEMPTY), ("f", errno.ENOTDIR), ("empty", errno.ENOENT)):
                with stage.costs(1), pytest.raises(StatusError) as error:
                    await stage.share.remove_directory(path)
                assert errno_of(error.value) == number
            with pytest.raises(StatusError) as error:
                await stage.share.remove_file("d")
            assert errno_of(error.value) == errno.EISDIR
            await stage.nothing_open()

    @trio_test
    async def test_rename(self) -> None:
        async with staged() as stage:
            node = stage.tree.nodes["f"]
            with stage.costs(1):
                await stage.share.rename("f", "d\\g", replace=False)
            assert stage.tree.nodes["d\\g"] is node
            with stage.costs(1), pytest.raises(StatusError) as error:
                await stage.share.rename("d\\g", "protected", replace=False)
            assert errno_of(error.value) == errno.EEXIST
            with stage.costs(1):
                await stage.share.rename("d\\g", "protected", replace=True)
            assert stage.tree.nodes["protected"] is node
            with pytest.raises(StatusError) as error:
                await stage.share.rename("f", "g", replace=False)
            assert errno_of(error.value) == errno.ENOENT
            await stage.nothing_open()


class TestIdentity:
    """A path may stand for another file than the one that the caller means."""

    @trio_test
    async def test_another_file_in_its_place_is_stale_and_not_touched(self) -> None:
        async with staged() as stage:
            share, node = stage.share, stage.tree.nodes["f"]
            wrong = node.number + 1
            before = (bytes(node.data), list(node.times), node.attributes)
            verbs = [
                lambda: share.open("f", read=True, write=True, expect=wrong),
                lambda: share.open("f", read=True, write=True, expect=wrong, head=10),
                lambda: share.truncate_path("f", 0, wrong),
                lambda: share.set_basic("f", Basics(modified=1, attributes=FileAttribute.HIDDEN), expect=wrong),
            ]
            for verb in verbs:
                with pytest.raises(OSError) as error:
                    await verb()  # type: ignore[no-untyped-call]
                assert error.value.errno == errno.ESTALE
            with pytest.raises(OSError) as error:
                await share.list_directory("d", wrong)
            assert error.value.errno == errno.ESTALE
            assert (bytes(node.data), node.times, node.attributes) == before
            await stage.nothing_open()

    @trio_test
    async def test_the_right_one_passes(self) -> None:
        async with staged() as stage:
            number = stage.tree.nodes["f"].number
            handle = await stage.share.open("f", read=True, write=True, expect=number)
            assert (await stage.share.truncate_path("f", 1, number)).size == 1
            assert (await stage.share.set_basic("f", Basics(modified=1), expect=number)).file_id == number
            assert (await stage.share.list_directory("d", stage.tree.nodes["d"].number)).complete
            stage.share.close(handle)
            await stage.nothing_open()


@trio_test
async def test_a_handle_that_is_lost_with_its_session_fails_at_once_and_needs_no_close() -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        stage.tree.nodes["f"].touch()
        stage.server.transport.hang_up()
        await settle()
        assert stage.world.pool.generation == 2
        assert not stage.share.usable(handle)
        share = stage.share
        for verb in (
            share.read(handle, 0, 1),
            share.write(handle, 0, b"x"),
            share.flush(handle),
            share.attributes(handle),
            share.truncate(handle, 0),
            share.set_basic_open(handle, Basics(modified=1)),
        ):
            with stage.costs(0), pytest.raises(ConnectionLost) as error:
                await verb
            assert errno_of(error.value) == errno.EIO
        with stage.costs(0):
            share.close(handle)
        assert (await share.lookup("f")).size == 13
        await stage.nothing_open()


@trio_test
async def test_statuses_keep_their_command() -> None:
    async with staged() as stage:
        with pytest.raises(StatusError) as error:
            await stage.share.remove_directory("d")
        assert (status_of(error), error.value.command) == (Status.DIRECTORY_NOT_EMPTY, "SET_INFO")


class TestReadingAhead:
    @pytest.mark.parametrize(("offset", "size"), [(0, 5), (5, 100), (13, 10), (1000, 10)])
    @trio_test
    async def test_nobody_waits_and_the_data_come(self, offset: int, size: int) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=True, write=False, expect=None)
            came: list[bytes | None] = []
            with stage.costs(0, unwaited=1):
                assert (
                    stage.share.read_ahead(handle, offset, size, lambda data: came.append(data and bytes(data))) == size
                )
                await settle()
            assert came == [b"contents of f"[offset : offset + size]]

    @trio_test
    async def test_no_more_than_one_request_holds(self) -> None:
        async with staged(sizes=agreed(read=65536)) as stage:
            handle = await stage.share.open("f", read=True, write=False, expect=None)
            assert stage.share.read_ahead(handle, 0, 1 << 20, lambda _: None) == 65536
            await settle()

    @trio_test
    async def test_what_cannot_be_had_is_said_once(self) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=True, write=False, expect=None)
            came: list[memoryview | None] = []
            stage.server.refuse = lambda _message, _index: Status.ACCESS_DENIED
            assert stage.share.read_ahead(handle, 0, 5, came.append)
            await settle()
            assert came == [None]
            stage.server.refuse = lambda _message, _index: None
            # More than was asked for: the peer does not know what it does, as the next who asks is told.
            stage.server.distort = lambda _element, _body: ReadResponse(memoryview(bytes(6))).encode()
            assert stage.share.read_ahead(handle, 0, 5, came.append)
            await settle()
            assert came == [None, None]
            stage.server.distort = lambda _element, body: body

    @pytest.mark.parametrize("way", ["send", "receive"])
    @trio_test
    async def test_so_it_is_when_the_connection_is_lost(self, way: str) -> None:
        async with staged() as stage:
            handle = await stage.share.open("f", read=True, write=False, expect=None)
            stage.tree.nodes["f"].touch()
            came: list[memoryview | None] = []
            transport = stage.server.transport
            setattr(transport, f"fail_{way}", getattr(transport, f"{way}s") + 1)
            stage.share.read_ahead(handle, 0, 5, came.append)
            await settle()
            assert came == [None]
            # The handle is of an earlier session.
            assert not stage.share.read_ahead(handle, 0, 5, came.append)
            assert came == [None]


class TestAttributesAhead:
    @pytest.mark.parametrize("by_handle", [False, True])
    @trio_test
    async def test_nobody_waits_and_they_come(self, by_handle: bool) -> None:
        async with staged() as stage:
            expected = await stage.share.lookup("f")
            handle = await stage.share.open("f", read=True, write=False, expect=None) if by_handle else None
            came: list[FileAttributes | None] = []
            with stage.costs(0, unwaited=1):
                assert stage.share.attributes_ahead("f", came.append, handle)
                assert not came
                await settle()
            assert came == [expected]
            if handle is None:
                await stage.nothing_open()

    @pytest.mark.parametrize("numbered", [True, False])
    @trio_test
    async def test_a_directory_by_its_name_takes_two_requests(self, numbered: bool) -> None:
        async with staged() as stage:
            stage.server.disk_ids = numbered
            expected = await stage.share.lookup("d")
            came: list[FileAttributes | None] = []
            for _ in range(2):
                before = stage.world.trace.requests.copy()
                assert stage.share.attributes_ahead("d", came.append)
                await settle()
                asked = stage.world.trace.requests - before
            # Where a CREATE does not tell the number, the second question is one for all.
            assert came == [expected, expected] if numbered else [None, expected]
            assert asked == {"CREATE": 1, "CLOSE": 1} | ({} if numbered else {"QUERY_INFO": 1})
            await stage.nothing_open()

    @trio_test
    async def test_what_cannot_be_had_is_said_once(self) -> None:
        async with staged() as stage:
            came: list[FileAttributes | None] = []
            assert stage.share.attributes_ahead("absent", came.append)
            await settle()
            assert came == [None]
            stage.server.distort = lambda _element, _body: b"nonsense"
            assert stage.share.attributes_ahead("d", came.append)
            await settle()
            assert came == [None, None]
