"""What is attached to files, as Samba 4.17.12 sent it to requests of this package, and the limits of the parsers."""

from __future__ import annotations

import pytest

from smb3fs.errors import WireError
from smb3fs.wire.ea import ExtendedAttribute, FileFullEaInformation
from smb3fs.wire.security import Ace, AceType, Acl, Control, SecurityDescriptor
from smb3fs.wire.sid import EVERYONE, Sid
from smb3fs.wire.snapshots import SnapshotArray
from smb3fs.wire.streams import FileStreamInformation, Stream, stream_path

# One=1, Two=zwei
ATTRIBUTES = bytes.fromhex("10000000000301004f6e650031000000000000000003040054776f007a776569")
# A stream s of six bytes beside contents of five
STREAMS = bytes.fromhex(
    "2800000010000000060000000000000006000000000000003a0073003a0024004400410054004100"
    "000000000e000000050000000000000000200000000000003a003a0024004400410054004100"
)
# Owner, group and access list of a new file of mode 0744
DESCRIPTOR = bytes.fromhex(
    "0100048014000000300000000000000040000000"
    "010500000000000515000000070a592069d2314388ce515ee8030000"
    "01020000000000160200000001000000"
    "0200580003000000"
    "00002400ff011f00010500000000000515000000070a592069d2314388ce515ee8030000"
    "00001800a900120001020000000000160200000001000000"
    "00001400a9001200010100000000000100000000"
)
# No room for two, and two
NO_ROOM = bytes.fromhex("02000000000000006600000000000000")
TWO = bytes.fromhex("020000000200000066000000") + "@GMT-2025.06.01-12.30.00\0@GMT-2024.01.01-00.00.00\0\0".encode(
    "utf-16-le"
)


def test_attributes() -> None:
    told = FileFullEaInformation.parse(ATTRIBUTES)
    assert told.attributes == [ExtendedAttribute(b"One", b"1"), ExtendedAttribute(b"Two", b"zwei")]
    assert told.encode() == ATTRIBUTES
    assert told.attributes[0].is_called(b"oNE")
    assert not told.attributes[0].is_called(b"On")
    assert FileFullEaInformation.parse(b"").attributes == []


def test_streams() -> None:
    told = FileStreamInformation.parse(STREAMS)
    assert told.streams == [Stream(":s:$DATA", 6, 6), Stream("::$DATA", 5, 8192)]
    assert told.encode() == STREAMS
    assert [stream.name for stream in told.streams] == ["s", ""]


def test_names_of_streams() -> None:
    for full_name, name in ((":a b:$DATA", "a b"), (":i:$INDEX", ""), ("a:b:$DATA", ""), (":x", ""), ("", "")):
        assert Stream(full_name, 0).name == name
    assert stream_path("d\\f", "s") == "d\\f:s:$DATA"
    for wrong in ("", ":", "a:b", "a\\b", "a/b", "a\0"):
        with pytest.raises(ValueError, match="no name of a stream"):
            stream_path("f", wrong)


def test_a_security_descriptor() -> None:
    told = SecurityDescriptor.parse(DESCRIPTOR)
    owner = Sid(5, (21, 0x20590A07, 0x4331D269, 0x5E51CE88, 1000))
    assert (told.owner, told.group, told.sacl) == (owner, Sid(22, (2, 1)), None)
    assert told.control == Control.SELF_RELATIVE | Control.DACL_PRESENT
    assert told.dacl == Acl(
        [
            Ace.of(AceType.ACCESS_ALLOWED, owner, 0x001F01FF),
            Ace.of(AceType.ACCESS_ALLOWED, Sid(22, (2, 1)), 0x001200A9),
            Ace.of(AceType.ACCESS_ALLOWED, EVERYONE, 0x001200A9),
        ]
    )
    assert [ace.trustee for ace in told.dacl.aces] == [owner, Sid(22, (2, 1)), EVERYONE]
    assert told.encode() == DESCRIPTOR


def test_an_entry_of_a_kind_that_we_do_not_know_stays_as_it_is() -> None:
    ace = Ace(0x0B, 0, 1, b"any \x00 bytes")
    assert ace.trustee is None
    assert Acl.parse(Acl([ace]).encode()).aces == [ace]


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [
        (0, b"\x02", "revision 2"),
        (2, b"\x04\0", "control 0x0004"),
        (4, b"\xff\xff\0\0", "a part of a security descriptor"),
        (4, b"\x04\0\0\0", "a part of a security descriptor"),
        (66, b"\x07\0", "list of 7 bytes"),
        (66, b"\xff\xff", "outside"),
        (68, b"\x04\0", "do not fit"),
        (74, b"\x07\0", "entry of 7 bytes"),
        (74, b"\xff\xff", "outside"),
    ],
)
def test_descriptors_that_are_none(offset: int, value: bytes, complaint: str) -> None:
    damaged = DESCRIPTOR[:offset] + value + DESCRIPTOR[offset + len(value) :]
    with pytest.raises(WireError, match=complaint):
        SecurityDescriptor.parse(damaged)


def test_previous_versions() -> None:
    assert SnapshotArray.parse(NO_ROOM) == SnapshotArray(2, [], 102)
    told = SnapshotArray.parse(TWO)
    assert told.tokens == ["@GMT-2025.06.01-12.30.00", "@GMT-2024.01.01-00.00.00"]
    assert told.encode() == TWO
    for cut in (TWO[:-4], TWO[:4] + b"\x09" + TWO[5:]):
        with pytest.raises(WireError):
            SnapshotArray.parse(cut)


@pytest.mark.parametrize("step", [1, 12, 0xFFFF])
def test_chains_that_lead_astray(step: int) -> None:
    for parse, chain in ((FileFullEaInformation.parse, ATTRIBUTES), (FileStreamInformation.parse, STREAMS)):
        with pytest.raises(WireError, match="NextEntryOffset"):
            parse(step.to_bytes(4, "little") + chain[4:])
