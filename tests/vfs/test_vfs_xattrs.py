"""Extended attributes: which names there are, what they stand for, and which of them cost nothing."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest
import trio
from vfs_world import World, fails, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.names import NameMapping
from smb3fs.vfs.wall import settle
from smb3fs.wire.codec import EPOCH_AS_FILETIME, ns_to_filetime
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.infoclass import FileFsAttributeInformation
from smb3fs.wire.security import Acl, Control, SecurityDescriptor
from smb3fs.wire.sid import EVERYONE

SECOND = 10**9
WITH_LIST = Control.SELF_RELATIVE | Control.DACL_PRESENT
DESCRIPTOR = SecurityDescriptor(WITH_LIST, EVERYONE, EVERYONE, None, Acl()).encode()


class Attributes:
    """The attributes of one file, by the calls of a driver."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number

    async def get(self, name: str) -> bytes:
        return await settle(self.world.vfs.getxattr(self.number, name.encode()))

    async def set(self, name: str, value: bytes, flags: int = 0) -> None:
        await settle(self.world.vfs.setxattr(self.number, name.encode(), value, flags))

    async def remove(self, name: str) -> None:
        await settle(self.world.vfs.removexattr(self.number, name.encode()))

    async def names(self) -> list[str]:
        return [name.decode() for name in await settle(self.world.vfs.listxattr(self.number))]


async def of_file(**options: Any) -> tuple[World, Any, Attributes]:
    """A world with a file, its node at the server, and its attributes."""
    world = World(**options)
    node = world.share.put("file", b"contents", created=1_500_000_000 * SECOND)
    node.extended[b"One"] = b"1"
    node.streams["Zone.Identifier"] = b"[ZoneTransfer]"
    node.descriptor = DESCRIPTOR
    found = Attributes(world, await world.number("file"))
    world.share.calls.clear()
    return world, node, found


@pytest.mark.parametrize(
    "name",
    [
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.nfs4_acl",
        "trusted.anything",
        "os2.anything",
        "user.",
        "user",
        "anything",
        "system.cifs_acl2",
    ],
)
@in_trio
async def test_names_that_stand_for_nothing_cost_nothing(name: str) -> None:
    """ls asks for two of them for every file, and the kernel for one ahead of every write."""
    world, _, attributes = await of_file()
    for call in (attributes.get(name), attributes.set(name, b"x"), attributes.remove(name)):
        with fails(errno.EOPNOTSUPP):
            await call
    assert world.share.calls == []


@in_trio
async def test_attributes_of_the_server() -> None:
    world, node, attributes = await of_file()
    assert await attributes.names() == ["user.One", "user.DosStream.Zone.Identifier"]
    assert await attributes.get("user.ONE") == b"1"
    with fails(errno.ENODATA):
        await attributes.get("user.two")
    await attributes.set("user.two", b"\0binary\xff")
    assert await attributes.get("user.two") == b"\0binary\xff"
    await attributes.remove("user.two")
    with fails(errno.ENODATA):
        await attributes.remove("user.two")
    assert node.extended == {b"One": b"1"}
    assert world.share.calls == [
        "attached",
        *["extended_attributes"] * 2,
        "set_extended_attribute",
        "extended_attributes",
        *["set_extended_attribute"] * 2,
    ]


@in_trio
async def test_create_and_replace() -> None:
    _, node, attributes = await of_file()
    for name, known in (("user.One", node.extended), ("user.DosStream.Zone.Identifier", node.streams)):
        before = dict(known)
        with fails(errno.EEXIST):
            await attributes.set(name, b"x", os.XATTR_CREATE)
        with fails(errno.ENODATA):
            await attributes.set(name + ".other", b"x", os.XATTR_REPLACE)
        with fails(errno.EINVAL):
            await attributes.set(name, b"x", 4)
        assert known == before
        await attributes.set(name + ".other", b"x", os.XATTR_CREATE)
        await attributes.set(name, b"y", os.XATTR_REPLACE)
        assert list(known.values()) == [b"x", b"y"] or list(known.values()) == [b"y", b"x"]


@in_trio
async def test_an_empty_value_is_no_value_for_a_server_and_removes_nothing() -> None:
    _, node, attributes = await of_file()
    with fails(errno.EOPNOTSUPP):
        await attributes.set("user.One", b"")
    assert node.extended == {b"One": b"1"}
    await attributes.set("user.DosStream.Zone.Identifier", b"")
    assert node.streams == {"Zone.Identifier": b""}


@in_trio
async def test_streams() -> None:
    _, node, attributes = await of_file()
    assert await attributes.get("user.DosStream.Zone.Identifier") == b"[ZoneTransfer]"
    await attributes.set("user.DosStream.Grüße", b"x")
    assert node.streams["Grüße"] == b"x"
    assert "user.DosStream.Grüße" in await attributes.names()
    await attributes.remove("user.DosStream.Grüße")
    with fails(errno.ENODATA):
        await attributes.get("user.DosStream.Grüße")
    with fails(errno.EILSEQ):
        await settle(attributes.world.vfs.getxattr(attributes.number, b"user.DosStream.\xff"))


