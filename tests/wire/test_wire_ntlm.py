"""What a server's NTLM challenge tells about it."""

from __future__ import annotations

import contextlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.errors import WireError
from smb3fs.wire.codec import utf16
from smb3fs.wire.ntlm import AV_EOL, AV_NB_DOMAIN_NAME, NtlmChallenge

DOMAIN = pack("<HH", AV_NB_DOMAIN_NAME, 6) + utf16("LAB")
END = pack("<HH", AV_EOL, 0)
OTHER = pack("<HH", 1, 4) + utf16("NA")


def challenge(info: bytes) -> NtlmChallenge:
    """A challenge as it comes from the wire."""
    return NtlmChallenge.parse(memoryview(NtlmChallenge(1, b"12345678", info).encode()))


@pytest.mark.parametrize(
    ("info", "domain"),
    [(OTHER + DOMAIN + END, "LAB"), (DOMAIN, "LAB"), (END + DOMAIN, ""), (OTHER + END, ""), (b"", ""), (b"\2\0", "")],
)
def test_the_domain(info: bytes, domain: str) -> None:
    assert challenge(info).domain == domain


@given(st.binary(max_size=60))
def test_nonsense_is_a_domain_or_refused(info: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(challenge(info).domain, str)
