"""The exception tree, and the one table from NTSTATUS to name and errno ([MS-ERREF] 2.3.1, [MS-SMB2] 3.2.5).

Who is at fault decides the class: the peer's bytes (`WireError`), the peer's answer (`StatusError`), the link
(`ConnectionLost`, `DeadlineExceeded`), the proof of who the peer is (`SecurityError`, `AuthenticationError`), or the
person who typed the options (`OptionError`). Turning any of them into an errno happens in `errno_of` and nowhere else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from enum import IntEnum
from typing import Final


class Status(IntEnum):
    """The NTSTATUS values that a file server sends to a client ([MS-ERREF] 2.3.1)."""

    SUCCESS = 0x00000000
    PENDING = 0x00000103
    NOTIFY_CLEANUP = 0x0000010B
    NOTIFY_ENUM_DIR = 0x0000010C
    BUFFER_OVERFLOW = 0x80000005
    NO_MORE_FILES = 0x80000006
    INVALID_EA_NAME = 0x80000013
    EA_LIST_INCONSISTENT = 0x80000014
    STOPPED_ON_SYMLINK = 0x8000002D
    UNSUCCESSFUL = 0xC0000001
    NOT_IMPLEMENTED = 0xC0000002
    INVALID_INFO_CLASS = 0xC0000003
    INFO_LENGTH_MISMATCH = 0xC0000004
    INVALID_HANDLE = 0xC0000008
    INVALID_PARAMETER = 0xC000000D
    NO_SUCH_DEVICE = 0xC000000E
    NO_SUCH_FILE = 0xC000000F
    INVALID_DEVICE_REQUEST = 0xC0000010
    END_OF_FILE = 0xC0000011
    MORE_PROCESSING_REQUIRED = 0xC0000016
    NO_MEMORY = 0xC0000017
    INVALID_VIEW_SIZE = 0xC000001F
    ACCESS_DENIED = 0xC0000022
    BUFFER_TOO_SMALL = 0xC0000023
    OBJECT_NAME_INVALID = 0xC0000033
    OBJECT_NAME_NOT_FOUND = 0xC0000034
    OBJECT_NAME_COLLISION = 0xC0000035
    OBJECT_PATH_INVALID = 0xC0000039
    OBJECT_PATH_NOT_FOUND = 0xC000003A
    OBJECT_PATH_SYNTAX_BAD = 0xC000003B
    DATA_ERROR = 0xC000003E
    CRC_ERROR = 0xC000003F
    SHARING_VIOLATION = 0xC0000043
    QUOTA_EXCEEDED = 0xC0000044
    EAS_NOT_SUPPORTED = 0xC000004F
    EA_TOO_LARGE = 0xC0000050
    NONEXISTENT_EA_ENTRY = 0xC0000051
    NO_EAS_ON_FILE = 0xC0000052
    FILE_LOCK_CONFLICT = 0xC0000054
    LOCK_NOT_GRANTED = 0xC0000055
    DELETE_PENDING = 0xC0000056
    PRIVILEGE_NOT_HELD = 0xC0000061
    NO_SUCH_USER = 0xC0000064
    WRONG_PASSWORD = 0xC000006A
    LOGON_FAILURE = 0xC000006D
    ACCOUNT_RESTRICTION = 0xC000006E
    INVALID_LOGON_HOURS = 0xC000006F
    INVALID_WORKSTATION = 0xC0000070
    PASSWORD_EXPIRED = 0xC0000071
    ACCOUNT_DISABLED = 0xC0000072
    RANGE_NOT_LOCKED = 0xC000007E
    DISK_FULL = 0xC000007F
    INSUFFICIENT_RESOURCES = 0xC000009A
    MEDIA_WRITE_PROTECTED = 0xC00000A2
    DEVICE_NOT_READY = 0xC00000A3
    BAD_IMPERSONATION_LEVEL = 0xC00000A5
    PIPE_NOT_AVAILABLE = 0xC00000AC
    PIPE_BUSY = 0xC00000AE
    PIPE_DISCONNECTED = 0xC00000B0
    IO_TIMEOUT = 0xC00000B5
    FILE_IS_A_DIRECTORY = 0xC00000BA
    NOT_SUPPORTED = 0xC00000BB
    BAD_NETWORK_PATH = 0xC00000BE
    NETWORK_BUSY = 0xC00000BF
    UNEXPECTED_NETWORK_ERROR = 0xC00000C4
    NETWORK_NAME_DELETED = 0xC00000C9
    NETWORK_ACCESS_DENIED = 0xC00000CA
    BAD_NETWORK_NAME = 0xC00000CC
    REQUEST_NOT_ACCEPTED = 0xC00000D0
    NOT_SAME_DEVICE = 0xC00000D4
    FILE_RENAMED = 0xC00000D5
    INTERNAL_ERROR = 0xC00000E5
    DIRECTORY_NOT_EMPTY = 0xC0000101
    FILE_CORRUPT_ERROR = 0xC0000102
    NOT_A_DIRECTORY = 0xC0000103
    NAME_TOO_LONG = 0xC0000106
    TOO_MANY_OPENED_FILES = 0xC000011F
    CANCELLED = 0xC0000120
    CANNOT_DELETE = 0xC0000121
    FILE_DELETED = 0xC0000123
    FILE_CLOSED = 0xC0000128
    ALLOTTED_SPACE_EXCEEDED = 0xC0000099
    LOGON_TYPE_NOT_GRANTED = 0xC000015B
    ILLEGAL_CHARACTER = 0xC0000161
    TOO_MANY_LINKS = 0xC0000265
    NOT_A_REPARSE_POINT = 0xC0000275
    IO_REPARSE_TAG_INVALID = 0xC0000276
    IO_REPARSE_DATA_INVALID = 0xC0000278
    IO_REPARSE_TAG_NOT_HANDLED = 0xC0000279
    PATH_NOT_COVERED = 0xC0000257
    NETWORK_SESSION_EXPIRED = 0xC000035C
    PASSWORD_MUST_CHANGE = 0xC0000224
    ACCOUNT_LOCKED_OUT = 0xC0000234
    CONNECTION_REFUSED = 0xC0000236
    USER_SESSION_DELETED = 0xC0000203
    INVALID_NETWORK_RESPONSE = 0xC00000C3
    CONNECTION_DISCONNECTED = 0xC000020C
    CONNECTION_RESET = 0xC000020D
    TIME_DIFFERENCE_AT_DC = 0xC0000133
    NO_LOGON_SERVERS = 0xC000005E
    TRUSTED_RELATIONSHIP_FAILURE = 0xC000018D
    SHARING_PAUSED = 0xC00000CF
    FILE_NOT_AVAILABLE = 0xC0000467
    DUPLICATE_OBJECTID = 0xC000022A
    DISK_QUOTA_EXCEEDED = 0xC0000802
    FILE_SYSTEM_LIMITATION = 0xC0000427
    NTLM_BLOCKED = 0xC0000418
    SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP = 0xC05D0000
    SMB_NO_SIGNING_ALGORITHM_OVERLAP = 0xC05D0001


# One errno for each status; a status that is not here becomes EIO, never success.
_ERRNO: Final[dict[int, int]] = {
    Status.INVALID_EA_NAME: errno.EINVAL,
    Status.EA_LIST_INCONSISTENT: errno.EINVAL,
    # The kernel walks links itself, so one has come to stand where there was none.
    Status.STOPPED_ON_SYMLINK: errno.ESTALE,
    Status.NOT_IMPLEMENTED: errno.EOPNOTSUPP,
    Status.INVALID_INFO_CLASS: errno.EOPNOTSUPP,
    Status.INVALID_HANDLE: errno.EBADF,
    Status.INVALID_PARAMETER: errno.EINVAL,
    Status.NO_SUCH_DEVICE: errno.ENODEV,
    Status.NO_SUCH_FILE: errno.ENOENT,
    Status.INVALID_DEVICE_REQUEST: errno.EOPNOTSUPP,
    Status.NO_MEMORY: errno.EREMOTEIO,
    Status.ACCESS_DENIED: errno.EACCES,
    Status.OBJECT_NAME_INVALID: errno.EINVAL,
    Status.OBJECT_NAME_NOT_FOUND: errno.ENOENT,
    Status.OBJECT_NAME_COLLISION: errno.EEXIST,
    Status.OBJECT_PATH_INVALID: errno.ENOTDIR,
    Status.OBJECT_PATH_NOT_FOUND: errno.ENOENT,
    Status.OBJECT_PATH_SYNTAX_BAD: errno.EINVAL,
    Status.SHARING_VIOLATION: errno.EBUSY,
    Status.QUOTA_EXCEEDED: errno.EDQUOT,
    Status.DISK_QUOTA_EXCEEDED: errno.EDQUOT,
    Status.EAS_NOT_SUPPORTED: errno.EOPNOTSUPP,
    Status.EA_TOO_LARGE: errno.ENOSPC,
    Status.NONEXISTENT_EA_ENTRY: errno.ENODATA,
    Status.NO_EAS_ON_FILE: errno.ENODATA,
    Status.FILE_LOCK_CONFLICT: errno.EACCES,
    Status.LOCK_NOT_GRANTED: errno.EAGAIN,
    # The name is gone for everyone who asks; only the handles that were open before keep the file.
    Status.DELETE_PENDING: errno.ENOENT,
    Status.PRIVILEGE_NOT_HELD: errno.EPERM,
    Status.NO_SUCH_USER: errno.EACCES,
    Status.WRONG_PASSWORD: errno.EACCES,
    Status.LOGON_FAILURE: errno.EACCES,
    Status.ACCOUNT_RESTRICTION: errno.EACCES,
    Status.ACCOUNT_DISABLED: errno.EACCES,
    Status.PASSWORD_EXPIRED: errno.EKEYEXPIRED,
    Status.PASSWORD_MUST_CHANGE: errno.EKEYEXPIRED,
    Status.RANGE_NOT_LOCKED: errno.EINVAL,
    Status.DISK_FULL: errno.ENOSPC,
    Status.ALLOTTED_SPACE_EXCEEDED: errno.ENOSPC,
    Status.INSUFFICIENT_RESOURCES: errno.EREMOTEIO,
    Status.MEDIA_WRITE_PROTECTED: errno.EROFS,
    Status.IO_TIMEOUT: errno.ETIMEDOUT,
    Status.FILE_IS_A_DIRECTORY: errno.EISDIR,
    Status.NOT_SUPPORTED: errno.EOPNOTSUPP,
    Status.NETWORK_ACCESS_DENIED: errno.EACCES,
    Status.BAD_NETWORK_NAME: errno.ENXIO,
    Status.NOT_SAME_DEVICE: errno.EXDEV,
    Status.FILE_RENAMED: errno.ESTALE,
    Status.DIRECTORY_NOT_EMPTY: errno.ENOTEMPTY,
    Status.NOT_A_DIRECTORY: errno.ENOTDIR,
    Status.NAME_TOO_LONG: errno.ENAMETOOLONG,
    Status.TOO_MANY_OPENED_FILES: errno.EMFILE,
    Status.CANNOT_DELETE: errno.EACCES,
    Status.FILE_DELETED: errno.ENOENT,
    Status.FILE_CLOSED: errno.EBADF,
    Status.ILLEGAL_CHARACTER: errno.EILSEQ,
    Status.TOO_MANY_LINKS: errno.EMLINK,
    Status.NOT_A_REPARSE_POINT: errno.EINVAL,
    Status.IO_REPARSE_TAG_NOT_HANDLED: errno.EOPNOTSUPP,
    Status.PATH_NOT_COVERED: errno.EREMOTE,
    Status.FILE_NOT_AVAILABLE: errno.EBUSY,
    Status.FILE_SYSTEM_LIMITATION: errno.EFBIG,
}


def status_name(status: int) -> str:
    """Return the specification's name of an NTSTATUS, or its number in hexadecimal where it is not in the table."""
    try:
        return f"STATUS_{Status(status).name}"
    except ValueError:
        return f"NTSTATUS 0x{status:08x}"