@in_trio
async def test_what_a_server_lists_and_nobody_could_ask_for() -> None:
    _, node, attributes = await of_file()
    node.extended |= {b"": b"x", b"a\0b": b"x", b"n" * 251: b"x", b"n" * 250: b"x", b"one": b"x"}
    node.streams["ü" * 121] = b""
    names = await settle(attributes.world.vfs.listxattr(attributes.number))
    assert names == [b"user.One", b"user." + b"n" * 250, b"user.one", b"user.DosStream.Zone.Identifier"]


@pytest.mark.parametrize("family", ["cifs", "smb3"])
@in_trio
async def test_dos_attributes(family: str) -> None:
    world, node, attributes = await of_file()
    name = f"user.{family}.dosattrib"
    node.attributes = int(FileAttribute.ARCHIVE)
    assert await attributes.get(name) == b"\x20\0\0\0"
    await attributes.set(
        name, struct.pack("<I", FileAttribute.HIDDEN | FileAttribute.READONLY | FileAttribute.SPARSE_FILE)
    )
    assert node.attributes == FileAttribute.HIDDEN | FileAttribute.READONLY
    await attributes.set(name, bytes(4))
    assert node.attributes == 0
    assert world.share.calls == ["lookup", "set_basic", "set_basic"]
    for wrong in (b"", b"123", bytes(8)):
        with fails(errno.ERANGE):
            await attributes.set(name, wrong)
    with fails(errno.EEXIST):
        await attributes.set(name, bytes(4), os.XATTR_CREATE)
    with fails(errno.EOPNOTSUPP):
        await attributes.remove(name)
    assert name not in await attributes.names()


@pytest.mark.parametrize("family", ["cifs", "smb3"])
@in_trio
async def test_time_of_birth(family: str) -> None:
    _, node, attributes = await of_file()
    name = f"user.{family}.creationtime"
    assert await attributes.get(name) == struct.pack("<Q", ns_to_filetime(1_500_000_000 * SECOND))
    await attributes.set(name, struct.pack("<Q", EPOCH_AS_FILETIME + 7))
    assert node.created == 700
    assert (await attributes.world.stat(attributes.number)).attr.birth_ns == 700
    for order in (0, 2**63, 2**64 - 1, 2**64 - 2):
        with fails(errno.EINVAL):
            await attributes.set(name, struct.pack("<Q", order))
    with fails(errno.ERANGE):
        await attributes.set(name, bytes(4))
    assert node.created == 700


@in_trio
async def test_through_a_handle_that_writes() -> None:
    """A server may take its own times and attributes for what was set by path when such a handle is closed."""
    world, node, attributes = await of_file()
    await world.open("file", os.O_RDWR)
    world.share.calls.clear()
    await attributes.set("user.cifs.dosattrib", b"\x02\0\0\0")
    await attributes.set("user.cifs.creationtime", struct.pack("<Q", EPOCH_AS_FILETIME + 1))
    assert world.share.calls == ["set_basic_open", "set_basic_open"]
    assert (node.attributes, node.created) == (2, 100)


@pytest.mark.parametrize(
    ("name", "shown", "changed"),
    [("acl", 7, 4), ("ntsd", 7, 7), ("ntsd_full", 15, 7), ("ntsd_owner", 3, 3)],
)
@pytest.mark.parametrize("family", ["cifs", "smb3"])
@in_trio
async def test_the_security_descriptor(family: str, name: str, shown: int, changed: int) -> None:
    """What is set are the parts that the name stands for, as far as the value has them."""
    world, node, attributes = await of_file()
    assert await attributes.get(f"system.{family}_{name}") == DESCRIPTOR
    new = SecurityDescriptor(WITH_LIST, EVERYONE, EVERYONE, None, Acl([])).encode() + b"\0\0"
    await attributes.set(f"system.{family}_{name}", new)
    assert node.descriptor == new
    assert world.share.calls == [f"security {shown}", f"set_security {changed}"]
    with fails(errno.EOPNOTSUPP):
        await attributes.remove(f"system.{family}_{name}")
    with fails(errno.EEXIST):
        await attributes.set(f"system.{family}_{name}", new, os.XATTR_CREATE)


@in_trio
async def test_a_descriptor_without_the_part_is_refused_here() -> None:
    """Servers take a list that is not there for one that lets everybody do everything."""
    world, _, attributes = await of_file()
    without = SecurityDescriptor(Control.SELF_RELATIVE, EVERYONE).encode()
    for name, value in (("acl", without), ("ntsd_sacl", DESCRIPTOR), ("acl", b""), ("ntsd", DESCRIPTOR[:30])):
        with fails(errno.EINVAL):
            await attributes.set(f"system.cifs_{name}", value)
    assert world.share.calls == []
    await attributes.set("system.cifs_ntsd", without)
    assert world.share.calls == ["set_security 1"]


