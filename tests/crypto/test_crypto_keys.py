"""Preauthentication integrity and key derivation, against Microsoft's examples and a second implementation."""

from __future__ import annotations

import hashlib

import ms_vectors
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from smb3fs.crypto import PreauthHash, SessionKeys, derive_keys
from smb3fs.wire.negotiate import Cipher, Dialect

PREAUTH = bytes(range(64))
LONG_KEY = bytes(range(100, 132))


def kbkdf(key: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """SP800-108 as the library implements it: it writes the zero byte between label and context itself."""
    kdf = KBKDFHMAC(SHA256(), Mode.CounterMode, length, 4, 4, CounterLocation.BeforeFixed, label, context, None)
    return kdf.derive(key)


def test_preauth_chain_of_the_published_exchange() -> None:
    chain = PreauthHash()
    for message, value in ms_vectors.PREAUTH_CHAIN:
        chain.update([message])
        assert chain.value == value


def test_preauth_of_a_message_in_pieces_is_that_of_the_message() -> None:
    message = ms_vectors.NEGOTIATE_REQUEST
    chain = PreauthHash()
    chain.update([message[:64], bytearray(message[64:100]), memoryview(message)[100:]])
    assert chain.value == ms_vectors.PREAUTH_CHAIN[0][1]


def test_preauth_counts_each_message_as_one_link() -> None:
    chain = PreauthHash()
    chain.update([b"a"])
    chain.update([b"b"])
    assert chain.value == hashlib.sha512(hashlib.sha512(bytes(64) + b"a").digest() + b"b").digest()


def test_preauth_copies_go_their_own_ways() -> None:
    connection = PreauthHash()
    connection.update([b"negotiate"])
    before = connection.value
    first, second = connection.copy(), connection.copy()
    first.update([b"session setup"])
    assert connection.value == second.value == before != first.value


@pytest.mark.parametrize("keys", ms_vectors.ALL_KEYS)
def test_keys_of_the_published_exchanges(keys: ms_vectors.Keys) -> None:
    derived = derive_keys(keys.dialect, keys.session_key, keys.preauth_hash, keys.cipher)
    assert derived == SessionKeys(keys.signing, keys.client_to_server, keys.server_to_client, keys.application)


def test_signing_key_of_the_published_second_channel() -> None:
    derived = derive_keys(0x0311, ms_vectors.CHANNEL_SESSION_KEY, ms_vectors.CHANNEL_PREAUTH, 2)
    assert derived.signing == ms_vectors.CHANNEL_SIGNING_KEY


@pytest.mark.parametrize("session_key", [LONG_KEY[:8], LONG_KEY[:16], LONG_KEY])
@pytest.mark.parametrize("cipher", [None, *Cipher])
def test_keys_of_3_1_1_agree_with_the_library(session_key: bytes, cipher: int | None) -> None:
    derived = derive_keys(Dialect.SMB_3_1_1, session_key, PREAUTH, cipher)
    short = (session_key + bytes(8))[:16]
    source, length = (session_key, 32) if cipher in (3, 4) else (short, 16)
    assert derived.signing == kbkdf(short, b"SMBSigningKey\0", PREAUTH, 16)
    assert derived.client_to_server == kbkdf(source, b"SMBC2SCipherKey\0", PREAUTH, length)
    assert derived.server_to_client == kbkdf(source, b"SMBS2CCipherKey\0", PREAUTH, length)
    assert derived.application == kbkdf(short, b"SMBAppKey\0", PREAUTH, 16)


@pytest.mark.parametrize("dialect", [Dialect.SMB_3_0, Dialect.SMB_3_0_2])
def test_keys_of_3_0_agree_with_the_library(dialect: Dialect) -> None:
    derived = derive_keys(dialect, LONG_KEY, b"", Cipher.AES_128_CCM)
    short = LONG_KEY[:16]
    assert derived.signing == kbkdf(short, b"SMB2AESCMAC\0", b"SmbSign\0", 16)
    assert derived.client_to_server == kbkdf(short, b"SMB2AESCCM\0", b"ServerIn \0", 16)
    assert derived.server_to_client == kbkdf(short, b"SMB2AESCCM\0", b"ServerOut\0", 16)
    assert derived.application == kbkdf(short, b"SMB2APP\0", b"SmbRpc\0", 16)


def test_only_the_keys_of_aes_256_depend_on_the_whole_session_key() -> None:
    changed = LONG_KEY[:31] + b"\xff"
    for cipher in Cipher:
        one, other = (derive_keys(Dialect.SMB_3_1_1, key, PREAUTH, cipher) for key in (LONG_KEY, changed))
        assert (one.signing, one.application) == (other.signing, other.application)
        assert (one.client_to_server != other.client_to_server) == (cipher in (3, 4))
        assert (one.server_to_client != other.server_to_client) == (cipher in (3, 4))


@pytest.mark.parametrize("dialect", [Dialect.SMB_2_0_2, Dialect.SMB_2_1])
def test_below_3_0_the_session_key_signs(dialect: Dialect) -> None:
    assert derive_keys(dialect, LONG_KEY, b"", None) == SessionKeys(LONG_KEY[:16])
    assert derive_keys(dialect, b"shortkey", b"", None) == SessionKeys(b"shortkey" + bytes(8))


def test_keys_do_not_show_in_a_log() -> None:
    keys = derive_keys(Dialect.SMB_3_1_1, LONG_KEY, PREAUTH, Cipher.AES_128_GCM)
    assert repr(keys.signing) not in repr(keys)
