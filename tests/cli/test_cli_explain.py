"""Each way to fail has one sentence: the cause, the option that changes it, the NTSTATUS name."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.cli.explain import cause_of, explain, is_foreseen
from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    MountError,
    SecurityError,
    Status,
    StatusError,
    WireError,
)
from smb3fs.options import MountOptions, parse_mount_options


def options(text: str = "", source: str = "//nas/photos/2024/{may}") -> MountOptions:
    return parse_mount_options(
        source,
        f"username=HOME\\alice,password=hunter2,{text}",
        environment={},
        cwd="/",
        is_root=True,
        uid=0,
        gid=0,
    )


# What was refused, and the words that a person needs.
REFUSALS: list[tuple[Status, str, tuple[str, ...]]] = [
    (Status.LOGON_FAILURE, "SESSION_SETUP", ("nas", "HOME\\alice", "password", "username=", "credentials")),
    (Status.WRONG_PASSWORD, "SESSION_SETUP", ("password", "credentials")),
    (Status.NO_SUCH_USER, "SESSION_SETUP", ("username=", "domain=")),
    (Status.ACCOUNT_DISABLED, "SESSION_SETUP", ("disabled", "username=")),
    (Status.ACCOUNT_LOCKED_OUT, "SESSION_SETUP", ("locked", "credentials")),
    (Status.ACCOUNT_RESTRICTION, "SESSION_SETUP", ("restricts", "username=")),
    (Status.PASSWORD_EXPIRED, "SESSION_SETUP", ("expired", "credentials")),
    (Status.PASSWORD_MUST_CHANGE, "SESSION_SETUP", ("change",)),
    (Status.INVALID_LOGON_HOURS, "SESSION_SETUP", ("hour",)),
    (Status.INVALID_WORKSTATION, "SESSION_SETUP", ("machine",)),
    (Status.LOGON_TYPE_NOT_GRANTED, "SESSION_SETUP", ("network",)),
    (Status.NO_LOGON_SERVERS, "SESSION_SETUP", ("domain controller",)),
    (Status.TRUSTED_RELATIONSHIP_FAILURE, "SESSION_SETUP", ("trust",)),
    (Status.TIME_DIFFERENCE_AT_DC, "SESSION_SETUP", ("clocks",)),
    (Status.NOT_SUPPORTED, "SESSION_SETUP", ("NTLM", "sec=")),
    (Status.NTLM_BLOCKED, "SESSION_SETUP", ("NTLM", "sec=")),
    (Status.ACCESS_DENIED, "SESSION_SETUP", ("encryption", "seal")),
    (Status.NOT_SUPPORTED, "NEGOTIATE", ("dialect", "vers=")),
    (Status.INVALID_PARAMETER, "NEGOTIATE", ("vers=",)),
    (Status.SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP, "NEGOTIATE", ("hash", "vers=")),
    (Status.SMB_NO_SIGNING_ALGORITHM_OVERLAP, "NEGOTIATE", ("signing", "vers=")),
    (Status.BAD_NETWORK_NAME, "TREE_CONNECT", ("no share photos", "smbclient -L")),
    (Status.ACCESS_DENIED, "TREE_CONNECT", ("HOME\\alice", "photos", "seal", "username=")),
    (Status.NETWORK_ACCESS_DENIED, "TREE_CONNECT", ("photos", "username=")),
    (Status.PATH_NOT_COVERED, "TREE_CONNECT", ("DFS",)),
    (Status.REQUEST_NOT_ACCEPTED, "TREE_CONNECT", ("later",)),
    (Status.ACCESS_DENIED, "FSCTL_VALIDATE_NEGOTIATE_INFO", ("between", "vers=")),
    (Status.OBJECT_NAME_NOT_FOUND, "CREATE", ("no directory 2024/{may}",)),
    (Status.OBJECT_PATH_NOT_FOUND, "CREATE", ("no directory 2024/{may}",)),
    (Status.OBJECT_NAME_INVALID, "CREATE", ("no directory 2024/{may}",)),
    (Status.NOT_A_DIRECTORY, "CREATE", ("directory",)),
    (Status.ACCESS_DENIED, "QUERY_INFO", ("2024/{may}", "username=")),
    (Status.STOPPED_ON_SYMLINK, "CREATE", ("symbolic link",)),
    (Status.PATH_NOT_COVERED, "CREATE", ("DFS",)),
]


@pytest.mark.parametrize(("status", "command", "words"), REFUSALS, ids=lambda value: str(value)[:40])
def test_what_the_server_refuses(status: Status, command: str, words: tuple[str, ...]) -> None:
    sentence = explain(StatusError(status, command), options())
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith(f"(STATUS_{status.name})")


@given(st.sampled_from(Status) | st.integers(0, 2**32 - 1), st.sampled_from(["NEGOTIATE", "CREATE", "X", "LOGOFF"]))
def test_every_other_status_has_a_sentence_too(status: int, command: str) -> None:
    sentence = explain(StatusError(status, command), options())
    assert "nas" in sentence or "photos" in sentence
    assert "STATUS" in sentence


OTHERS: list[tuple[BaseException, str, tuple[str, ...]]] = [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "", ("nas", "does not resolve", "ip=")),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "port=1445", ("1445", "port=")),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "ip=192.0.2.9", ("192.0.2.9", "445")),
    (OSError(errno.EHOSTUNREACH, "No route to host"), "", ("no way to nas", "No route", "ip=")),
    (OSError(errno.ENETUNREACH, "x"), "", ("no way to nas",)),
    (TimeoutError(errno.ETIMEDOUT, "x"), "", ("does not answer", "firewall", "timeout=")),
    (ConnectionResetError(errno.ECONNRESET, "x"), "", ("reset", "port=")),
    (NotADirectoryError(errno.ENOTDIR, "x"), "", ("directory",)),
    (FileNotFoundError(errno.ENOENT, "x", "/dev/fuse"), "", ("/dev/fuse", "fuse3")),
    (FileNotFoundError(errno.ENOENT, "x", "fusermount3"), "", ("fusermount3", "fuse3")),
    (PermissionError(errno.EPERM, "x", "/dev/fuse"), "", ("/dev/fuse", "CAP_SYS_ADMIN")),
    (OSError(errno.EIO, "x"), "", ("nas", "Input/output error")),
    (OSError("without a number"), "", ("without a number",)),
    (DeadlineExceeded("Connection timed out"), "timeout=7", ("nas", "7 s", "timeout=")),
    (trio.TooSlowError(), "timeout=7", ("nas", "7 s", "timeout=")),
    (ConnectionLost("the server closed the connection"), "", ("SMB 1", "vers=")),
    (WireError("not SMB"), "", ("445", "does not speak SMB 3", "port=")),
    (MountError("it is a printer"), "", ("it is a printer",)),
    (AuthenticationError("the login cannot begin"), "", ("cannot begin",)),
    (SecurityError("the server let us in as a guest"), "", ("guest", "safety", "password")),
    (SecurityError("the server offers none of the ciphers"), "", ("cipher=", "vers=", "seal")),
    (SecurityError("the server chose dialect 0x0210"), "", ("vers=",)),
    (SecurityError("the signature is wrong"), "", ("safety", "signature")),
    (ZeroDivisionError("division by zero"), "", ("bug", "ZeroDivisionError", "-v")),
]


@pytest.mark.parametrize(("error", "text", "words"), OTHERS, ids=lambda value: str(value)[:40])
def test_what_else_goes_wrong(error: BaseException, text: str, words: tuple[str, ...]) -> None:
    sentence = explain(error, options(text))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(("error", "text", "words"), OTHERS, ids=lambda value: str(value)[:40])
def test_one_line_without_the_password(error: BaseException, text: str, words: tuple[str, ...]) -> None:
    sentence = explain(error, options(text))
    assert "\n" not in sentence
    assert "hunter2" not in sentence
    assert not sentence.endswith(".")


def test_the_root_of_the_share_has_a_name() -> None:
    sentence = explain(StatusError(Status.ACCESS_DENIED, "CREATE"), options(source="//nas/photos"))
    assert "the root" in sentence


def test_groups_are_looked_into() -> None:
    inner: Any = ExceptionGroup("", [ValueError("noise"), StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")])
    assert "STATUS_LOGON_FAILURE" in explain(ExceptionGroup("", [inner]), options())
    assert isinstance(cause_of(ExceptionGroup("", [ValueError("x")])), ValueError)
    assert is_foreseen(OSError())
    assert not is_foreseen(ValueError())
