"""Keys, signatures and encryption of the protocol ([MS-SMB2] 3.1.4 and 3.2.5.3), without I/O and without the session.

Three things must never happen, since each of them gives the key away or lets a forgery through:

- one AES-GCM or AES-CCM key used twice with the same nonce. `NonceCounter` numbers what is sealed with one key, on
  whatever channel it goes out, and stops rather than begin again;
- one AES-GMAC key used twice with the same MessageId, role and CANCEL bit, for these are its nonce. MessageIds are
  used once on a connection and each channel has its own signing key, so that holds as long as nobody signs two
  different CANCELs for one request, or a CANCEL under a made-up MessageId;
- plaintext used before its tag was checked. `Unsealer` wipes what it decrypted when the tag is wrong.

What a message costs decides how it is handed to the library. The one-shot objects take 1 to 2 µs a call but want one
piece of memory; a streaming context takes 6 to 8 µs to set up and then reads every piece from where it lies. Small
messages are therefore joined, and large ones are not.
"""

from __future__ import annotations

import hmac
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha512
from struct import Struct
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as Context
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from smb3fs.errors import SecurityError, WireError
from smb3fs.wire.codec import Buffer
from smb3fs.wire.header import HEADER_SIZE, TransformHeader
from smb3fs.wire.negotiate import Cipher, Dialect, SigningAlgorithm

SIGNATURE_SIZE: Final = 16
_SIGNATURE_OFFSET: Final = 48  # [MS-SMB2] 2.2.1.2
_NO_SIGNATURE: Final = bytes(SIGNATURE_SIZE)
_TAG_SIZE: Final = 16

# Up to here a message is joined and handled in one call, beyond it piece by piece. Measured with cryptography 50 and
# 47: the one-shot call is 5 µs cheaper at 200 bytes and equal at 128 KiB; from 256 KiB on the joined copy is so
# large that the allocator fetches it from the kernel each time, and it costs up to four times as much.
_JOIN_LIMIT: Final = 64 * 1024


class PreauthHash:
    """The preauthentication integrity hash of one connection or of one authentication ([MS-SMB2] 3.2.5.2)."""

    __slots__ = ("value",)

    def __init__(self, value: bytes = bytes(64)) -> None:
        self.value = value

    def update(self, message: Sequence[Buffer]) -> None:
        """Add one message, given as the buffers that it consists of: header to end, without the transport's length."""
        link = sha512(self.value)
        for part in message:
            link.update(part)
        self.value = link.digest()

    def copy(self) -> PreauthHash:
        """Return a hash that goes on from here by itself, as each authentication does from its connection's."""
        return PreauthHash(self.value)


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """The keys of one authentication; below dialect 3.0 there is only the one for signing."""

    signing: bytes
    client_to_server: bytes = b""
    server_to_client: bytes = b""
    application: bytes = b""


class _Label(NamedTuple):
    """Label and context by which one key is derived, terminating NULs included."""

    label: bytes
    context: bytes


class _Labels(NamedTuple):
    """The labels of all keys of a family of dialects."""

    signing: _Label
    client_to_server: _Label
    server_to_client: _Label
    application: _Label


def _labels(dialect: int, preauth_hash: bytes) -> _Labels:
    """Return what the keys of `dialect` are derived from ([MS-SMB2] 3.2.5.3.1)."""
    if dialect < Dialect.SMB_3_1_1:
        return _Labels(
            signing=_Label(b"SMB2AESCMAC\0", b"SmbSign\0"),
            client_to_server=_Label(b"SMB2AESCCM\0", b"ServerIn \0"),  # the space is part of the context
            server_to_client=_Label(b"SMB2AESCCM\0", b"ServerOut\0"),
            application=_Label(b"SMB2APP\0", b"SmbRpc\0"),
        )
    return _Labels(
        signing=_Label(b"SMBSigningKey\0", preauth_hash),
        client_to_server=_Label(b"SMBC2SCipherKey\0", preauth_hash),
        server_to_client=_Label(b"SMBS2CCipherKey\0", preauth_hash),
        application=_Label(b"SMBAppKey\0", preauth_hash),
    )


