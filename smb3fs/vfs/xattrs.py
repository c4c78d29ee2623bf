"""Extended attributes as Linux has them, and what each of their names stands for on an SMB server.

    user.NAME                     the extended attribute NAME
    user.DosStream.NAME           the alternate data stream NAME
    user.cifs.dosattrib           FILE_ATTRIBUTE bits, a 32-bit number (little endian, like all numbers here)
    user.cifs.creationtime        the time of birth, a FILETIME
    system.cifs_acl and others    parts of the security descriptor as it stands in a packet, see DESCRIPTORS

`smb3` in place of `cifs` means the same. Names and forms are those of the Linux kernel's client, for the sake of the
programs that know them; as there, what a server makes up for every file is not listed. No other name is kept by any
server, and none of them costs a request: the kernel asks for security.capability ahead of every write, and ls for
POSIX access lists and SELinux labels of every file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable
from struct import Struct
from typing import Final, NamedTuple, NoReturn

import trio

from smb3fs.errors import Status, StatusError, WireError
from smb3fs.handles.attributes import Basics
from smb3fs.vfs.anticipation import Anticipation
from smb3fs.vfs.attributes import NORMAL, SETTABLE
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.names import NameMapping
from smb3fs.vfs.setting import set_basic
from smb3fs.vfs.state import State
from smb3fs.wire.codec import MAX_FILETIME, filetime_to_ns, ns_to_filetime
from smb3fs.wire.directory import DirectoryEntry
from smb3fs.wire.security import Control, SecurityDescriptor, SecurityInformation

USER: Final = b"user."
STREAM: Final = b"user.DosStream."
# linux/limits.h XATTR_NAME_MAX: a longer name cannot be listed, since nobody could ask for it.
NAME_MAX: Final = 255

# setxattr(2)
XATTR_CREATE: Final = os.XATTR_CREATE
XATTR_REPLACE: Final = os.XATTR_REPLACE

DOS_ATTRIBUTES: Final = frozenset({b"user.cifs.dosattrib", b"user.smb3.dosattrib"})
CREATION_TIME: Final = frozenset({b"user.cifs.creationtime", b"user.smb3.creationtime"})
_ATTRIBUTES: Final = Struct("<I")
_FILETIME: Final = Struct("<Q")


class Parts(NamedTuple):
    """The parts of the security descriptor that an attribute shows, and those that it sets."""

    shown: int
    set: int


_OWNERS: Final = int(SecurityInformation.OWNER | SecurityInformation.GROUP)
_DACL: Final = int(SecurityInformation.DACL)
_SACL: Final = int(SecurityInformation.SACL)

DESCRIPTORS: Final = {
    b"system." + family + b"_" + name: parts
    for family in (b"cifs", b"smb3")
    for name, parts in (
        (b"acl", Parts(_OWNERS | _DACL, _DACL)),
        (b"ntsd", Parts(_OWNERS | _DACL, _OWNERS | _DACL)),
        (b"ntsd_full", Parts(_OWNERS | _DACL | _SACL, _OWNERS | _DACL | _SACL)),
        (b"ntsd_owner", Parts(_OWNERS, _OWNERS)),
        (b"ntsd_sacl", Parts(_SACL, _SACL)),
    )
}


def _refuse(number: int) -> NoReturn:
    """Raise an OSError with its usual text."""
    raise OSError(number, os.strerror(number))


def _check(state: State, name: bytes) -> None:
    """Raise EOPNOTSUPP for a name that stands for nothing here."""
    if not (name in DESCRIPTORS or (state.user_xattr and name.startswith(USER) and len(name) > len(USER))):
        _refuse(errno.EOPNOTSUPP)


def get(state: State, inode: Inode, name: bytes) -> Awaitable[bytes]:
    """Return the value of an attribute; ENODATA if there is none of that name."""
    _check(state, name)
    return _get(state, inode, name)


async def _get(state: State, inode: Inode, name: bytes) -> bytes:
    """Fetch the value of an attribute that there may be."""
    share = state.share
    if name in DESCRIPTORS:
        parts = DESCRIPTORS[name].shown
        try:
            return await state.by_path(inode, lambda path: share.security(path, parts, inode.expect))
        except StatusError as error:
            if error.status == Status.PRIVILEGE_NOT_HELD:
                _refuse(errno.EIO)  # on which getcifsacl(1) asks for the parts that need no privilege
            raise
    if name in DOS_ATTRIBUTES:
        return _ATTRIBUTES.pack((await state.attributes(inode)).attributes)
    if name in CREATION_TIME:
        return _FILETIME.pack(ns_to_filetime((await state.attributes(inode)).created))
    if name.startswith(STREAM):
        stream = _stream_name(state, name)
        return await state.by_path(inode, lambda path: share.read_stream(path, stream, inode.expect))
    wanted = name.removeprefix(USER)
    known = await state.by_path(inode, lambda path: share.extended_attributes(path, inode.expect))
    for attribute in known:
        if attribute.is_called(wanted):
            return attribute.value
    _refuse(errno.ENODATA)


def names(state: State, ahead: Anticipation, inode: Inode) -> list[bytes] | Awaitable[list[bytes]]:
    """Return the names of the attributes that a file has."""
    if not state.user_xattr or _is_bare(state, ahead, inode):
        return []
    return _names(state, ahead, inode)


async def _names(state: State, ahead: Anticipation, inode: Inode) -> list[bytes]:
    """Ask for the names: of one file, or for the whole directory if that promises to pay.

    Today's ls does this to every file that it lists at length. A listing by the POSIX extensions has nothing of it.
    """
    parent = inode.parent
    listing_tells = not state.has_streams and state.names.mapping is not NameMapping.POSIX
    if listing_tells and ahead.worth_listing(parent, trio.current_time()):
        await ahead.list(parent)
        if _is_bare(state, ahead, inode):
            return []
    attached = await state.by_path(inode, lambda path: state.share.attached(path, inode.expect))
    if listing_tells:
        ahead.note(parent, inode.links[0][1] if inode.links else "", trio.current_time())
    found = [USER + attribute.name for attribute in attached.attributes if attribute.name]
    found += [STREAM + s.name.encode("utf-8", "surrogatepass") for s in attached.streams if s.name]
    # What the server says is only as good as the server.
    return [name for name in dict.fromkeys(found) if len(name) <= NAME_MAX and b"\0" not in name]


def _is_bare(state: State, ahead: Anticipation, inode: Inode) -> bool:
    """Whether a fresh listing says that nothing is attached to a file; of streams it says nothing."""
    if state.has_streams or not inode.links:
        return False
    parent, name = inode.links[0]
    found = ahead.find(parent, name, trio.current_time())
    if found is None:
        return False
    told, _ = found
    return isinstance(told, DirectoryEntry) and not told.ea_size and told.file_id == inode.file_id


def set_(state: State, inode: Inode, name: bytes, value: bytes, flags: int) -> Awaitable[None]:
    """Set an attribute; with XATTR_CREATE one that is there is EEXIST, with XATTR_REPLACE one that is not ENODATA."""
    _check(state, name)
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        _refuse(errno.EINVAL)
    return _set(state, inode, name, value, flags)


async def _set(state: State, inode: Inode, name: bytes, value: bytes, flags: int) -> None:
    """Set an attribute that there may be."""
    share = state.share
    exists = False if flags & XATTR_CREATE else True if flags & XATTR_REPLACE else None
    if exists is False and (name in DESCRIPTORS or name in DOS_ATTRIBUTES or name in CREATION_TIME):
        _refuse(errno.EEXIST)  # every file has these
    try:
        if name in DESCRIPTORS:
            parts = _settable(DESCRIPTORS[name].set, value)
            await state.by_path(inode, lambda path: share.set_security(path, parts, value, expect=inode.expect))
        elif name in DOS_ATTRIBUTES:
            (bits,) = _unpack(_ATTRIBUTES, value)
            await _set_basic(state, inode, Basics(attributes=bits & SETTABLE or NORMAL))
        elif name in CREATION_TIME:
            (filetime,) = _unpack(_FILETIME, value)
            if not 0 < filetime <= MAX_FILETIME:  # these are orders, not times
                _refuse(errno.EINVAL)
            await _set_basic(state, inode, Basics(created=filetime_to_ns(filetime) or 1))
        elif name.startswith(STREAM):
            stream = _stream_name(state, name)
            await state.by_path(
                inode, lambda path: share.write_stream(path, stream, value, expect=inode.expect, exists=exists)
            )
        else:
            if not value:
                _refuse(errno.EOPNOTSUPP)  # for a server an empty value is none
            await _set_attribute(state, inode, name, value, exists)
    finally:
        state.directories.note_change_of(inode)


def remove(state: State, inode: Inode, name: bytes) -> Awaitable[None]:
    """Remove an attribute; ENODATA if there is none of that name."""
    _check(state, name)
    if name in DESCRIPTORS or name in DOS_ATTRIBUTES or name in CREATION_TIME:
        _refuse(errno.EOPNOTSUPP)
    return _remove(state, inode, name)


async def _remove(state: State, inode: Inode, name: bytes) -> None:
    """Remove an attribute that there may be."""
    share = state.share
    try:
        if name.startswith(STREAM):
            stream = _stream_name(state, name)
            await state.by_path(inode, lambda path: share.remove_stream(path, stream, inode.expect))
        else:
            await _set_attribute(state, inode, name, b"", True)
    finally:
        state.directories.note_change_of(inode)


async def _set_attribute(state: State, inode: Inode, name: bytes, value: bytes, exists: bool | None) -> None:
    """Set or remove an extended attribute of the server's."""
    short = name.removeprefix(USER)
    await state.by_path(
        inode,
        lambda path: state.share.set_extended_attribute(path, short, value, expect=inode.expect, exists=exists),
    )


