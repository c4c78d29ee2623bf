"""Captured messages about leases, oplocks and durable handles: what they mean, read to the last bit."""

from __future__ import annotations

from typing import Any

import lease_vectors as v
import pytest

from smb3fs.errors import Status, WireError
from smb3fs.wire.create import CreateResponse, FileId, OplockLevel
from smb3fs.wire.durable import (
    DURABLE_HANDLE,
    DURABLE_HANDLE_V2,
    DurableHandleReconnectV2,
    DurableHandleRequest,
    DurableHandleResponse,
    DurableHandleResponseV2,
)
from smb3fs.wire.header import UNSOLICITED_MESSAGE_ID, Command, Header
from smb3fs.wire.lease import (
    ACK_REQUIRED,
    LEASE_CONTEXT,
    LeaseBreakNotification,
    LeaseBreakResponse,
    LeaseContext,
    LeaseContextV2,
    LeaseState,
    OplockBreakNotification,
    OplockBreakResponse,
    parse_break,
    parse_lease,
)

KEY = bytes.fromhex("00112233445566778899aabbccddeeff")
PARENT = bytes.fromhex("0f1e2d3c4b5a69788796a5b4c3d2e1f0")
RWH = LeaseState.READ | LeaseState.WRITE | LeaseState.HANDLE
RH = LeaseState.READ | LeaseState.HANDLE


@pytest.mark.parametrize(
    ("message", "cls"),
    [
        (v.CREATE_LEASED_RESPONSE, CreateResponse),
        (v.CREATE_RECONNECT_RESPONSE, CreateResponse),
        (v.CREATE_LEASED_2_1_RESPONSE, CreateResponse),
        (v.LEASE_BREAK_NOTIFICATION, LeaseBreakNotification),
        (v.LEASE_BREAK_RESPONSE, LeaseBreakResponse),
        (v.OPLOCK_BREAK_NOTIFICATION, OplockBreakNotification),
        (v.OPLOCK_BREAK_RESPONSE, OplockBreakResponse),
    ],
)
def test_the_same_bytes_again(message: bytes, cls: Any) -> None:
    assert Header.parse(memoryview(message)).encode() + cls.parse(memoryview(message)).encode() == message


def contexts(message: bytes) -> dict[bytes, bytes]:
    """The create contexts of an answer."""
    return {context.name: context.data for context in CreateResponse.parse(memoryview(message)).contexts}


def test_a_lease_and_a_durable_handle_are_granted() -> None:
    assert CreateResponse.parse(memoryview(v.CREATE_LEASED_RESPONSE)).oplock_level == OplockLevel.LEASE
    granted = contexts(v.CREATE_LEASED_RESPONSE)
    lease = LeaseContextV2(KEY, RWH, epoch=1)  # a server without directory leases has no use for the parent's key
    assert parse_lease(granted[LEASE_CONTEXT]) == lease
    assert lease.encode() == granted[LEASE_CONTEXT]
    assert DurableHandleResponseV2.parse(granted[DURABLE_HANDLE_V2]) == DurableHandleResponseV2(60_000, 0)


def test_a_claimed_handle_has_its_lease_again() -> None:
    assert parse_lease(contexts(v.CREATE_RECONNECT_RESPONSE)[LEASE_CONTEXT]) == LeaseContextV2(PARENT, RWH, epoch=1)


def test_the_first_version_is_told_by_its_length() -> None:
    granted = contexts(v.CREATE_LEASED_2_1_RESPONSE)
    assert parse_lease(granted[LEASE_CONTEXT]) == LeaseContext(KEY, RWH)
    assert LeaseContext(KEY, RWH).encode() == granted[LEASE_CONTEXT]
    assert DurableHandleResponse.parse(granted[DURABLE_HANDLE]).encode() == granted[DURABLE_HANDLE]
    with pytest.raises(WireError):
        parse_lease(granted[LEASE_CONTEXT][:31])


def test_breaks_are_told_apart_by_their_size() -> None:
    header = Header.parse(memoryview(v.LEASE_BREAK_NOTIFICATION))
    assert (header.command, header.message_id) == (Command.OPLOCK_BREAK, UNSOLICITED_MESSAGE_ID)
    assert (header.session_id, header.tree_id, header.status) == (0, 0, Status.SUCCESS)
    told = parse_break(memoryview(v.LEASE_BREAK_NOTIFICATION))
    assert told == LeaseBreakNotification(2, ACK_REQUIRED, KEY, RWH, RH)
    assert LeaseBreakResponse.parse(memoryview(v.LEASE_BREAK_RESPONSE)) == LeaseBreakResponse(KEY, RH)
    told = parse_break(memoryview(v.OPLOCK_BREAK_NOTIFICATION))
    assert isinstance(told, OplockBreakNotification)
    assert told.oplock_level == OplockLevel.II
    assert OplockBreakResponse.parse(memoryview(v.OPLOCK_BREAK_RESPONSE)).file_id == told.file_id
    for size in (0, 36, 43, 0xFFFF):
        other = v.LEASE_BREAK_NOTIFICATION[:64] + size.to_bytes(2, "little") + v.LEASE_BREAK_NOTIFICATION[66:]
        with pytest.raises(WireError):
            parse_break(memoryview(other))


def test_contexts_of_durable_handles_have_the_size_that_samba_checks() -> None:
    assert len(DurableHandleReconnectV2(FileId(1, 2), KEY).encode()) == 36
    assert DurableHandleRequest().encode() == bytes(16)
