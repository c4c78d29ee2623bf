"""Encryption: published examples, the library's other interface as a second opinion, and what must not pass."""

from __future__ import annotations

import random
import struct
from concurrent.futures import ThreadPoolExecutor

import ms_vectors
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.crypto import NonceCounter, Sealer, Unsealer
from smb3fs.errors import SecurityError, WireError
from smb3fs.wire.codec import Buffer
from smb3fs.wire.negotiate import Cipher

SESSION_ID = 0x1122334455667788
KEYS = {cipher: bytes(range(16 if cipher in (1, 2) else 32)) for cipher in Cipher}
LIMIT = 64 * 1024  # where the construction changes

ciphers = pytest.mark.parametrize("cipher", list(Cipher), ids=lambda cipher: cipher.name)


def joined(buffers: list[Buffer]) -> bytearray:
    """What goes over the wire."""
    return bytearray(b"".join(buffers))


def sealed(cipher: int, plaintext: bytes, start: int = 0) -> bytearray:
    """One message sealed with the cipher's key."""
    return joined(Sealer(cipher, KEYS[Cipher(cipher)], NonceCounter(start)).seal([plaintext], SESSION_ID))


def one_shot(cipher: int) -> AESGCM | AESCCM:
    """The library's simplest interface to the same cipher and key."""
    key = KEYS[Cipher(cipher)]
    return AESGCM(key) if cipher in (2, 4) else AESCCM(key)


@pytest.mark.parametrize("example", ms_vectors.SEALED)
def test_messages_of_the_published_exchanges_are_opened(example: ms_vectors.Sealed) -> None:
    plaintext = Unsealer(example.cipher, example.key).unseal(memoryview(bytearray(example.message)))
    assert plaintext == example.plaintext


@pytest.mark.parametrize("example", [e for e in ms_vectors.SEALED if not any(e.message[32:36])])
def test_messages_of_the_published_exchanges_are_made(example: ms_vectors.Sealed) -> None:
    # Those of AES-GCM; with AES-CCM Windows filled the rest of the Nonce field, where we write zeros.
    nonce, session_id = example.message[20:32], int.from_bytes(example.message[44:52], "little")
    counter = NonceCounter(int.from_bytes(nonce[:8], "little"), nonce[8:])
    made = Sealer(example.cipher, example.key, counter).seal([example.plaintext], session_id)
    assert joined(made) == example.message


@ciphers
@pytest.mark.parametrize("size", [0, 1, 64, 200, LIMIT, LIMIT + 1, 1 << 20])
def test_there_and_back(cipher: Cipher, size: int) -> None:
    rng = random.Random(size)
    plaintext = rng.randbytes(size)
    cut = min(size, 112)
    parts = [bytearray(plaintext[:cut]), bytearray(), bytearray(plaintext[cut:])]
    message = joined(Sealer(cipher, KEYS[cipher], NonceCounter()).seal([memoryview(p) for p in parts], SESSION_ID))
    assert b"".join(parts) == plaintext
    assert len(message) == 52 + size

    magic, tag, nonce, length, _, flags, session_id = struct.unpack_from("<4s16s16sIHHQ", message)
    assert (magic, length, flags, session_id) == (b"\xfdSMB", size, 1, SESSION_ID)
    used = 12 if cipher in (2, 4) else 11
    assert not any(nonce[used:])
    assert one_shot(cipher).decrypt(nonce[:used], bytes(message[52:]) + tag, bytes(message[20:52])) == plaintext

    view = memoryview(message)
    opened = Unsealer(cipher, KEYS[cipher]).unseal(view)
    assert opened == plaintext
    assert opened.obj is message  # in place: no second buffer


@ciphers
@pytest.mark.parametrize("size", [64, LIMIT + 1])
def test_what_a_peer_may_write_differently_is_accepted(cipher: Cipher, size: int) -> None:
    plaintext, nonce = random.Random(9).randbytes(size), bytes(range(1, 17))
    associated = nonce + struct.pack("<IHHQ", size, 0xBEEF, 1, SESSION_ID)  # Nonce filled up, Reserved not zero
    out = one_shot(cipher).encrypt(nonce[: 12 if cipher in (2, 4) else 11], plaintext, associated)
    message = bytearray(b"\xfdSMB" + out[size:] + associated + out[:size] + b"behind the message")
    assert Unsealer(cipher, KEYS[cipher]).unseal(memoryview(message)) == plaintext