async def _set_basic(state: State, inode: Inode, wish: Basics) -> None:
    """Set the time of birth or the FILE_ATTRIBUTE bits."""
    told = await set_basic(state, inode, wish)
    state.inodes.adopt(inode, told.file_id, told.created)


def _stream_name(state: State, name: bytes) -> str:
    """Return the name of the stream that an attribute stands for.

    A server that does not say that it has streams may make a file with a colon in its name.
    """
    if not state.has_streams:
        _refuse(errno.EOPNOTSUPP)
    try:
        return name.removeprefix(STREAM).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        _refuse(errno.EILSEQ)


def _settable(parts: int, value: bytes) -> int:
    """Return which of the parts are in a descriptor to be set; EINVAL for what is none.

    A list of access rights that is not there is not set either: servers would let everybody do everything.
    """
    try:
        descriptor = SecurityDescriptor.parse(value)
    except WireError:
        _refuse(errno.EINVAL)
    present = {
        SecurityInformation.OWNER: descriptor.owner is not None,
        SecurityInformation.GROUP: descriptor.group is not None,
        SecurityInformation.DACL: bool(descriptor.control & Control.DACL_PRESENT),
        SecurityInformation.SACL: bool(descriptor.control & Control.SACL_PRESENT),
    }
    found = sum(int(part) for part, is_there in present.items() if is_there and part & parts)
    return found or _refuse(errno.EINVAL)


def _unpack(layout: Struct, value: bytes) -> tuple[int, ...]:
    """Take a number apart; ERANGE, as the kernel's client has it, for a value of another size."""
    if len(value) != layout.size:
        _refuse(errno.ERANGE)
    return layout.unpack(value)
