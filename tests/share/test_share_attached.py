"""What is attached to files, and previous versions: what the verbs do, and in how many round trips."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from attached_server import AttachedServer
from peer import trio_test
from stage import Stage, staged
from tree_server import BIRTH, Node, Tree, usual_descriptor
from world import agreed

from smb3fs.errors import MountError, Status, StatusError, WireError, errno_of
from smb3fs.share.share import Share
from smb3fs.share.versions import check_chosen, chosen_time
from smb3fs.wire.ea import ExtendedAttribute, FileFullEaInformation
from smb3fs.wire.header import Command
from smb3fs.wire.query import QueryInfoResponse
from smb3fs.wire.security import Acl, SecurityDescriptor, SecurityInformation
from smb3fs.wire.sid import Sid
from smb3fs.wire.snapshots import time_token, token_time
from smb3fs.wire.streams import FileStreamInformation

DACL = int(SecurityInformation.DACL)
OWNER = int(SecurityInformation.OWNER)
SACL = int(SecurityInformation.SACL)
OLD, NEW = "@GMT-2024.01.01-00.00.00", "@GMT-2025.06.01-12.30.00"


def attached(**options: Any) -> AbstractAsyncContextManager[Stage]:
    """A file with an attribute and a stream, and one with neither."""
    tree = Tree()
    file = tree.add("f", b"contents")
    file.extended[b"One"] = b"1"
    file.streams["s"] = Node(file.number, data=bytearray(b"in the stream"))
    tree.add("bare", b"x")
    return staged(tree, serve=AttachedServer, **options)


def server_of(stage: Stage) -> AttachedServer:
    assert isinstance(stage.server, AttachedServer)
    return stage.server


async def fails(number: int, call: Awaitable[object]) -> None:
    """It fails with this errno."""
    with pytest.raises((OSError, StatusError)) as caught:
        await call
    assert errno.errorcode[errno_of(caught.value)] == errno.errorcode[number]


class TestExtendedAttributes:
    @trio_test
    async def test_each_look_is_one_round_trip(self) -> None:
        async with attached() as stage:
            number = stage.tree.nodes["f"].number
            with stage.costs(1):
                assert await stage.share.extended_attributes("f", number) == [ExtendedAttribute(b"One", b"1")]
            with stage.costs(1):
                assert await stage.share.extended_attributes("bare", None) == []
            with stage.costs(1):
                found = await stage.share.attached("f", number)
            assert [attribute.name for attribute in found.attributes] == [b"One"]
            assert [stream.name for stream in found.streams] == ["", "s"]
            assert (await stage.share.attached("bare", None)).attributes == []
            await stage.nothing_open()

    @trio_test
    async def test_setting_and_removing(self) -> None:
        async with attached() as stage:
            share, kept = stage.share, stage.tree.nodes["f"].extended
            with stage.costs(2):
                await share.set_extended_attribute("f", b"two", b"2", expect=None)
            with stage.costs(2):
                await share.set_extended_attribute("f", b"ONE", b"eins", expect=None, exists=True)
            assert kept == {b"two": b"2", b"One": b"eins"}
            with stage.costs(2):
                await share.set_extended_attribute("f", b"one", b"", expect=None, exists=True)
            with stage.costs(2):
                await share.set_extended_attribute("f", b"three", b"3", expect=None, exists=False)
            assert kept == {b"two": b"2", b"three": b"3"}
            await fails(errno.EEXIST, share.set_extended_attribute("f", b"TWO", b"x", expect=None, exists=False))
            await fails(errno.ENODATA, share.set_extended_attribute("f", b"four", b"x", expect=None, exists=True))
            await fails(errno.ENODATA, share.set_extended_attribute("bare", b"one", b"", expect=None, exists=True))
            assert kept == {b"two": b"2", b"three": b"3"}
            await stage.nothing_open()

    @pytest.mark.parametrize(
        ("name", "value", "number"),
        [(b"", b"x", errno.EINVAL), (b"n" * 256, b"x", errno.ERANGE), (b"n", bytes(65536), errno.E2BIG)],
    )
    @trio_test
    async def test_what_no_packet_can_express_is_refused_here(self, name: bytes, value: bytes, number: int) -> None:
        async with attached() as stage:
            with stage.costs(0):
                await fails(number, stage.share.set_extended_attribute("f", name, value, expect=None))

    @trio_test
    async def test_more_than_fits_into_the_first_answer(self) -> None:
        async with attached() as stage:
            kept = stage.tree.nodes["f"].extended
            for number in range(5):
                kept[b"big%d" % number] = bytes(60000)
            with stage.costs(2):
                assert len(await stage.share.extended_attributes("f", None)) == 6
            with stage.costs(2):
                assert len((await stage.share.attached("f", None)).attributes) == 6
            with stage.costs(2):
                await stage.share.set_extended_attribute("f", b"big0", b"", expect=None, exists=True)
            assert len(kept) == 5
            await stage.nothing_open()

    @trio_test
    async def test_more_than_the_server_will_ever_send_is_an_error(self) -> None:
        async with attached(sizes=agreed(transact=65536)) as stage:
            stage.tree.nodes["f"].extended |= {b"a": bytes(40000), b"b": bytes(40000)}
            await fails(errno.EIO, stage.share.extended_attributes("f", None))
            await fails(errno.EIO, stage.share.attached("f", None))
            await stage.nothing_open()

    @pytest.mark.parametrize("strict", [False, True], ids=["the rest goes on", "the rest fails too"])
    @trio_test
    async def test_a_file_system_without_them(self, strict: bool) -> None:
        async with attached() as stage:
            server = server_of(stage)
            server.strict = strict
            server.without = {FileFullEaInformation.information_class}
            found = await stage.share.attached("f", None)
            assert (found.attributes, [stream.name for stream in found.streams]) == ([], ["", "s"])
            await fails(errno.EOPNOTSUPP, stage.share.extended_attributes("f", None))
            await fails(
                errno.EOPNOTSUPP, stage.share.set_extended_attribute("f", b"n", b"v", expect=None, exists=False)
            )
            server.without.add(FileStreamInformation.information_class)
            assert await stage.share.attached("f", None) == ([], [])
            await stage.nothing_open()

    @trio_test
    async def test_an_answer_that_is_no_list_of_attributes(self) -> None:
        async with attached() as stage:
            junk = QueryInfoResponse(memoryview(b"\x05\0\0\0\0\x09\xff\xff")).encode()

            def distort(element: Any, body: bytes) -> bytes:
                known = element.command == Command.QUERY_INFO and element.request.information_class == 15
                return junk if known else body

            stage.server.distort = distort
            for call in (stage.share.extended_attributes, stage.share.attached):
                with pytest.raises(WireError):
                    await call("f", None)
            await stage.nothing_open()


LOOKS_AND_CHANGES: dict[str, Callable[[Share, int], Awaitable[object]]] = {
    "extended_attributes": lambda share, n: share.extended_attributes("f", n),
    "attached": lambda share, n: share.attached("f", n),
    "set_extended_attribute": lambda share, n: share.set_extended_attribute("f", b"x", b"y", expect=n),
    "remove an attribute": lambda share, n: share.set_extended_attribute("f", b"One", b"", expect=n, exists=True),
    "security": lambda share, n: share.security("f", 7, n),
    "set_security": lambda share, n: share.set_security("f", 5, usual_descriptor().encode(), expect=n),
    "read_stream": lambda share, n: share.read_stream("f", "s", n),
    "read_stream that is not there": lambda share, n: share.read_stream("f", "none", n),
    "write_stream": lambda share, n: share.write_stream("f", "s", b"x", expect=n),
    "create_stream": lambda share, n: share.write_stream("f", "new", b"x", expect=n),
    "remove_stream": lambda share, n: share.remove_stream("f", "s", n),
}


@pytest.mark.parametrize("name", LOOKS_AND_CHANGES)
@pytest.mark.parametrize("own_numbers", [False, True])
@trio_test
async def test_another_file_at_the_path_is_estale_and_stays_as_it_is(name: str, own_numbers: bool) -> None:
    async with attached() as stage:
        file = stage.tree.nodes["f"]
        if own_numbers:
            file.streams["s"].number = 12345
        before = (dict(file.extended), {key: bytes(node.data) for key, node in file.streams.items()})
        descriptor = file.descriptor.encode()
        await fails(errno.ESTALE, LOOKS_AND_CHANGES[name](stage.share, file.number + 1))
        assert (dict(file.extended), {key: bytes(node.data) for key, node in file.streams.items()}) == before
        assert file.descriptor.encode() == descriptor
        await stage.nothing_open()


class TestStreams:
    @pytest.mark.parametrize("own_numbers", [False, True])
    @trio_test
    async def test_reading_is_one_round_trip_where_streams_have_their_files_number(self, own_numbers: bool) -> None:
        async with attached() as stage:
            file = stage.tree.nodes["f"]
            if own_numbers:
                file.streams["s"].number = 12345
            with stage.costs(2 if own_numbers else 1):
                assert await stage.share.read_stream("f", "s", file.number) == b"in the stream"
            file.streams["s"].data.clear()
            assert await stage.share.read_stream("f", "s", file.number) == b""
            await fails(errno.ENODATA, stage.share.read_stream("f", "none", file.number))
            await fails(errno.ENOENT, stage.share.read_stream("absent", "s", None))
            await stage.nothing_open()

    @pytest.mark.parametrize(("size", "fits"), [(65536, True), (65537, False), (1 << 20, False)])
    @trio_test
    async def test_what_linux_has_no_room_for(self, size: int, fits: bool) -> None:
        async with attached() as stage:
            stage.tree.nodes["f"].streams["s"].data[:] = bytes(size)
            if fits:
                assert await stage.share.read_stream("f", "s", None) == bytes(size)
            else:
                await fails(errno.E2BIG, stage.share.read_stream("f", "s", None))
            await stage.nothing_open()

    @trio_test
    async def test_writing(self) -> None:
        async with attached() as stage:
            share, streams = stage.share, stage.tree.nodes["f"].streams
            with stage.costs(3):
                await share.write_stream("f", "s", b"short", expect=None)
            assert bytes(streams["s"].data) == b"short"
            await share.write_stream("f", "s", b"much longer than it was", expect=None, exists=True)
            assert bytes(streams["s"].data) == b"much longer than it was"
            await share.write_stream("f", "new", b"", expect=None, exists=False)
            assert bytes(streams["new"].data) == b""
            await fails(errno.EEXIST, share.write_stream("f", "new", b"x", expect=None, exists=False))
            await fails(errno.ENODATA, share.write_stream("f", "none", b"x", expect=None, exists=True))
            with stage.costs(2):
                await share.remove_stream("f", "new", None)
            assert list(streams) == ["s"]
            await fails(errno.ENODATA, share.remove_stream("f", "new", None))
            assert bytes(stage.tree.nodes["f"].data) == b"contents"
            await stage.nothing_open()

    @trio_test
    async def test_a_write_that_fails_takes_nothing_away(self) -> None:
        async with attached() as stage:
            stage.server.refuse = lambda message, index: (
                Status.DISK_FULL if message.elements[index].command == Command.WRITE else None
            )
            await fails(errno.ENOSPC, stage.share.write_stream("f", "s", b"x", expect=None))
            assert bytes(stage.tree.nodes["f"].streams["s"].data) == b"in the stream"
            await stage.nothing_open()

    @pytest.mark.parametrize("name", ["", ":", "$DATA:x", "a:b", "a\\b", "a/b", "a\0b", ":$DATA"])
    @trio_test
    async def test_what_is_no_stream_never_reaches_the_file_itself(self, name: str) -> None:
        async with attached() as stage:
            with stage.costs(0):
                await fails(errno.EINVAL, stage.share.read_stream("f", name, None))
                await fails(errno.EINVAL, stage.share.write_stream("f", name, b"x", expect=None))
                await fails(errno.EINVAL, stage.share.remove_stream("f", name, None))
            assert bytes(stage.tree.nodes["f"].data) == b"contents"

    @trio_test
    async def test_a_file_system_without_them(self) -> None:
        async with attached() as stage:
            server_of(stage).keeps_streams = False
            await fails(errno.ENODATA, stage.share.read_stream("f", "s", None))
            await fails(errno.EOPNOTSUPP, stage.share.write_stream("f", "s", b"x", expect=None))
            await fails(errno.ENODATA, stage.share.remove_stream("f", "s", None))
            await stage.nothing_open()


class TestSecurity:
    @trio_test
    async def test_the_parts_that_are_asked_for(self) -> None:
        async with attached() as stage:
            with stage.costs(1):
                told = SecurityDescriptor.parse(await stage.share.security("f", OWNER | DACL, None))
            assert (told.owner, told.group, told.dacl) == (usual_descriptor().owner, None, usual_descriptor().dacl)
            await stage.nothing_open()

    @trio_test
    async def test_setting_parts_asks_for_no_more_rights_than_they_need(self) -> None:
        async with attached() as stage:
            wanted = SecurityDescriptor(usual_descriptor().control, Sid(5, (18,)), None, Acl(), Acl())
            with stage.costs(2):
                await stage.share.set_security("f", DACL, wanted.encode(), expect=None)
            kept = stage.tree.nodes["f"].descriptor
            assert (kept.owner, kept.dacl) == (usual_descriptor().owner, Acl([]))
            await stage.share.set_security("f", OWNER, wanted.encode(), expect=None)
            assert kept.owner == Sid(5, (18,))
            server_of(stage).privileged = False
            await stage.share.security("f", 7, None)
            await fails(errno.EPERM, stage.share.security("f", 7 | SACL, None))
            await fails(errno.EPERM, stage.share.set_security("f", SACL, wanted.encode(), expect=None))
            await stage.nothing_open()


class TestSnapshots:
    @trio_test
    async def test_they_are_listed_the_newest_first(self) -> None:
        async with attached() as stage:
            with stage.costs(1):
                assert await stage.share.snapshots() == [NEW, OLD]
            server_of(stage).tokens = [
                f"@GMT-20{n // 400:02}.01.01-00.{n // 20 % 20:02}.{n % 20:02}" for n in range(3000)
            ]
            with stage.costs(2):
                assert len(await stage.share.snapshots()) == 3000
            server_of(stage).tokens = []
            assert await stage.share.snapshots() == []
            await stage.nothing_open()

    @trio_test
    async def test_every_open_names_the_version_but_the_listing_of_versions_does_not(self) -> None:
        async with attached(snapshot=BIRTH) as stage:
            share = stage.share
            await share.lookup("f")
            share.close(await share.open("f", read=True, write=False, expect=None))
            (await share.list_directory("", None)).close()
            await share.attached("f", None)
            await share.read_stream("f", "s", None)
            await share.security("f", 7, None)
            assert server_of(stage).timewarps == [BIRTH] * 6
            await share.snapshots()
            assert server_of(stage).timewarps[6:] == [None]

    @trio_test
    async def test_without_one_no_open_names_any(self) -> None:
        async with attached() as stage:
            await stage.share.lookup("f")
            assert server_of(stage).timewarps == [None]

    def test_tokens_are_times(self) -> None:
        assert token_time("@GMT-1970.01.01-00.00.01") == 116_444_736_010_000_000
        assert time_token(116_444_736_019_999_999) == "@GMT-1970.01.01-00.00.01"
        assert chosen_time("116444736010000000") == chosen_time("@GMT-1970.01.01-00.00.01")
        for text in ("@GMT-2023.02.29-00.00.00", "@GMT-2024.1.1-0.0.0", "gmt", "@GMT-2024.01.01-00.00.00 "):
            assert token_time(text) is None
        for text in ("0", "-1", str(2**63), "@GMT-2024.01.01", "٣"):
            with pytest.raises(MountError):
                chosen_time(text)

    def test_only_a_version_that_there_is_is_mounted(self) -> None:
        tokens = [NEW, OLD, "@GMT-2025.06.02-12.30.00", "@GMT-2020.01.01-00.00.00", "no token"]
        check_chosen(chosen_time(OLD), tokens)
        check_chosen(chosen_time(OLD) + 9_999_999, tokens)
        with pytest.raises(MountError, match=r"nearest: @GMT-2024.*, @GMT-2025\.06\.01.*, @GMT-2025\.06\.02[^,]*$"):
            check_chosen(chosen_time(OLD) + 10_000_000, tokens)
        with pytest.raises(MountError, match="of 4 that there are"):
            check_chosen(2**63 - 1, tokens)
        for none in ([], ["no token"]):
            with pytest.raises(MountError, match="no previous versions"):
                check_chosen(chosen_time(OLD), none)
