"""What a mount logs in with: two passwords, a file that changes, and no more attempts than these can explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from peer import real_time_test

from smb3fs.channels.logins import Logins, asks_for_another
from smb3fs.channels.mechanisms import KERBEROS, NOBODY, Login
from smb3fs.credentials import LoginSource
from smb3fs.errors import AuthenticationError, ConnectionLost, Status, StatusError

ALICE = Login("alice", "DOM", "first")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    write(path, "first")
    return path


def write(path: Path, password: str, password2: str = "", username: str = "alice") -> None:
    """Replace the file, as editors do."""
    new = path.with_suffix(".new")
    new.write_text(f"username={username}\npassword={password}\npassword2={password2}\n")
    new.chmod(0o600)
    new.rename(path)


async def passwords(logins: Logins, meanwhile: Callable[[int], None] = lambda _: None) -> list[str]:
    """The passwords that a server gets to see that refuses all of them."""
    seen = []
    async for login in logins.candidates():
        seen.append(login.password)
        meanwhile(len(seen))
    return seen


@real_time_test
async def test_each_password_is_tried_once() -> None:
    assert await passwords(Logins(ALICE)) == ["first"]
    assert await passwords(Logins(ALICE, "second")) == ["first", "second"]
    assert await passwords(Logins(ALICE, "first")) == ["first"]


@real_time_test
async def test_where_tickets_or_nobody_log_in_a_second_password_is_none() -> None:
    assert await passwords(Logins(Login("", "", "", NOBODY), "second")) == [""]
    assert await passwords(Logins(Login("alice", "", "", KERBEROS), "second")) == [""]
    assert await passwords(Logins(Login("alice", "", "first", KERBEROS), "second")) == ["first", "second"]


@real_time_test
async def test_the_one_that_worked_comes_first() -> None:
    logins = Logins(ALICE, "second")
    async for login in logins.candidates():
        if login.password == "second":
            logins.worked(login)
    assert await passwords(logins) == ["second", "first"]


@real_time_test
async def test_a_file_that_changed_is_read_before_and_behind(file: Path) -> None:
    logins = Logins(ALICE, None, LoginSource(path=str(file)))
    assert await passwords(logins) == ["first"]
    write(file, "third")
    assert await logins.changed()
    assert await passwords(logins) == ["third"]
    assert not await logins.changed()

    def change(number: int) -> None:
        if number == 1:
            write(file, "fourth", "fifth")

    assert await passwords(logins, change) == ["third", "fourth"]
    assert await passwords(logins) == ["fourth", "fifth"]


@real_time_test
async def test_a_file_that_only_looks_new_is_no_reason_to_try_again(file: Path) -> None:
    logins = Logins(ALICE, None, LoginSource(path=str(file)))
    assert await passwords(logins, lambda _: write(file, "first")) == ["first"]


@real_time_test
async def test_every_line_of_a_mount_learns_of_a_change(file: Path) -> None:
    """Whoever comes second finds the file as it was read by the first one."""
    logins = Logins(ALICE, None, LoginSource(path=str(file)))
    version = logins.version
    assert not await logins.newer_than(version)
    write(file, "third")
    assert await logins.newer_than(version)
    assert await logins.newer_than(version)
    assert not await logins.newer_than(logins.version)


def damage(path: Path, content: bytes | None) -> None:
    """Put nonsense into a file, or nothing in its place."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [None, b"\xff", b""])
@real_time_test
async def test_a_file_that_cannot_be_used_leaves_all_as_it_was(
    file: Path, content: bytes | None, expect_log: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    expect_log("the login stays as it was")
    logins = Logins(ALICE, None, LoginSource(path=str(file)))
    damage(file, content)
    await logins.read()
    assert await passwords(logins) == ["first"]
    assert not await logins.newer_than(0)
    assert caplog.text.count("stays as it was") == 1


@real_time_test
async def test_options_win_over_the_file_as_at_the_start(file: Path) -> None:
    from smb3fs.credentials import Login as Stated

    source = LoginSource(stated=Stated(username="alice", password="stated"), path=str(file))
    logins = Logins(Login("alice", "DOM", "stated"), None, source)
    write(file, "other", "second", username="bob")
    await logins.read()
    async for login in logins.candidates():
        assert login.username == "alice"
        assert login.password in ("stated", "second")


@pytest.mark.parametrize(
    ("error", "asks"),
    [
        (StatusError(Status.LOGON_FAILURE, "SESSION_SETUP"), True),
        (StatusError(Status.PASSWORD_EXPIRED, "SESSION_SETUP"), True),
        (StatusError(Status.ACCOUNT_LOCKED_OUT, "SESSION_SETUP"), False),
        (StatusError(Status.LOGON_FAILURE, "TREE_CONNECT"), False),
        (AuthenticationError("no ticket"), False),
        (AuthenticationError("wrong", refused=True), True),
        (ConnectionLost("x"), False),
    ],
)
def test_when_another_password_might_do(error: Exception, asks: bool) -> None:
    assert asks_for_another(error) is asks


def test_no_password_in_a_representation() -> None:
    source = LoginSource(path="/x")
    assert "s3cret" not in repr(Login("a", "b", "s3cret")) + repr(Logins(Login("a", "b", "s3cret"), "s3cret", source))
