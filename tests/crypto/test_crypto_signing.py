"""Signatures: published examples, a GHASH written out by hand, and what must not pass."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Iterator
from itertools import pairwise

import ms_vectors
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.crypto import Signer, make_signer
from smb3fs.errors import SecurityError
from smb3fs.wire.codec import Buffer
from smb3fs.wire.negotiate import SigningAlgorithm

KEY = bytes(range(16))
MESSAGE_ID = 0x0102030405060708

# RFC 4493, section 4; its longest message is cut for the shorter ones
RFC4493_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
RFC4493_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC4493 = [
    (0, "bb1d6929e95937287fa37d129b756746"),
    (16, "070a16b46b4d4144f79bdd9dd04a287c"),
    (40, "dfa66747de9ae63030ca32611497c827"),
    (64, "51f0bebf7e3b9d92fc49741779363cfe"),
]


def gmac(key: bytes, nonce: bytes, message: bytes) -> bytes:
    """GMAC by the definition in NIST SP800-38D, bit by bit, on single AES blocks."""

    def block(data: bytes) -> int:
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return int.from_bytes(encryptor.update(data) + encryptor.finalize(), "big")

    def times(x: int, y: int) -> int:
        product = 0
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                product ^= y
            y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
        return product

    def blocks() -> Iterator[int]:
        for start in range(0, len(message), 16):
            yield int.from_bytes(message[start : start + 16].ljust(16, b"\0"), "big")
        yield 8 * len(message) << 64

    h, y = block(bytes(16)), 0
    for x in blocks():
        y = times(y ^ x, h)
    return (y ^ block(nonce + b"\0\0\0\x01")).to_bytes(16, "big")


def zeroed(message: bytes) -> bytes:
    """The message with its Signature field zero."""
    return message[:48] + bytes(16) + message[64:]


@pytest.fixture(params=list(SigningAlgorithm), ids=lambda algorithm: algorithm.name)
def signer(request: pytest.FixtureRequest) -> Signer:
    return make_signer(request.param, KEY)


@pytest.mark.parametrize(("length", "mac"), RFC4493)
def test_cmac_examples_of_rfc_4493(length: int, mac: str) -> None:
    assert make_signer(SigningAlgorithm.AES_CMAC, RFC4493_KEY).sign([RFC4493_MESSAGE[:length]], 1).hex() == mac


@pytest.mark.parametrize(("key", "message_id", "from_server", "message"), ms_vectors.SIGNED)
def test_signatures_of_the_published_exchange(key: bytes, message_id: int, from_server: bool, message: bytes) -> None:
    cmac = make_signer(SigningAlgorithm.AES_CMAC, key)
    signature = message[48:64]
    assert cmac.sign([zeroed(message)], message_id, from_server=from_server) == signature
    assert cmac.verify(memoryview(message), signature, message_id, from_server=from_server)


def test_hmac_is_the_first_half_of_hmac_sha256() -> None:
    signature = make_signer(SigningAlgorithm.HMAC_SHA256, KEY).sign([b"one", b"two"], 1)
    assert signature == hmac.new(KEY, b"onetwo", hashlib.sha256).digest()[:16]


def test_the_gmac_written_out_here_is_that_of_nist() -> None:
    # NIST CAVP, gcmEncryptExtIV128.rsp, PTlen 0, AADlen 128, first one
    key, nonce = bytes.fromhex("77be63708971c4e240d1cb79e8d77feb"), bytes.fromhex("e0e00f19fed7ba0136a797f3")
    message = bytes.fromhex("7a43ec1d9c0a5a78a0b16533a6213cab")
    assert gmac(key, nonce, message).hex() == "209fcc8d3675ed938e9c7166709dd946"


@pytest.mark.parametrize(
    ("is_cancel", "from_server", "word"),
    [(False, False, b"\0"), (False, True, b"\1"), (True, False, b"\2"), (True, True, b"\3")],
)
def test_gmac_nonce_is_message_id_role_and_cancel(is_cancel: bool, from_server: bool, word: bytes) -> None:
    message = random.Random(1).randbytes(201)
    signature = make_signer(SigningAlgorithm.AES_GMAC, KEY).sign(
        [message], MESSAGE_ID, is_cancel=is_cancel, from_server=from_server
    )
    assert signature == gmac(KEY, b"\x08\7\6\5\4\3\2\1" + word + bytes(3), message)


def test_gmac_of_a_large_message() -> None:
    message = random.Random(2).randbytes(70_001)
    parts: list[Buffer] = [message[:64], message[64:112], memoryview(message)[112:]]
    assert make_signer(SigningAlgorithm.AES_GMAC, KEY).sign(parts, 7) == gmac(KEY, b"\7" + bytes(11), message)


@pytest.mark.parametrize("size", [200, 64 * 1024, 64 * 1024 + 1, 1 << 20])
def test_it_does_not_matter_how_a_message_is_divided(signer: Signer, size: int) -> None:
    rng = random.Random(size)
    message = rng.randbytes(size)
    whole = signer.sign([message], MESSAGE_ID)
    for _ in range(5):
        cuts = [0, *sorted(rng.randrange(size) for _ in range(4)), size]
        parts = [bytearray(message[a:b]) for a, b in pairwise(cuts)]
        before = [bytes(part) for part in parts]
        assert signer.sign([memoryview(part) for part in parts], MESSAGE_ID) == whole
        assert parts == before


@given(st.binary(min_size=64, max_size=300), st.binary(max_size=20))
def test_only_the_signature_verifies(message: bytes, guess: bytes) -> None:
    for algorithm in SigningAlgorithm:
        signer = make_signer(algorithm, KEY)
        good = signer.sign([zeroed(message)], MESSAGE_ID)
        assert signer.verify(memoryview(message), good, MESSAGE_ID, from_server=False)
        assert signer.verify(memoryview(message), guess, MESSAGE_ID, from_server=False) == (guess == good)


def test_every_flipped_bit_of_a_message_fails(signer: Signer) -> None:
    message = bytearray(zeroed(random.Random(3).randbytes(113)))
    good = signer.sign([bytes(message)], MESSAGE_ID, from_server=True)
    for bit in range(8 * len(message)):
        message[bit // 8] ^= 1 << bit % 8
        in_signature_field = 48 <= bit // 8 < 64  # counts as zero, whatever is in it
        assert signer.verify(memoryview(message), good, MESSAGE_ID) == in_signature_field
        message[bit // 8] ^= 1 << bit % 8
    for bit in range(128):
        bad = (int.from_bytes(good, "big") ^ 1 << bit).to_bytes(16, "big")
        assert not signer.verify(memoryview(message), bad, MESSAGE_ID)


def test_verifying_writes_nothing_to_the_message(signer: Signer) -> None:
    message = bytearray(random.Random(4).randbytes(150))
    before = bytes(message)
    good = signer.sign([zeroed(before)], MESSAGE_ID, from_server=True)
    assert signer.verify(memoryview(message), good, MESSAGE_ID)
    assert message == before


def test_a_signature_has_its_key(signer: Signer) -> None:
    message = memoryview(zeroed(random.Random(5).randbytes(100)))
    others = [make_signer(algorithm, bytes(16)) for algorithm in SigningAlgorithm]
    good = signer.sign([message], MESSAGE_ID)
    assert not any(other.verify(message, good, MESSAGE_ID, from_server=False) for other in others)


def test_a_gmac_signature_has_its_place() -> None:
    signer = make_signer(SigningAlgorithm.AES_GMAC, KEY)
    message = memoryview(zeroed(random.Random(6).randbytes(100)))
    good = signer.sign([message], MESSAGE_ID, from_server=True)
    assert signer.verify(message, good, MESSAGE_ID)
    assert not signer.verify(message, good, MESSAGE_ID + 1)
    assert not signer.verify(message, good, MESSAGE_ID, from_server=False)
    assert not signer.verify(message, good, MESSAGE_ID, is_cancel=True)


def test_what_is_shorter_than_a_header_is_not_signed(signer: Signer) -> None:
    message = bytes(63)
    assert not signer.verify(memoryview(message), signer.sign([message], 1, from_server=True), 1)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(SecurityError, match="3 is unknown"):
        make_signer(3, KEY)