def _derive(key: bytes, label: _Label, size: int) -> bytes:
    """Derive `size` bytes, at most one block, by SP800-108 in counter mode with HMAC-SHA256 ([MS-SMB2] 3.1.4.2)."""
    first_block = b"\0\0\0\x01"
    bits = (8 * size).to_bytes(4, "big")
    return hmac.digest(key, first_block + label.label + b"\0" + label.context + bits, "sha256")[:size]


def derive_keys(dialect: int, session_key: bytes, preauth_hash: bytes, cipher: int | None) -> SessionKeys:
    """Derive the keys of an authentication from the session key that its mechanism agreed on.

    `preauth_hash` counts in 3.1.1 only; `cipher` is the negotiated one, or None. A bound channel uses the signing key
    alone: its cipher keys are those of the session's first authentication.
    """
    # Session.SessionKey is 16 bytes whatever the mechanism gave; only AES-256 takes Session.FullSessionKey.
    short = session_key[:16].ljust(16, b"\0")
    if dialect < Dialect.SMB_3_0:
        return SessionKeys(signing=short)
    labels = _labels(dialect, preauth_hash)
    if cipher in (Cipher.AES_256_CCM, Cipher.AES_256_GCM):
        cipher_input, cipher_size = session_key, 32
    else:
        cipher_input, cipher_size = short, 16
    return SessionKeys(
        signing=_derive(short, labels.signing, 16),
        client_to_server=_derive(cipher_input, labels.client_to_server, cipher_size),
        server_to_client=_derive(cipher_input, labels.server_to_client, cipher_size),
        application=_derive(short, labels.application, 16),
    )


class Signer(ABC):
    """Signs and verifies the messages of one channel ([MS-SMB2] 3.1.4.1 and 3.1.5.1)."""

    @abstractmethod
    def sign(
        self, buffers: Sequence[Buffer], message_id: int, *, is_cancel: bool = False, from_server: bool = False
    ) -> bytes:
        """Return the signature of one message, or of one element of a compound with its padding.

        The caller has set the flag SIGNED and left the Signature field zero. Nothing is written to the buffers.
        """

    def verify(
        self,
        message: memoryview,
        signature: Buffer,
        message_id: int,
        *,
        is_cancel: bool = False,
        from_server: bool = True,
    ) -> bool:
        """Tell whether `signature` is that of a received message; what its Signature field holds does not count."""
        if len(message) < HEADER_SIZE:
            return False
        header = bytearray(message[:HEADER_SIZE])
        header[_SIGNATURE_OFFSET:] = _NO_SIGNATURE
        expected = self.sign((header, message[HEADER_SIZE:]), message_id, is_cancel=is_cancel, from_server=from_server)
        return hmac.compare_digest(expected, signature)


class _HmacSha256(Signer):
    """HMAC-SHA256, cut to 16 bytes: dialects 2.0.2 and 2.1, or negotiated."""

    def __init__(self, key: bytes) -> None:
        self._keyed = HMAC(key, SHA256())  # copying it saves the key schedule

    def sign(
        self, buffers: Sequence[Buffer], message_id: int, *, is_cancel: bool = False, from_server: bool = False
    ) -> bytes:
        mac = self._keyed.copy()
        for part in buffers:
            mac.update(part)
        return mac.finalize()[:SIGNATURE_SIZE]


class _AesCmac(Signer):
    """AES-128-CMAC: dialects 3.0 and 3.0.2, and 3.1.1 where nothing else was negotiated."""

    def __init__(self, key: bytes) -> None:
        self._keyed = CMAC(AES(key))

    def sign(
        self, buffers: Sequence[Buffer], message_id: int, *, is_cancel: bool = False, from_server: bool = False
    ) -> bytes:
        mac = self._keyed.copy()
        for part in buffers:
            mac.update(part)  # type: ignore[arg-type]  # takes any buffer; only its stub says bytes
        return mac.finalize()


# [MS-SMB2] 3.1.4.1: MessageId, then bit 0 for a message of the server's and bit 1 for CANCEL
_GMAC_NONCE: Final = Struct("<QI")


