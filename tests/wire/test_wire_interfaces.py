"""FSCTL_QUERY_NETWORK_INTERFACE_INFO as smbd answers it, and as other servers may."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smb3fs.errors import WireError
from smb3fs.wire.interfaces import MAX_INTERFACES, NetworkInterface, encode_interfaces, parse_interfaces

GIGABIT = 1_000_000_000
# What smbd 4.25.1 answered that was told of two interfaces: speed=1000000000,capability=RSS.
SMBD = bytes.fromhex("98000000 03000000 01000000 00000000 00ca9a3b00000000 0200 0000 0a4f6686").ljust(
    152, b"\0"
) + bytes.fromhex("00000000 02000000 01000000 00000000 00ca9a3b00000000 0200 0000 0a4f6682").ljust(152, b"\0")
TOLD = [
    NetworkInterface(3, 1, GIGABIT, ip_address("10.79.102.134")),
    NetworkInterface(2, 1, GIGABIT, ip_address("10.79.102.130")),
]

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
INTERFACES = st.lists(st.builds(NetworkInterface, U32, U32, U64, ADDRESSES), max_size=4)


def test_what_smbd_answers() -> None:
    assert parse_interfaces(SMBD) == TOLD
    assert encode_interfaces(TOLD) == SMBD


def test_addresses_of_version_6_have_the_number_of_windows() -> None:
    told = NetworkInterface(1, 2, 0, ip_address("fd00::2"))
    expected = bytes.fromhex("00000000 01000000 02000000 00000000 0000000000000000 1700 0000 00000000") + (
        ip_address("fd00::2").packed
    )
    assert encode_interfaces([told]) == expected.ljust(152, b"\0")


def test_nothing_is_a_list_too_and_padding_behind_the_last_one_is_none() -> None:
    assert parse_interfaces(b"") == []
    assert parse_interfaces(SMBD + bytes(8)) == TOLD


def test_an_address_of_another_family_is_passed_over() -> None:
    other = bytearray(SMBD)
    other[24:26] = b"\x0a\0"  # AF_INET6 of Linux
    assert parse_interfaces(other) == TOLD[1:]


@pytest.mark.parametrize("step", [8, 16, 151, 155, 304, 0xFFFFFFF8])
def test_the_next_one_is_behind_this_one_and_inside(step: int) -> None:
    with pytest.raises(WireError):
        parse_interfaces(step.to_bytes(4, "little") + SMBD[4:])


def test_a_list_has_an_end() -> None:
    entries = [TOLD[0]] * (MAX_INTERFACES + 1)
    assert len(parse_interfaces(encode_interfaces(entries[1:]))) == MAX_INTERFACES
    with pytest.raises(WireError):
        parse_interfaces(encode_interfaces(entries))


@settings(max_examples=50, deadline=None)
@given(INTERFACES, st.data())
def test_it_comes_back_as_it_went_and_survives_every_cut(told: list[NetworkInterface], data: st.DataObject) -> None:
    encoded = encode_interfaces(told)
    assert parse_interfaces(encoded) == told
    cut = encoded[: data.draw(st.integers(0, len(encoded)))]
    with contextlib.suppress(WireError):
        assert parse_interfaces(cut) in (told, told[:-1], [])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 300))
@example(b"", 0)
def test_random_bytes_do_no_more_than_raise(junk: bytes, at: int) -> None:
    for data in (junk, SMBD[:at] + junk + SMBD[at + len(junk) :]):
        with contextlib.suppress(WireError):
            parse_interfaces(memoryview(data))