class Smb3fsError(Exception):
    """The root of every exception that smb3fs raises on purpose."""


class WireError(Smb3fsError):
    """Bytes from the peer do not form the message that they claim to be."""


class StatusError(Smb3fsError):
    """The server answered a request with an error status."""

    def __init__(self, status: int, command: str) -> None:
        super().__init__(f"{command}: {status_name(status)}")
        self.status = status
        self.command = command


class ConnectionLost(Smb3fsError):  # noqa: N818 (the name says what happened, as trio's and Python's own do)
    """The link to the server ended; whether the server carried out what was in flight is unknown.

    `sent` is False for a request of which the server has certainly carried out nothing.
    """

    def __init__(self, text: str, *, sent: bool = True) -> None:
        super().__init__(text)
        self.sent = sent


class DeadlineExceeded(Smb3fsError):  # noqa: N818
    """The server did not answer in the time that the mount's options allow."""


class SecurityError(Smb3fsError):
    """A signature, a tag or a negotiated value proves that somebody tampers, or that less was agreed than required."""


class AuthenticationError(Smb3fsError):
    """The login cannot be attempted or completed on our side (a missing mechanism, no ticket).

    `refused` tells that somebody has looked at the password and did not take it: repeating it may lock the account.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class OptionError(Smb3fsError):
    """A mount option, or a combination of them, is wrong; its text is one sentence for the person who typed it."""


class MountError(Smb3fsError):
    """The mount cannot be made; its text is one sentence for a person: the cause and what changes it."""


class LinkError(MountError):
    """A DFS link of whose targets none can be had; `failures` has each target, as text, with what stood in the way."""

    def __init__(self, link: str, failures: Sequence[tuple[str, Exception]]) -> None:
        reasons = "; ".join(f"{target}: {error}" for target, error in failures)
        super().__init__(f"the DFS link {link} cannot be followed: {reasons}")
        self.link = link
        self.failures = failures


def errno_of(error: BaseException) -> int:
    """Return the errno by which an application learns of `error`; EIO for whatever nobody foresaw."""
    match error:
        case StatusError():
            return _ERRNO.get(error.status, errno.EIO)
        case OSError() if error.errno is not None:
            return error.errno
        case DeadlineExceeded():
            return errno.ETIMEDOUT
        case MemoryError():
            return errno.ENOMEM
        case _:
            return errno.EIO


def describe(error: BaseException) -> str:
    """Return one line about `error` for a log: its class, its text, and the errno that stands for it."""
    number = errno_of(error)
    return f"{type(error).__name__}: {error} ({errno.errorcode.get(number, number)}, {os.strerror(number)})"
