"""Every record of FUSE's protocol with a strategy that makes it, and the way its bytes are framed."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from wire_records import DATA, U32, U64, Kind

from smb3fs.wire import fuse, fuse_attributes, fuse_locks, fuse_ranges, fuse_replies, fuse_requests, fuse_session

U16 = st.integers(0, 2**16 - 1)
S64 = st.integers(-(2**63), 2**63 - 1)
# Names as the kernel sends them: anything but NUL.
NAME = st.binary(max_size=40).map(lambda name: name.replace(b"\0", b"/"))
ATTR = st.builds(fuse_replies.Attr, U64, U64, U64, S64, S64, S64, *[U32] * 10)
ENTRY = st.builds(fuse_replies.EntryOut, U64, U64, U64, U64, U32, U32, ATTR)
OPEN = st.builds(fuse_replies.OpenOut, U64, U32)
DIRENT = st.builds(fuse_replies.Dirent, U64, U64, U32, NAME)
PAIRS = st.lists(st.tuples(U64, U64), max_size=5)
# Without INIT_EXT there are only 32 of them.
FLAGS = U32.map(lambda flags: flags & ~fuse_session.INIT_EXT) | U64.map(lambda flags: flags | fuse_session.INIT_EXT)


def _request(cls: Any, *fields: st.SearchStrategy[Any]) -> Kind:
    """What the kernel sends."""

    def frame(record: Any) -> bytes:
        body = record.encode()
        return fuse.InHeader(fuse.IN_HEADER.size + len(body), fuse.Opcode.LOOKUP, 1, 2).encode() + bytes(body)

    return Kind(cls.__name__, st.builds(cls, *fields), frame, cls.parse)


def _reply(cls: Any, *fields: st.SearchStrategy[Any]) -> Kind:
    """What is sent to the kernel."""

    def frame(record: Any) -> bytes:
        body = record.encode()
        return fuse.OutHeader(fuse.OUT_HEADER.size + len(body), 0, 1).encode() + bytes(body)

    return Kind(cls.__name__, st.builds(cls, *fields), frame, cls.parse)


def _bare(cls: Any, strategy: st.SearchStrategy[Any]) -> Kind:
    """What stands for itself."""
    return Kind(cls.__name__, strategy, lambda record: bytes(record.encode()), cls.parse)


FUSE_KINDS = [
    _bare(fuse.InHeader, st.builds(fuse.InHeader, U32, U32, U64, U64, U32, U32, U32, U16)),
    _bare(fuse.OutHeader, st.builds(fuse.OutHeader, U32, st.integers(-511, 0), U64)),
    _request(fuse.Name, NAME),
    _request(fuse.Nothing),
    _request(fuse_session.InitIn, U32, U32, U32, FLAGS),
    _reply(fuse_session.InitOut, U32, U32, U32, U64, U16, U16, U32, U32, U16),
    _request(fuse_session.InterruptIn, U64),
    _request(fuse_session.ForgetIn, U64),
    _request(fuse_session.BatchForgetIn, PAIRS),
    _reply(fuse_session.InvalInode, U64, S64, S64),
    _reply(fuse_session.InvalEntry, U64, NAME, U32),
    _reply(fuse_session.Store, U64, U64, U32),
    _reply(fuse_session.Delete, U64, U64, NAME),
    _request(fuse_attributes.GetattrIn, U32, U64),
    _request(fuse_attributes.StatxIn, U32, U64, U32, U32),
    _request(fuse_attributes.SetattrIn, U32, U64, U64, U64, S64, S64, S64, U32, U32, U32, U32, U32, U32),
    _request(fuse_attributes.AccessIn, U32),
    _request(fuse_attributes.SetxattrIn, U32, NAME, DATA),
    _request(fuse_attributes.GetxattrIn, U32, NAME),
    _request(fuse_attributes.ListxattrIn, U32),
    _request(fuse_requests.OpenIn, U32, U32),
    _request(fuse_requests.CreateIn, U32, U32, U32, U32, NAME),
    _request(fuse_requests.ReleaseIn, U64, U32, U32, U64),
    _request(fuse_requests.FlushIn, U64, U64),
    _request(fuse_requests.FsyncIn, U64, U32),
    _request(fuse_requests.ReadIn, U64, U64, U32, U32, U64, U32),
    _request(fuse_requests.WriteIn, U64, U64, U32, U64, U32, DATA),
    _request(fuse_requests.MknodIn, U32, U32, U32, NAME),
    _request(fuse_requests.MkdirIn, U32, U32, NAME),
    _request(fuse_requests.SymlinkIn, NAME, NAME),
    _request(fuse_requests.LinkIn, U64, NAME),
    _request(fuse_requests.RenameIn, U64, NAME, NAME),
    _request(fuse_requests.Rename2In, U64, U32, NAME, NAME),
    _request(fuse_locks.LkIn, U64, U64, U64, U64, U32, U32, U32),
    _reply(fuse_locks.LkOut, U64, U64, U32, U32),
    _request(fuse_ranges.LseekIn, U64, U64, U32),
    _reply(fuse_ranges.LseekOut, U64),
    _request(fuse_ranges.FallocateIn, U64, U64, U64, U32),
    _request(fuse_ranges.CopyFileRangeIn, U64, U64, U64, U64, U64, U64, U64),
    _reply(fuse_ranges.CopyFileRangeOut, U64),
    _bare(fuse_replies.Dirent, DIRENT),
    _bare(fuse_replies.DirentPlus, st.builds(fuse_replies.DirentPlus, ENTRY, DIRENT)),
    Kind("EntryOut", ENTRY, _reply(fuse_replies.EntryOut).frame, fuse_replies.EntryOut.parse),
    _reply(fuse_replies.AttrOut, U64, U32, ATTR),
    _reply(fuse_replies.OpenOut, U64, U32),
    _reply(fuse_replies.CreateOut, ENTRY, OPEN),
    _reply(fuse_replies.WriteOut, U32),
    _reply(fuse_replies.StatfsOut, U64, U64, U64, U64, U64, U32, U32, U32),
    _reply(
        fuse_replies.StatxOut,
        *[U64, U32, U32, U32, U64, U32, U32, U32, U16, U64, U64, U64, U64],
        *[S64, U32] * 4,
        *[U32] * 4,
    ),
]