@ciphers
def test_every_flipped_bit_fails(cipher: Cipher) -> None:
    good, unsealer = bytes(sealed(cipher, random.Random(7).randbytes(70))), Unsealer(cipher, KEYS[cipher])
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises((SecurityError, WireError)) as caught:
            unsealer.unseal(memoryview(bad))
        if 4 <= bit // 8 < 36 or bit // 8 >= 52:  # signature, nonce, ciphertext
            assert caught.type is SecurityError


@ciphers
@pytest.mark.parametrize("size", [200, LIMIT + 1])
def test_a_wrong_tag_leaves_nothing_behind(cipher: Cipher, size: int) -> None:
    message = sealed(cipher, b"secret" * size)
    message[4] ^= 1
    with pytest.raises(SecurityError, match="does not match its tag"):
        Unsealer(cipher, KEYS[cipher]).unseal(memoryview(message))
    assert not any(message)


def test_another_key_or_cipher_does_not_open() -> None:
    message = sealed(Cipher.AES_128_GCM, bytes(100))
    for cipher, key in ((Cipher.AES_128_GCM, bytes(16)), (Cipher.AES_128_CCM, KEYS[Cipher.AES_128_CCM])):
        with pytest.raises(SecurityError):
            Unsealer(cipher, key).unseal(memoryview(bytearray(message)))


@pytest.mark.parametrize("flags", [0, 2, 3])
def test_a_header_with_other_flags_is_malformed(flags: int) -> None:
    message = sealed(Cipher.AES_128_GCM, bytes(100))
    struct.pack_into("<H", message, 42, flags)
    with pytest.raises(WireError, match="Flags"):
        Unsealer(Cipher.AES_128_GCM, KEYS[Cipher.AES_128_GCM]).unseal(memoryview(message))


@ciphers
def test_a_cut_message_is_malformed(cipher: Cipher) -> None:
    message, unsealer = sealed(cipher, bytes(100)), Unsealer(cipher, KEYS[cipher])
    for length in range(len(message)):
        with pytest.raises(WireError):
            unsealer.unseal(memoryview(message[:length]))


@given(st.binary(max_size=200), st.sampled_from(Cipher), st.booleans())
def test_any_bytes_at_all_are_refused(data: bytes, cipher: Cipher, plausible: bool) -> None:
    if plausible:
        size, flags = max(len(data) - 32, 0), 1
        data = b"\xfdSMB" + data[:32].ljust(32, b"\0") + struct.pack("<IHHQ", size, 0, flags, 1) + data[32:]
    with pytest.raises((SecurityError, WireError)):
        Unsealer(cipher, KEYS[cipher]).unseal(memoryview(bytearray(data)))


def test_an_unknown_cipher_or_a_wrong_key_is_refused() -> None:
    with pytest.raises(SecurityError, match="cipher 5 is unknown"):
        Unsealer(5, bytes(16))
    with pytest.raises(ValueError, match="AES_256_GCM takes a key of 32 bytes, not 16"):
        Sealer(Cipher.AES_256_GCM, bytes(16), NonceCounter())


def test_nonces_count() -> None:
    counter = NonceCounter()
    first, second, third = counter.draw(12), counter.draw(11), counter.draw(12)
    assert [first[:8], second[:8], third[:8]] == [n.to_bytes(8, "little") for n in range(3)]
    assert (len(first), len(second)) == (12, 11)
    assert first[8:] == third[8:]
    assert second[8:] == first[8:11]
    assert len({NonceCounter().draw(12) for _ in range(20)}) > 1


def test_channels_of_a_session_never_share_a_nonce() -> None:
    counter = NonceCounter()
    channels = [Sealer(Cipher.AES_128_GCM, KEYS[Cipher.AES_128_GCM], counter) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda channel: [channel.seal([b"x"], 1)[0] for _ in range(500)], channels)
        nonces = [bytes(header[20:32]) for run in runs for header in run]
    assert len(set(nonces)) == len(nonces) == 2000


def test_the_last_nonce_is_the_last() -> None:
    counter = NonceCounter(2**64 - 1)
    sealer = Sealer(Cipher.AES_256_CCM, KEYS[Cipher.AES_256_CCM], counter)
    sealer.seal([b"the last one"], 1)
    for _ in range(2):
        with pytest.raises(SecurityError, match="nonces"):
            sealer.seal([b"one too many"], 1)