class _AesGmac(Signer):
    """AES-128-GMAC: AES-GCM over an empty plaintext, the message being the associated data."""

    def __init__(self, key: bytes) -> None:
        self._one_shot = AESGCM(key)
        self._algorithm = AES(key)

    def sign(
        self, buffers: Sequence[Buffer], message_id: int, *, is_cancel: bool = False, from_server: bool = False
    ) -> bytes:
        nonce = _GMAC_NONCE.pack(message_id, from_server | is_cancel << 1)
        if sum(map(len, buffers)) <= _JOIN_LIMIT:
            return self._one_shot.encrypt(nonce, b"", b"".join(buffers))
        context = Context(self._algorithm, GCM(nonce)).encryptor()
        for part in buffers:
            context.authenticate_additional_data(part)
        context.finalize()
        return context.tag


def make_signer(algorithm: int, key: bytes) -> Signer:
    """Return the signer for a negotiated algorithm."""
    match algorithm:
        case SigningAlgorithm.AES_GMAC:
            return _AesGmac(key)
        case SigningAlgorithm.AES_CMAC:
            return _AesCmac(key)
        case SigningAlgorithm.HMAC_SHA256:
            return _HmacSha256(key)
        case _:
            raise SecurityError(f"signing algorithm {algorithm} is unknown")


class NonceCounter:
    """Numbers the messages sealed with one key: a session has one, and all its channels draw from it.

    A nonce is the number, little-endian in 8 bytes, and behind it as many random bytes as the cipher has room for (3
    or 4), the same for all. The number alone keeps nonces apart. It may be asked from several threads.
    """

    def __init__(self, start: int = 0, salt: bytes | None = None) -> None:
        self._next = start
        self._salt = os.urandom(4) if salt is None else salt
        self._lock = threading.Lock()

    def draw(self, size: int) -> bytes:
        """Return a nonce of `size` bytes that was never returned before, or raise `SecurityError` when all are used."""
        with self._lock:
            number = self._next
            if number >> 64:
                raise SecurityError("all nonces of this session are used; it needs a new key")
            self._next = number + 1
        return number.to_bytes(8, "little") + self._salt[: size - 8]


class _CipherSizes(NamedTuple):
    """What distinguishes the ciphers ([MS-SMB2] 2.2.3.1.2, 2.2.41)."""

    key: int
    nonce: int


_SIZES: Final = MappingProxyType(
    {
        Cipher.AES_128_CCM: _CipherSizes(16, 11),
        Cipher.AES_128_GCM: _CipherSizes(16, 12),
        Cipher.AES_256_CCM: _CipherSizes(32, 11),
        Cipher.AES_256_GCM: _CipherSizes(32, 12),
    }
)


class _KeyedCipher:
    """A negotiated cipher with its key: the one-shot object, and for GCM the algorithm of streaming contexts."""

    __slots__ = ("algorithm", "nonce_size", "one_shot")

    def __init__(self, cipher: int, key: bytes) -> None:
        try:
            known = Cipher(cipher)
        except ValueError:
            raise SecurityError(f"cipher {cipher} is unknown") from None
        sizes = _SIZES[known]
        if len(key) != sizes.key:
            raise ValueError(f"{known.name} takes a key of {sizes.key} bytes, not {len(key)}")
        self.nonce_size = sizes.nonce
        if known in (Cipher.AES_128_GCM, Cipher.AES_256_GCM):
            self.one_shot: AESGCM | AESCCM = AESGCM(key)
            self.algorithm: AES | None = AES(key)
        else:
            self.one_shot = AESCCM(key, _TAG_SIZE)
            self.algorithm = None  # the library has no streaming CCM