@in_trio
async def test_audit_lists_without_the_privilege() -> None:
    """EIO, on which getcifsacl(1) is content with less; nothing else is hidden behind it."""
    world, _, attributes = await of_file()
    world.share.fail("security 15", Status.PRIVILEGE_NOT_HELD, Status.ACCESS_DENIED)
    with fails(errno.EIO):
        await attributes.get("system.cifs_ntsd_full")
    with fails(errno.EACCES):
        await attributes.get("system.cifs_ntsd_full")


@in_trio
async def test_nouser_xattr() -> None:
    world, _, attributes = await of_file(user_xattr=False)
    assert await attributes.names() == []
    for name in ("user.One", "user.DosStream.Zone.Identifier", "user.cifs.dosattrib"):
        with fails(errno.EOPNOTSUPP):
            await attributes.get(name)
        with fails(errno.EOPNOTSUPP):
            await attributes.set(name, b"x")
    assert world.share.calls == []
    assert await attributes.get("system.cifs_acl") == DESCRIPTOR


@in_trio
async def test_the_file_is_followed_where_it_was_moved_and_nothing_else_is_touched() -> None:
    world, node, attributes = await of_file()
    world.share.move("file", "elsewhere")
    other = world.share.put("file", b"another")
    for call in (
        attributes.get("user.One"),
        attributes.names(),
        attributes.set("user.One", b"x"),
        attributes.set("user.DosStream.s", b"x"),
        attributes.set("user.cifs.dosattrib", b"\1\0\0\0"),
        attributes.remove("user.One"),
    ):
        with fails(errno.ESTALE):
            await call
    assert (other.extended, other.streams, other.attributes) == ({}, {}, 0)
    await world.look("elsewhere")
    assert await attributes.get("user.One") == b"1"
    assert node.extended == {b"One": b"1"}


def without_streams(world: World) -> None:
    world.state.learn(FileFsAttributeInformation(0x00800001, 255, "NTFS"))


@in_trio
async def test_asked_for_file_after_file_the_directory_is_listed_instead() -> None:
    """As ls -l does today; what has an attribute, or was changed here since, is asked for as ever."""
    world = World()
    without_streams(world)
    names = [f"file-{number}" for number in range(200)]
    for name in names:
        world.share.put(name, b"")
    world.share.find("file-150").extended[b"one"] = b"1"
    files = {name: Attributes(world, await world.number(name)) for name in names}
    await trio.sleep(3)  # the looking up has had a listing made, too
    world.share.calls.clear()
    assert {name: await found.names() for name, found in files.items() if await found.names()} == {
        "file-150": ["user.one"]
    }
    assert world.share.count("list_directory") == 1
    assert world.share.count("attached") <= 40
    world.share.calls.clear()
    await files["file-160"].set("user.two", b"2")
    assert await files["file-160"].names() == ["user.two"]
    assert await files["file-161"].names() == []
    assert world.share.calls == ["set_extended_attribute", "attached"]
    await trio.sleep(3)
    world.share.find("file-161").extended[b"later"] = b"1"
    assert await files["file-161"].names() == ["user.later"]


@in_trio
async def test_streams_are_not_asked_of_a_server_that_has_none() -> None:
    """It might take the name for that of a file."""
    world, node, attributes = await of_file()
    without_streams(world)
    for call in (
        attributes.get("user.DosStream.s"),
        attributes.set("user.DosStream.s", b"x"),
        attributes.remove("user.DosStream.Zone.Identifier"),
    ):
        with fails(errno.EOPNOTSUPP):
            await call
    assert world.share.calls == []
    assert list(node.streams) == ["Zone.Identifier"]


@in_trio
async def test_a_listing_says_nothing_of_streams() -> None:
    world = World()
    for number in range(60):
        world.share.put(f"file-{number}", b"").streams["s"] = b""
    for number in range(60):
        assert await Attributes(world, await world.number(f"file-{number}")).names() == ["user.DosStream.s"]
    assert world.share.count("attached") == 60


@in_trio
async def test_nor_does_a_listing_by_the_posix_extensions_say_anything() -> None:
    world = World()
    without_streams(world)
    world.state.use_names(NameMapping.POSIX)
    files = []
    for number in range(60):
        world.share.put(f"file-{number}", b"")
        files.append(Attributes(world, await world.number(f"file-{number}")))
    await trio.sleep(3)
    world.share.calls.clear()
    for found in files:
        await found.names()
    assert world.share.calls == ["attached"] * 60


@in_trio
async def test_another_file_under_the_name_is_not_mistaken_for_it() -> None:
    world = World()
    without_streams(world)
    files = []
    for number in range(60):
        world.share.put(f"file-{number}", b"").extended[b"one"] = b"1"
        files.append(Attributes(world, await world.number(f"file-{number}")))
    for number in range(60):
        world.share.move(f"file-{number}", f"moved-{number}")
        world.share.put(f"file-{number}", b"")
    for found in files:
        with fails(errno.ESTALE):
            await found.names()
