"""What every record owes: it comes back as it went, and no bytes whatsoever do more than raise WireError."""

from __future__ import annotations

import importlib
import pkgutil
from random import Random

import pytest
from fuse_records import FUSE_KINDS
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_records import KINDS as SMB_KINDS
from wire_records import Kind, records_of

import smb3fs.wire
from smb3fs.errors import WireError
from smb3fs.wire.header import Command, Header

KINDS = [*SMB_KINDS, *FUSE_KINDS]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[f"{number}-{kind.name}" for number, kind in enumerate(KINDS)])
HEADER = Header(Command.ECHO, 1).encode()


def survives(kind: Kind, pdu: bytes) -> None:
    """Feed the parser: a value or WireError, and a value can be looked at."""
    try:
        value = kind.parse(memoryview(pdu))
    except WireError:
        return
    assert repr(value)
    assert value == value


def test_no_record_is_missing_here() -> None:
    modules = [
        importlib.import_module(f"smb3fs.wire.{module.name}") for module in pkgutil.iter_modules(smb3fs.wire.__path__)
    ]
    # The first three are what others are made of, the others are parts of NEGOTIATE, told apart by where they stand.
    parts = {
        "EmptyBody",
        "_LeaseBreakAnswer",
        "_OplockBreak",
        "PreauthIntegrity",
        "Encryption",
        "NetName",
        "Signing",
        "PosixExtensions",
        "Request",
    }
    assert records_of(modules) - parts == {kind.name for kind in KINDS} - {"Header.async"}


@each_kind
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_it_comes_back_as_it_went_and_survives_every_cut(kind: Kind, data: st.DataObject) -> None:
    record = data.draw(kind.strategy)
    pdu = kind.frame(record)
    assert kind.parse(memoryview(pdu)) == record
    # A compound's elements are padded, and so are some servers' single messages.
    assert kind.parse(memoryview(pdu + bytes(7))) == record
    for length in range(len(pdu)):
        survives(kind, pdu[:length])


@each_kind
@given(junk=st.binary(max_size=200))
@settings(max_examples=15, deadline=None)
def test_random_bytes_do_no_more_than_raise(kind: Kind, junk: bytes) -> None:
    survives(kind, junk)
    survives(kind, HEADER + junk)


@each_kind
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=4, deadline=None)
def test_a_corrupted_message_does_no_more_than_raise(kind: Kind, data: st.DataObject, seed: int) -> None:
    pdu = kind.frame(data.draw(kind.strategy))
    # To draw a record costs more than to read it: each is damaged in many ways, which follow from the seed.
    random = Random(seed)
    for _ in range(25):
        damaged = bytearray(pdu)
        for _ in range(random.randint(1, 8)):
            # Interesting values at interesting places: offsets and lengths are read from 16 or 32 of these bits.
            damaged[random.randrange(len(pdu))] = random.choice((0, 1, 7, 8, 0x40, 0x7F, 0x80, 0xFF))
        survives(kind, bytes(damaged))
