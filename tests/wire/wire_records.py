"""Every record of the wire package with a strategy that makes it, and the way its bytes are framed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from smb3fs.wire import (
    control,
    create,
    create_contexts,
    dfs,
    directory,
    durable,
    ea,
    infoclass,
    interfaces,
    io,
    ioctl,
    lease,
    lock,
    mfsymlink,
    negotiate,
    ntlm,
    posix,
    query,
    reparse,
    security,
    serverside,
    session,
    sid,
    snapshots,
    streams,
    tree,
)
from smb3fs.wire.codec import from_utf16
from smb3fs.wire.header import FLAG_ASYNC, FLAG_RESPONSE, Command, Header, TransformHeader

U8 = st.integers(0, 2**8 - 1)
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
GUID = st.binary(min_size=16, max_size=16)
DATA = st.binary(max_size=40)
VIEW = DATA.map(memoryview)
BOOL = st.booleans()
# Any 16-bit units whatsoever: unpaired surrogates are names too.
NAME = st.binary(max_size=40).map(lambda data: from_utf16(data[: len(data) & ~1]))
SHORTS = st.lists(U16, max_size=6)
FILE_ID = st.builds(create.FileId, U64, U64)
CREATE_CONTEXTS = st.lists(st.builds(create.CreateContext, st.binary(min_size=4, max_size=17), DATA), max_size=4)
NEGOTIATE_CONTEXTS = st.lists(
    st.one_of(
        st.builds(negotiate.PreauthIntegrity, SHORTS, DATA),
        st.builds(negotiate.Encryption, SHORTS),
        st.builds(negotiate.NetName, NAME),
        st.builds(negotiate.Signing, SHORTS),
        st.builds(negotiate.PosixExtensions, DATA),
        st.builds(negotiate.UnknownContext, U16.filter(lambda type_: type_ not in {1, 2, 5, 8, 0x100}), DATA),
    ),
    max_size=5,
)


def _message(record: Any) -> bytes:
    """Frame a body as the element of a compound that it is, with its payload."""
    return Header(Command.ECHO, 1).encode() + record.encode() + bytes(getattr(record, "payload", b""))


def _bare(record: Any) -> bytes:
    """Frame nothing: headers and information stand for themselves."""
    return bytes(record.encode())


class Kind(NamedTuple):
    """One record: how to make it, frame it and read it."""

    name: str
    strategy: st.SearchStrategy[Any]
    frame: Callable[[Any], bytes]
    parse: Callable[[memoryview], Any]


def _body(cls: Any, *fields: st.SearchStrategy[Any]) -> Kind:
    """A message."""
    return Kind(cls.__name__, st.builds(cls, *fields), _message, cls.parse)


def _data(cls: Any, *fields: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]) -> Kind:
    """What a message or a context carries."""
    return Kind(cls.__name__, st.builds(cls, *fields, **more), _bare, cls.parse)


def _in_reparse_point(cls: Any, strategy: st.SearchStrategy[Any]) -> Kind:
    """What a reparse point carries, where its length stands."""
    return Kind(
        cls.__name__,
        strategy,
        lambda record: reparse.ReparsePoint(cls.tag, record.encode()).encode(),
        lambda pdu: cls.parse(reparse.ReparsePoint.parse(pdu).data),
    )


def _with_dialects(contexts: bool) -> st.SearchStrategy[list[int]]:
    """Lists of dialects that have 3.1.1 in them, or have not."""
    others = st.lists(U16.filter(lambda dialect: dialect != 0x0311), max_size=5)
    return others.map(lambda dialects: [*dialects, 0x0311]) if contexts else others


_TEXT = NAME.filter(lambda text: "\0" not in text)
_V1 = st.builds(dfs.Referral, st.just(1), U16, U16, _TEXT)
_V2 = st.builds(dfs.Referral, st.just(2), U16, U16, _TEXT, U32, _TEXT, _TEXT, U32)
_V3_TARGET = U16.map(lambda flags: flags & ~dfs.ReferralFlag.NAME_LIST)
_V3 = st.builds(dfs.Referral, st.sampled_from([3, 4]), U16, _V3_TARGET, _TEXT, U32, _TEXT, _TEXT)
_NAME_LIST = st.builds(
    dfs.NameListReferral,
    st.sampled_from([3, 4]),
    U16,
    U16.map(lambda flags: flags | dfs.ReferralFlag.NAME_LIST),
    U32,
    _TEXT,
    st.lists(_TEXT, max_size=4),
)
REFERRALS = st.lists(st.one_of(_V1, _V2, _V3, _NAME_LIST), max_size=4)
_NEGOTIATE_FIELDS = (GUID, U32, U32, U32, U32, U64, DATA)
_SID = st.builds(sid.Sid, st.integers(0, 2**48 - 1), st.lists(U32, max_size=15).map(tuple))
_OWNED = st.builds(posix.PosixCreated, U32, U32, U32, _SID, _SID)
_POSIX = st.builds(posix.FilePosixInformation, U64, U64, U64, U64, U64, U64, U32, U64, U32, _OWNED)
_BASIC = st.builds(infoclass.FileBasicInformation, U64, U64, U64, U64, U32)
_STANDARD = st.builds(infoclass.FileStandardInformation, U64, U64, U32, BOOL, BOOL)
ENTRY = st.builds(directory.DirectoryEntry, NAME, U64, U32, U64, U64, U64, U64, U64, U64, U32, U32)

_NFS = st.one_of(
    st.builds(reparse.NfsSpecialFile, st.just(int(reparse.NfsType.LNK)), NAME),
    st.builds(reparse.NfsSpecialFile, st.sampled_from([0x00524843, 0x004B4C42]), st.just(""), U32, U32),
    st.builds(reparse.NfsSpecialFile, U64.filter(lambda type_: type_ not in set(reparse.NfsType))),
)
ACE = st.builds(security.Ace, U8, U8, U32, DATA)
ACL = st.none() | st.builds(security.Acl, st.lists(ACE, max_size=4), U8)

CONTROL = U16.map(lambda control: control | 0x8014)  # self-relative, with both lists
TOKENS = st.lists(st.text("@GMT-0123456789.", min_size=1, max_size=30), min_size=1, max_size=4)

KEY = st.binary(min_size=24, max_size=24)

KINDS = [
    Kind(
        "Header",
        st.builds(Header, U16, U64, U32, U16, U16, st.just(FLAG_RESPONSE), U32, U64, st.just(0), GUID),
        _bare,
        Header.parse,
    ),
    Kind(
        "Header.async",
        st.builds(Header, U16, U64, U32, U16, U16, st.just(FLAG_ASYNC), st.just(0), U64, U64, GUID),
        _bare,
        Header.parse,
    ),
    _data(TransformHeader, U64, U32, GUID, GUID, U16),
    _body(negotiate.NegotiateRequest, _with_dialects(True), U16, U32, GUID, NEGOTIATE_CONTEXTS),
    _body(negotiate.NegotiateRequest, _with_dialects(False), U16, U32, GUID),
    _body(negotiate.NegotiateResponse, U16, st.just(0x0311), *_NEGOTIATE_FIELDS, NEGOTIATE_CONTEXTS),
    _body(negotiate.NegotiateResponse, U16, st.sampled_from([0x0202, 0x02FF, 0x0300, 0x0302]), *_NEGOTIATE_FIELDS),
    _body(session.SessionSetupRequest, DATA, U8, U8, U32, U64),
    _body(session.SessionSetupResponse, U16, DATA),
    _body(session.LogoffRequest),
    _body(session.LogoffResponse),
    _data(ntlm.NtlmNegotiate, U32),
    _data(ntlm.NtlmChallenge, U32, st.binary(min_size=8, max_size=8), DATA),
    _data(ntlm.NtlmAuthenticate, U32, DATA),
    _body(tree.TreeConnectRequest, NAME, U16),
    _body(tree.TreeConnectResponse, U8, U32, U32, U32),
    _body(tree.TreeDisconnectRequest),
    _body(tree.TreeDisconnectResponse),
    _body(create.CreateRequest, NAME, U32, U32, U32, U32, U32, U8, U32, CREATE_CONTEXTS),
    _body(create.CreateResponse, U8, U8, U32, U64, U64, U64, U64, U64, U64, U32, FILE_ID, CREATE_CONTEXTS),
    _body(io.ReadRequest, FILE_ID, U64, U32, U32, U8, U32),
    _body(io.ReadResponse, VIEW, U32),
    _body(io.WriteRequest, FILE_ID, U64, VIEW, U32),
    _body(io.WriteResponse, U32),
    _body(io.FlushRequest, FILE_ID),
    _body(io.FlushResponse),
    _body(io.CloseRequest, FILE_ID, U16),
    _body(io.CloseResponse, U16, U64, U64, U64, U64, U64, U64, U32),
    _body(
        lock.LockRequest,
        FILE_ID,
        st.lists(st.builds(lock.LockElement, U64, U64, U32), min_size=1, max_size=4),
        U32,
    ),
    _body(lock.LockResponse),
    _body(query.QueryDirectoryRequest, FILE_ID, U8, U32, NAME, U8, U32),
    _body(query.QueryDirectoryResponse, VIEW),
    _body(query.QueryInfoRequest, FILE_ID, U8, U8, U32, U32, U32, DATA),
    _body(query.QueryInfoResponse, VIEW),
    _body(query.SetInfoRequest, FILE_ID, U8, U8, DATA, U32),
    _body(query.SetInfoResponse),
    _body(ioctl.IoctlRequest, U32, FILE_ID, DATA, U32, U32),
    _body(ioctl.IoctlResponse, U32, FILE_ID, DATA),
    _data(ioctl.ValidateNegotiateRequest, U32, GUID, U16, SHORTS),
    _data(ioctl.ValidateNegotiateResponse, U32, GUID, U16, U16),
    _data(dfs.ReferralRequest, _TEXT, U16),
    _data(dfs.ReferralResponse, U16, U32, REFERRALS),
    _body(control.EchoRequest),
    _body(control.EchoResponse),
    _body(control.CancelRequest),
    _body(control.ErrorResponse, DATA, U8),
    _data(create_contexts.DiskId, U64, U64),
    Kind("Sid", _SID, _bare, sid.Sid.parse),
    _data(reparse.ReparsePoint, U32, DATA),
    _data(reparse.SymbolicLink, NAME, NAME, BOOL),
    _in_reparse_point(reparse.NfsSpecialFile, _NFS),
    _in_reparse_point(reparse.LxSymlink, st.builds(reparse.LxSymlink, DATA)),
    Kind(
        "MfSymlink",
        st.builds(mfsymlink.MfSymlink, st.binary(max_size=60)),
        _bare,
        lambda data: mfsymlink.MfSymlink.parse(data[: mfsymlink.SIZE]),
    ),
    _data(posix.PosixCreate, U32),
    Kind("PosixCreated", _OWNED, _bare, posix.PosixCreated.parse),
    Kind("FilePosixInformation", _POSIX, _bare, posix.FilePosixInformation.parse),
    Kind(
        "PosixDirectoryEntry",
        st.builds(posix.PosixDirectoryEntry, NAME, U64, U32, U64, U64, U64, U64, U64, U64, U32, _OWNED),
        _bare,
        lambda page: posix.PosixDirectoryEntry.parse_at(page, 0),
    ),
    _data(posix.FileFsPosixInformation, U32, U32, U64, U64, U64, U64, U64, U64),
    _data(create_contexts.MaximalAccess, U32, U32),
    _data(create_contexts.TimewarpToken, U64),
    _data(lease.LeaseContext, GUID, U32, U32),
    _data(lease.LeaseContextV2, GUID, U32, U32, GUID, U16),
    _body(lease.LeaseBreakNotification, U16, U32, GUID, U32, U32, U32, U32, U32),
    _body(lease.LeaseBreakAcknowledgment, GUID, U32),
    _body(lease.LeaseBreakResponse, GUID, U32),
    _body(lease.OplockBreakNotification, U8, FILE_ID),
    _body(lease.OplockBreakAcknowledgment, U8, FILE_ID),
    _body(lease.OplockBreakResponse, U8, FILE_ID),
    _data(durable.DurableHandleRequest),
    _data(durable.DurableHandleResponse),
    _data(durable.DurableHandleReconnect, FILE_ID),
    _data(durable.DurableHandleRequestV2, U32, U32, GUID),
    _data(durable.DurableHandleResponseV2, U32, U32),
    _data(durable.DurableHandleReconnectV2, FILE_ID, GUID, U32),
    _data(
        ea.FileFullEaInformation,
        st.lists(st.builds(ea.ExtendedAttribute, DATA, DATA, U8), min_size=1, max_size=4),
    ),
    _data(streams.FileStreamInformation, st.lists(st.builds(streams.Stream, NAME, U64, U64), min_size=1, max_size=4)),
    _data(security.Ace, U8, U8, U32, DATA),
    _data(security.Acl, st.lists(ACE, max_size=4), U8),
    _data(security.SecurityDescriptor, CONTROL, st.none() | _SID, st.none() | _SID, ACL, ACL, U8),
    _data(snapshots.SnapshotArray, U32, TOKENS),
    Kind(
        "NetworkInterface",
        st.builds(interfaces.NetworkInterface, U32, U32, U64, st.ip_addresses()),
        _bare,
        lambda pdu: interfaces.NetworkInterface.parse(pdu, 0),
    ),
    _data(snapshots.SnapshotArray, U32, st.just([]), U32),
    _data(serverside.ResumeKey, KEY),
    _data(serverside.CopyChunks, KEY, st.lists(st.builds(serverside.Chunk, U64, U64, U32), max_size=4)),
    _data(serverside.CopyChunksDone, U32, U32, U32),
    _data(serverside.SetSparse, BOOL),
    _data(serverside.ZeroData, U64, U64),
    _data(serverside.AllocatedRange, U64, U64),
    _data(serverside.DuplicateExtents, FILE_ID, U64, U64, U64),
    _data(infoclass.FileBasicInformation, U64, U64, U64, U64, U32),
    _data(infoclass.FileStandardInformation, U64, U64, U32, BOOL, BOOL),
    _data(infoclass.FileInternalInformation, U64),
    _data(
        infoclass.FileAllInformation,
        _BASIC,
        _STANDARD,
        U64,
        U32,
        NAME,
        access_flags=U32,
        current_byte_offset=U64,
        mode=U32,
        alignment_requirement=U32,
    ),
    _data(infoclass.FileNetworkOpenInformation, U64, U64, U64, U64, U64, U64, U32),
    _data(infoclass.FileAttributeTagInformation, U32, U32),
    _data(infoclass.FileRenameInformation, BOOL, NAME),
    _data(infoclass.FileLinkInformation, BOOL, NAME),
    _data(infoclass.FileDispositionInformation, BOOL),
    _data(infoclass.FileEndOfFileInformation, U64),
    _data(infoclass.FileAllocationInformation, U64),
    _data(infoclass.FileFsFullSizeInformation, U64, U64, U64, U32, U32),
    _data(infoclass.FileFsAttributeInformation, U32, U32, NAME),
    _data(infoclass.FileFsVolumeInformation, U64, U32, BOOL, NAME),
    Kind(
        "DirectoryEntry",
        ENTRY,
        _bare,
        lambda page: directory.DirectoryEntry.parse_at(page, 0),
    ),
]


def records_of(modules: list[Any]) -> set[str]:
    """Names of the classes in `modules` that can both be written and be read."""
    return {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and hasattr(value, "encode")
        and (hasattr(value, "parse") or hasattr(value, "parse_at"))
    }
