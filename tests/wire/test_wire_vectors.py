"""Captured messages of a real server and a real client: what they mean, and that we would have sent the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import wire_vectors as v

from smb3fs.errors import Status
from smb3fs.wire import negotiate
from smb3fs.wire.control import EchoResponse, ErrorResponse
from smb3fs.wire.create import CreateAction, CreateRequest, CreateResponse, Disposition, FileAttribute, FileId
from smb3fs.wire.create_contexts import QUERY_MAXIMAL_ACCESS, QUERY_ON_DISK_ID, DiskId, MaximalAccess
from smb3fs.wire.directory import DirectoryEntry, encode_page, entry_offsets
from smb3fs.wire.header import FLAG_RELATED, FLAG_RESPONSE, FLAG_SIGNED, RELATED_ID64, Command, Header, split_compound
from smb3fs.wire.infoclass import (
    STOP_UPDATING_TIME,
    FileAllInformation,
    FileAttributeTagInformation,
    FileBasicInformation,
    FileDispositionInformation,
    FileFsAttributeInformation,
    FileFsFullSizeInformation,
    FileFsVolumeInformation,
    FileInternalInformation,
    FileNetworkOpenInformation,
    FileRenameInformation,
    FileStandardInformation,
    InformationClass,
)
from smb3fs.wire.io import (
    CLOSE_POSTQUERY_ATTRIBUTES,
    CloseRequest,
    CloseResponse,
    FlushResponse,
    ReadRequest,
    ReadResponse,
    WriteRequest,
    WriteResponse,
)
from smb3fs.wire.ioctl import (
    FSCTL_VALIDATE_NEGOTIATE_INFO,
    IoctlRequest,
    IoctlResponse,
    ValidateNegotiateRequest,
    ValidateNegotiateResponse,
)
from smb3fs.wire.negotiate import Capability, NegotiateRequest, NegotiateResponse
from smb3fs.wire.query import (
    InfoType,
    QueryDirectoryRequest,
    QueryDirectoryResponse,
    QueryInfoRequest,
    QueryInfoResponse,
    SetInfoRequest,
    SetInfoResponse,
)
from smb3fs.wire.session import LogoffResponse, SessionSetupRequest, SessionSetupResponse
from smb3fs.wire.tree import (
    ShareType,
    TreeConnectRequest,
    TreeConnectResponse,
    TreeDisconnectRequest,
    TreeDisconnectResponse,
)

CONTENTS = b"the contents of a vector\n"
NO_FILE = FileId(RELATED_ID64, RELATED_ID64)
# Where the priority of [MS-SMB2] 2.2.1.2 stands, which smbclient sets.
PRIORITY = 0x10

CANONICAL: list[tuple[str, Any]] = [
    ("NEGOTIATE_REQUEST", NegotiateRequest),
    ("NEGOTIATE_RESPONSE", NegotiateResponse),
    ("NEGOTIATE_REQUEST_3_0_2", NegotiateRequest),
    ("NEGOTIATE_RESPONSE_3_0_2", NegotiateResponse),
    ("SESSION_SETUP_REQUEST", SessionSetupRequest),
    ("SESSION_SETUP_CHALLENGE", SessionSetupResponse),
    ("SESSION_SETUP_AUTHENTICATE", SessionSetupRequest),
    ("SESSION_SETUP_RESPONSE", SessionSetupResponse),
    ("TREE_CONNECT_REQUEST", TreeConnectRequest),
    ("TREE_CONNECT_RESPONSE", TreeConnectResponse),
    ("TREE_DISCONNECT_REQUEST", TreeDisconnectRequest),
    ("TREE_DISCONNECT_RESPONSE", TreeDisconnectResponse),
    ("ERROR_RESPONSE", ErrorResponse),
    ("IOCTL_EMPTY_REQUEST", IoctlRequest),
    ("VALIDATE_NEGOTIATE_RESPONSE", IoctlResponse),
    ("CREATE_DIRECTORY_RESPONSE", CreateResponse),
    ("CREATE_ROOT_REQUEST", CreateRequest),
    ("CREATE_FILE_RESPONSE", CreateResponse),
    ("WRITE_REQUEST", WriteRequest),
    ("WRITE_RESPONSE", WriteResponse),
    ("CLOSE_REQUEST", CloseRequest),
    ("CLOSE_RESPONSE", CloseResponse),
    ("QUERY_INFO_ALL_REQUEST", QueryInfoRequest),
    ("QUERY_INFO_ALL_RESPONSE", QueryInfoResponse),
    ("READ_RESPONSE", ReadResponse),
    ("SET_INFO_RENAME_REQUEST", SetInfoRequest),
    ("SET_INFO_RESPONSE", SetInfoResponse),
    ("SET_INFO_BASIC_REQUEST", SetInfoRequest),
    ("SET_INFO_DISPOSITION_REQUEST", SetInfoRequest),
    ("QUERY_DIRECTORY_REQUEST", QueryDirectoryRequest),
    ("QUERY_DIRECTORY_RESPONSE", QueryDirectoryResponse),
    ("QUERY_DIRECTORY_END", ErrorResponse),
    ("CREATE_NOT_FOUND", ErrorResponse),
    ("FLUSH_RESPONSE", FlushResponse),
    ("ECHO_RESPONSE", EchoResponse),
    ("LOGOFF_RESPONSE", LogoffResponse),
    ("CLOSE_ATTRIBUTES_RESPONSE", CloseResponse),
]


def pdu(name: str) -> memoryview:
    """The captured message."""
    return memoryview(getattr(v, name))


def encoded(record: Any) -> bytes:
    """The body, and what is sent behind it."""
    return record.encode() + bytes(getattr(record, "payload", b""))


@pytest.mark.parametrize(("name", "cls"), CANONICAL, ids=[name for name, _ in CANONICAL])
def test_the_same_bytes_again(name: str, cls: Any) -> None:
    message = pdu(name)
    assert Header.parse(message).encode() + encoded(cls.parse(message)) == bytes(message)


def test_what_differs_is_padding_or_a_hint() -> None:
    """The places where the specification leaves the sender a choice, and another one than ours was taken."""
    for message in (v.CREATE_DIRECTORY_REQUEST, v.CREATE_FILE_REQUEST):
        body = encoded(CreateRequest.parse(memoryview(message)))
        assert body + bytes(2) == message[64:]

    body = encoded(ReadRequest.parse(pdu("READ_REQUEST")))
    assert body[:2] + b"\0" + body[3:] == v.READ_REQUEST[64:]  # Padding
    assert body[2] == 64 + 16

    for message in (v.IOCTL_REQUEST, v.VALIDATE_NEGOTIATE_REQUEST):
        body = encoded(IoctlRequest.parse(memoryview(message)))
        assert body[36:40] == bytes(4)  # OutputOffset
        assert body[:36] + b"\x78\0\0\0" + body[40:] == message[64:]


def test_headers() -> None:
    assert Header.parse(pdu("NEGOTIATE_REQUEST")) == Header(Command.NEGOTIATE, 0, credits=31)
    assert Header.parse(pdu("CREATE_NOT_FOUND")) == Header(
        Command.CREATE,
        576,
        Status.OBJECT_NAME_NOT_FOUND,
        credit_charge=1,
        credits=1,
        flags=FLAG_RESPONSE | PRIORITY,
        tree_id=0x1127C849,
        session_id=0x6D28CFBB,
    )
    signed = Header.parse(pdu("TREE_CONNECT_REQUEST"))
    assert signed.flags == FLAG_SIGNED | PRIORITY
    assert signed.signature == v.TREE_CONNECT_REQUEST[48:64] != bytes(16)
    # One credit for each 64 KiB that the answer may have.
    assert Header.parse(pdu("QUERY_DIRECTORY_REQUEST")).credit_charge == 128


def test_negotiate() -> None:
    request = NegotiateRequest.parse(pdu("NEGOTIATE_REQUEST"))
    assert request.dialects == [0x0202, 0x0210, 0x0300, 0x0302, 0x0311]
    assert request.security_mode == negotiate.SIGNING_ENABLED
    assert request.capabilities == 0x7F
    assert request.client_guid == v.NEGOTIATE_REQUEST[76:92]
    preauth, encryption, signing, name = request.contexts
    assert isinstance(preauth, negotiate.PreauthIntegrity)
    assert preauth.hash_algorithms == [negotiate.HashAlgorithm.SHA_512]
    assert len(preauth.salt) == 32
    assert encryption == negotiate.Encryption([2, 1, 4, 3])
    assert signing == negotiate.Signing([2, 1, 0])
    assert name == negotiate.NetName("127.0.0.1")

    response = NegotiateResponse.parse(pdu("NEGOTIATE_RESPONSE"))
    assert response.dialect == negotiate.Dialect.SMB_3_1_1
    assert response.server_guid == b"vectors".ljust(16, b"\0")
    assert response.capabilities == (
        Capability.DFS | Capability.LEASING | Capability.LARGE_MTU | Capability.MULTI_CHANNEL
    )
    assert (response.max_transact, response.max_read, response.max_write) == (8 << 20, 8 << 20, 8 << 20)
    assert response.security_buffer.endswith(b"not_defined_in_RFC4178@please_ignore")
    assert response.contexts[1:] == [negotiate.Encryption([2]), negotiate.Signing([2])]

    older = NegotiateResponse.parse(pdu("NEGOTIATE_RESPONSE_3_0_2"))
    assert (older.dialect, older.contexts) == (negotiate.Dialect.SMB_3_0_2, [])
    assert Capability.ENCRYPTION in Capability(older.capabilities)
    assert NegotiateRequest.parse(pdu("NEGOTIATE_REQUEST_3_0_2")).dialects == [0x0302]


def test_session_and_tree() -> None:
    request = SessionSetupRequest.parse(pdu("SESSION_SETUP_AUTHENTICATE"))
    assert (request.flags, request.security_mode, request.previous_session_id) == (0, 1, 0)
    assert b"NTLMSSP\0\x03" in request.security_buffer
    assert Header.parse(pdu("SESSION_SETUP_CHALLENGE")).status == Status.MORE_PROCESSING_REQUIRED
    assert b"NTLMSSP\0\x02" in SessionSetupResponse.parse(pdu("SESSION_SETUP_CHALLENGE")).security_buffer
    assert SessionSetupResponse.parse(pdu("SESSION_SETUP_RESPONSE")).session_flags == 0
    assert TreeConnectRequest.parse(pdu("TREE_CONNECT_REQUEST")) == TreeConnectRequest(r"\\127.0.0.1\data")
    assert TreeConnectResponse.parse(pdu("TREE_CONNECT_RESPONSE")) == TreeConnectResponse(
        ShareType.DISK, 0, 0, 0x001F01FF
    )


def test_create_and_close() -> None:
    request = CreateRequest.parse(pdu("CREATE_DIRECTORY_REQUEST"))
    assert (request.name, request.disposition, request.create_options) == ("sub", Disposition.CREATE, 1)
    assert request.contexts == []
    assert CreateRequest.parse(pdu("CREATE_ROOT_REQUEST")).name == ""
    assert CreateRequest.parse(pdu("CREATE_FILE_REQUEST")).name == r"sub\put.txt"
    response = CreateResponse.parse(pdu("CREATE_DIRECTORY_RESPONSE"))
    assert response.create_action == CreateAction.CREATED
    assert response.file_attributes == FileAttribute.DIRECTORY
    assert response.creation_time == response.change_time == 0x01DD796CCB883ECB
    assert response.file_id == FileId(0x993D2BFA, 0xD2D3D649)

    opened = CreateResponse.parse(pdu("CREATE_FILE_RESPONSE"))
    assert CloseRequest.parse(pdu("CLOSE_REQUEST")) == CloseRequest(opened.file_id)
    assert CloseResponse.parse(pdu("CLOSE_RESPONSE")) == CloseResponse()
    closed = CloseResponse.parse(pdu("CLOSE_ATTRIBUTES_RESPONSE"))
    assert (closed.flags, closed.end_of_file, closed.allocation_size) == (CLOSE_POSTQUERY_ATTRIBUTES, 7, 4096)
    assert closed.last_write_time == closed.change_time == 132_500_000_000_000_000


def test_read_and_write() -> None:
    opened = CreateResponse.parse(pdu("CREATE_FILE_RESPONSE"))
    assert WriteRequest.parse(pdu("WRITE_REQUEST")) == WriteRequest(opened.file_id, 0, CONTENTS)
    assert WriteResponse.parse(pdu("WRITE_RESPONSE")) == WriteResponse(len(CONTENTS))
    request = ReadRequest.parse(pdu("READ_REQUEST"))
    assert (request.offset, request.length, request.minimum_count) == (0, len(CONTENTS), 0)
    assert ReadResponse.parse(pdu("READ_RESPONSE")) == ReadResponse(memoryview(CONTENTS))


def test_error_and_ioctl() -> None:
    for name, status in (("ERROR_RESPONSE", 0xC0000225), ("QUERY_DIRECTORY_END", Status.NO_MORE_FILES)):
        assert Header.parse(pdu(name)).status == status
        assert ErrorResponse.parse(pdu(name)) == ErrorResponse()
    request = IoctlRequest.parse(pdu("VALIDATE_NEGOTIATE_REQUEST"))
    assert (request.ctl_code, request.file_id, request.max_output, request.flags) == (
        FSCTL_VALIDATE_NEGOTIATE_INFO,
        NO_FILE,
        24,
        1,
    )
    ours = NegotiateRequest.parse(pdu("NEGOTIATE_REQUEST_3_0_2"))
    validate = ValidateNegotiateRequest(ours.capabilities, ours.client_guid, ours.security_mode, ours.dialects)
    assert ValidateNegotiateRequest.parse(request.input) == validate
    assert validate.encode() == request.input
    theirs = NegotiateResponse.parse(pdu("NEGOTIATE_RESPONSE_3_0_2"))
    answer = IoctlResponse.parse(pdu("VALIDATE_NEGOTIATE_RESPONSE"))
    confirmed = ValidateNegotiateResponse(theirs.capabilities, theirs.server_guid, theirs.security_mode, theirs.dialect)
    assert ValidateNegotiateResponse.parse(answer.output) == confirmed
    assert confirmed.encode() == answer.output


def information(name: str, parse: Callable[[memoryview], Any]) -> Any:
    """What a captured QUERY_INFO brought, after it has been written again."""
    data = QueryInfoResponse.parse(pdu(name)).data
    value = parse(data)
    assert value.encode() == data
    return value


def test_query_info() -> None:
    request = QueryInfoRequest.parse(pdu("QUERY_INFO_ALL_REQUEST"))
    assert (request.info_type, request.information_class) == (InfoType.FILE, InformationClass.FILE_ALL)
    assert (request.output_length, request.input) == (0xFFFF, b"")
    everything = information("QUERY_INFO_ALL_RESPONSE", FileAllInformation.parse)
    assert everything.standard == FileStandardInformation(4096, len(CONTENTS), 1, False, False)
    assert everything.basic.file_attributes == FileAttribute.ARCHIVE
    assert everything.name == r"\sub\put.txt"

    basic = information("QUERY_INFO_BASIC_RESPONSE", FileBasicInformation.parse)
    assert basic.last_write_time == 132_500_000_000_000_000
    standard = information("QUERY_INFO_STANDARD_RESPONSE", FileStandardInformation.parse)
    assert standard == FileStandardInformation(4096, 7, 1, False, False)
    assert information("QUERY_INFO_INTERNAL_RESPONSE", FileInternalInformation.parse).index_number == 2245453
    network = information("QUERY_INFO_NETWORK_OPEN_RESPONSE", FileNetworkOpenInformation.parse)
    assert (network.end_of_file, network.allocation_size) == (7, 4096)
    assert (network.creation_time, network.file_attributes) == (basic.creation_time, basic.file_attributes)
    tag = information("QUERY_INFO_ATTRIBUTE_TAG_RESPONSE", FileAttributeTagInformation.parse)
    assert tag == FileAttributeTagInformation(FileAttribute.ARCHIVE, 0)


def test_a_name_that_was_cut() -> None:
    message = pdu("QUERY_INFO_CUT_RESPONSE")
    assert Header.parse(message).status == Status.BUFFER_OVERFLOW
    data = QueryInfoResponse.parse(message).data
    assert len(data) == 104
    assert FileAllInformation.parse(data).name == "\\n"
    assert FileAllInformation.parse(data[:103]).name == "\\"
    assert FileAllInformation.parse(data[:100]).name == ""


def test_set_info() -> None:
    rename = SetInfoRequest.parse(pdu("SET_INFO_RENAME_REQUEST"))
    assert (rename.info_type, rename.information_class) == (InfoType.FILE, InformationClass.FILE_RENAME)
    assert FileRenameInformation.parse(rename.data) == FileRenameInformation(False, r"sub\renamed.txt")
    assert FileRenameInformation(False, r"sub\renamed.txt").encode() == rename.data
    basic = SetInfoRequest.parse(pdu("SET_INFO_BASIC_REQUEST"))
    value = FileBasicInformation.parse(basic.data)
    assert value == FileBasicInformation(
        STOP_UPDATING_TIME, STOP_UPDATING_TIME, 0, STOP_UPDATING_TIME, FileAttribute.ARCHIVE | FileAttribute.READONLY
    )
    assert value.encode() == basic.data
    disposition = SetInfoRequest.parse(pdu("SET_INFO_DISPOSITION_REQUEST"))
    assert disposition.information_class == InformationClass.FILE_DISPOSITION
    assert FileDispositionInformation.parse(disposition.data) == FileDispositionInformation(True)


def test_listing() -> None:
    request = QueryDirectoryRequest.parse(pdu("QUERY_DIRECTORY_REQUEST"))
    assert (request.pattern, request.information_class, request.output_length) == ("*", 37, 8 << 20)
    page = QueryDirectoryResponse.parse(pdu("QUERY_DIRECTORY_RESPONSE")).data
    entries = [DirectoryEntry.parse_at(page, offset) for offset in entry_offsets(page)]
    assert [entry.name for entry in entries] == [".", "..", "b", "longer name of a file.bin", "näme \U0001f600.txt"]
    assert [entry.file_id for entry in entries] == [2245408, 2245400, 2245453, 2245455, 2245454]
    assert [entry.file_attributes for entry in entries] == [0x10, 0x10, 0x20, 0x20, 0x20]
    assert (entries[2].end_of_file, entries[2].allocation_size) == (7, 4096)
    assert encode_page(entries) == page


def test_compound() -> None:
    elements = split_compound(pdu("COMPOUND_RESPONSE"))
    headers = [Header.parse(element) for element in elements]
    assert [header.command for header in headers] == [Command.CREATE, *[Command.QUERY_INFO] * 4, Command.CLOSE]
    assert [header.message_id for header in headers] == [4, 5, 6, 7, 8, 9]
    assert [header.flags for header in headers] == [FLAG_RESPONSE, *[FLAG_RESPONSE | FLAG_RELATED] * 5]
    assert sum(map(len, elements)) == len(v.COMPOUND_RESPONSE)

    created = CreateResponse.parse(elements[0])
    contexts = dict(created.contexts)
    assert list(contexts) == [QUERY_MAXIMAL_ACCESS, QUERY_ON_DISK_ID]
    assert MaximalAccess.parse(contexts[QUERY_MAXIMAL_ACCESS]) == MaximalAccess(0, 0x001F01FF)
    assert DiskId.parse(contexts[QUERY_ON_DISK_ID]) == DiskId(2245408, 0xFE00)
    body = created.encode()
    assert body == elements[0][64 : 64 + len(body)]

    everything, space, attribute, volume = (QueryInfoResponse.parse(element).data for element in elements[1:5])
    assert FileAllInformation.parse(everything).index_number == 2245408
    assert FileAllInformation.parse(everything).standard.directory is True
    assert FileFsFullSizeInformation.parse(space) == FileFsFullSizeInformation(264212084, 81741896, 81741896, 2, 512)
    assert FileFsAttributeInformation.parse(attribute) == FileFsAttributeInformation(0x1006F, 255, "NTFS")
    assert FileFsVolumeInformation.parse(volume).label == "data"
    for data, cls in (
        (space, FileFsFullSizeInformation),
        (attribute, FileFsAttributeInformation),
        (volume, FileFsVolumeInformation),
    ):
        assert cls.parse(data).encode() == data
    assert CloseResponse.parse(elements[5]) == CloseResponse()