class Sealer:
    """Encrypts what we send with one key ([MS-SMB2] 3.1.4.3)."""

    def __init__(self, cipher: int, key: bytes, nonces: NonceCounter) -> None:
        self._cipher = _KeyedCipher(cipher, key)
        self._nonces = nonces

    def seal(self, buffers: Sequence[Buffer], session_id: int) -> list[Buffer]:
        """Return transform header and ciphertext of one message or compound; `buffers` stay as they are."""
        nonce = self._nonces.draw(self._cipher.nonce_size)
        size = sum(map(len, buffers))
        header = TransformHeader(session_id, size, nonce.ljust(16, b"\0"))
        associated = header.associated_data
        if size <= _JOIN_LIMIT:
            sealed = self._cipher.one_shot.encrypt(nonce, b"".join(buffers), associated)
            ciphertext, header.signature = memoryview(sealed)[:size], sealed[size:]
        elif self._cipher.algorithm is not None:
            context = Context(self._cipher.algorithm, GCM(nonce)).encryptor()
            context.authenticate_additional_data(associated)
            ciphertext, end = memoryview(bytearray(size)), 0
            for part in buffers:
                end += context.update_into(part, ciphertext[end:])
            context.finalize()
            header.signature = context.tag
        else:
            output, end = memoryview(bytearray(size + _TAG_SIZE)), 0
            for part in buffers:
                output[end : (end := end + len(part))] = part
            self._cipher.one_shot.encrypt_into(nonce, output[:size], associated, output)
            ciphertext, header.signature = output[:size], bytes(output[size:])
        return [header.encode(), ciphertext]


# The part of the transform header that the tag covers, from Nonce on; taken as received, for a peer may fill what we
# ignore, and that too is authenticated ([MS-SMB2] 3.1.4.3).
_ASSOCIATED: Final = slice(20, TransformHeader.SIZE)
_FLAG_ENCRYPTED: Final = 1  # Flags in 3.1.1, and the same number as EncryptionAlgorithm in 3.0 ([MS-SMB2] 2.2.41)


class Unsealer:
    """Decrypts what we receive with one key ([MS-SMB2] 3.1.5.2)."""

    def __init__(self, cipher: int, key: bytes) -> None:
        self._cipher = _KeyedCipher(cipher, key)

    def unseal(self, message: memoryview) -> memoryview:
        """Decrypt a message, which begins with its transform header, inside its own memory and return the plaintext.

        Raises `WireError` on a header that makes no sense, and `SecurityError` on a wrong tag, all of `message` being
        wiped then.
        """
        header = TransformHeader.parse(message)
        size = header.original_size
        if header.flags != _FLAG_ENCRYPTED:
            raise WireError(f"transform header with Flags {header.flags}")
        if size > len(message) - TransformHeader.SIZE:
            raise WireError(f"{size} encrypted bytes announced, {len(message) - TransformHeader.SIZE} received")
        nonce, associated = header.nonce[: self._cipher.nonce_size], bytes(message[_ASSOCIATED])
        algorithm = self._cipher.algorithm
        try:
            if algorithm is not None and size > _JOIN_LIMIT:
                return _decrypt_streaming(algorithm, message, header, nonce, associated)
            return _decrypt_at_once(self._cipher.one_shot, message, header, nonce, associated)
        except InvalidTag:
            message[:] = bytes(len(message))
            raise SecurityError("an encrypted message does not match its tag") from None


def _decrypt_streaming(
    algorithm: AES, message: memoryview, header: TransformHeader, nonce: bytes, associated: bytes
) -> memoryview:
    """Decrypt in place by a streaming context, which takes the tag from where it is."""
    context = Context(algorithm, GCM(nonce, header.signature)).decryptor()
    context.authenticate_additional_data(associated)
    body = message[TransformHeader.SIZE :][: header.original_size]
    context.update_into(body, body)
    context.finalize()
    return body


def _decrypt_at_once(
    one_shot: AESGCM | AESCCM, message: memoryview, header: TransformHeader, nonce: bytes, associated: bytes
) -> memoryview:
    """Decrypt in place by one call; that wants the tag behind the ciphertext, which moves over the header for it."""
    size = header.original_size
    sealed = message[TransformHeader.SIZE - _TAG_SIZE :][: size + _TAG_SIZE]
    sealed[:size] = sealed[_TAG_SIZE:]
    sealed[size:] = header.signature
    plaintext = sealed[:size]
    one_shot.decrypt_into(nonce, sealed, associated, plaintext)
    return plaintext
