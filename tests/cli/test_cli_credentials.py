"""Where a login comes from, which source wins, and that no password gets into a message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.credentials import MAX_FILE, Credentials, Login, read_credentials_file, split_username
from smb3fs.errors import MountError, OptionError
from smb3fs.options import MountOptions, parse_mount_options


def parse(text: str = "", *, environment: dict[str, str] | None = None, **changes: Any) -> MountOptions:
    keywords: dict[str, Any] = {"cwd": "/", "is_root": True, "uid": 0, "gid": 0}
    return parse_mount_options("//srv/share", text, environment=environment or {}, **{**keywords, **changes})


def login(text: str = "", **keywords: Any) -> tuple[str, str, str]:
    found = parse(text, **keywords).credentials
    return found.domain, found.username, found.password


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A credentials file of a careful person."""
    path = tmp_path / "credentials"
    path.touch(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice", Login("alice")),
        ("DOM\\alice", Login("alice", None, "DOM")),
        ("DOM/alice", Login("alice", None, "DOM")),
        ("alice@REALM.ORG", Login("alice@REALM.ORG")),
        ("alice%p%/\\", Login("alice", "p%/\\")),
        ("DOM\\alice%", Login("alice", "", "DOM")),
    ],
)
def test_user_names(text: str, expected: Login) -> None:
    assert split_username(text) == expected


CONTENTS = [
    ("username=alice\npassword=secret\ndomain=DOM\n", ("DOM", "alice", "secret")),
    ("username=alice\r\npassword=secret\r\ndomain=DOM\r\n", ("DOM", "alice", "secret")),
    ("\ufeffusername=alice\npassword=secret", ("", "alice", "secret")),
    ('  \tUSERNAME=alice\nPassWord = x ,=y"\\ \n', ("", "alice", ' x ,=y"\\ ')),
    ("user=DOM\\alice%secret\n", ("DOM", "alice", "secret")),
    ("user=alice%one\npassword=two\n", ("", "alice", "two")),
    ("# a comment\n\nuser=alice\npass=\n", ("", "alice", "")),
    ("user=DOM\\alice\npass=x\ndom=OTHER\n", ("OTHER", "alice", "x")),
    ("user=alice\npass=x\nDomain=A\nworkgroup=B\n", ("A", "alice", "x")),
    ("user=ä\npass=ü%€\n", ("", "ä", "ü%€")),
]


@pytest.mark.parametrize(("content", "expected"), CONTENTS)
def test_files_of_mount_cifs(file: Path, content: str, expected: tuple[str, str, str]) -> None:
    file.write_bytes(content.encode())
    assert login(f"credentials={file}") == expected
    assert login("cred=credentials", cwd=str(file.parent)) == expected


PASSWORDS = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=60)


@given(password=PASSWORDS.filter(lambda text: not text.endswith("\r")), end=st.sampled_from(["", "\n", "\r\n"]))
def test_any_password_survives_the_file(tmp_path_factory: pytest.TempPathFactory, password: str, end: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any-password"
    file.touch(0o600)
    file.write_bytes(f"username=u\npassword={password}{end}".encode())
    assert read_credentials_file(str(file)) == (Login("u", password), [])


@given(st.binary())
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any-bytes"
    file.write_bytes(content)
    try:
        read_credentials_file(str(file))
    except MountError as error:
        assert "UTF-8" in str(error)  # noqa: PT017 (most examples raise nothing)


def test_what_the_file_says_that_is_not_used(file: Path) -> None:
    file.write_text("username=alice\npassword=secret\npassword2=other\nsecret line\nworkgroup=x\n")
    warnings = parse(f"credentials={file}").warnings
    assert len(warnings) == 2
    assert "line 4" in warnings[0]
    assert not any("secret line" in warning or "other" in warning for warning in warnings)


def test_a_file_that_others_may_read(file: Path) -> None:
    file.write_text("username=alice\npassword=secret\n")
    for mode, warned in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        file.chmod(mode)
        assert bool(parse(f"credentials={file}").warnings) is warned
    assert "chmod 600" in parse(f"credentials={file}").warnings[0]


def test_files_that_cannot_be_used(tmp_path: Path, file: Path) -> None:
    with pytest.raises(MountError, match=r"absent cannot be read \(No such file"):
        parse(f"credentials={tmp_path}/absent")
    with pytest.raises(MountError, match="not a regular file"):
        parse("credentials=/dev/zero")
    with pytest.raises(MountError, match="Is a directory"):
        parse(f"credentials={tmp_path}")
    file.write_bytes(b"password=\xff\xfe")
    with pytest.raises(MountError, match="not UTF-8"):
        parse(f"credentials={file}")
    file.write_bytes(b"\n" * (MAX_FILE + 1))
    with pytest.raises(MountError, match="larger than"):
        parse(f"credentials={file}")
    file.write_text("x" * 5000)
    with pytest.raises(MountError, match=r"line 1 .* longer than"):
        parse(f"credentials={file}")


def test_a_pipe_as_the_file() -> None:
    """`credentials=<(pass show nas)` of a shell."""
    reader, writer = os.pipe()
    os.write(writer, b"username=alice\npassword=secret\n")
    os.close(writer)
    try:
        options = parse(f"credentials=/dev/fd/{reader}")
    finally:
        os.close(reader)
    assert options.credentials == Credentials("alice", "secret")
    assert options.warnings == ()


def test_a_fifo_that_nobody_writes_to_is_no_trap(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OptionError, match="no user name"):
        parse(f"credentials={tmp_path}/fifo")


def test_which_source_wins(file: Path) -> None:
    file.write_text("username=file\npassword=file\ndomain=FILE\n")
    base = f"credentials={file}"
    environment = {"USER": "env%env", "PASSWD": "passwd"}
    assert login(base) == ("FILE", "file", "file")
    assert login(f"{base},username=opt", environment=environment) == ("FILE", "opt", "file")
    assert login(f"username=OPT\\opt,{base}") == ("OPT", "opt", "file")
    assert login(f"password=opt,{base},domain=OPT") == ("OPT", "file", "opt")
    assert login(f"domain=D,username=OPT\\opt%one,password=two,{base}") == ("D", "opt", "two")
    assert login(f"user=mount8,{base}") == ("FILE", "file", "file")
    assert login("user=alice,pass=x") == ("", "alice", "x")
    assert login("user=bob%x,username=alice%y") == ("", "alice", "y")
    assert login("", environment=environment) == ("", "env", "env")
    assert login("username=opt", environment=environment) == ("", "opt", "passwd")
    assert login("", environment={"USER": "DOM\\env", "PASSWD": ""}) == ("DOM", "env", "")


def test_a_user_that_is_not_used_is_noted(file: Path) -> None:
    file.write_text("username=file\npassword=file\n")
    assert parse(f"credentials={file},user=bob").notes == ("option user=bob is not used: the login is that of file",)
    assert parse(f"credentials={file},user=file").notes == ()


def test_passwords_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("se cret\r\nsecond line\n")
    assert login("user=u", environment={"PASSWD_FILE": "password"}, cwd=str(tmp_path))[2] == "se cret"
    reader, writer = os.pipe()
    os.write(writer, b"from fd\nrest")
    os.close(writer)
    assert login("user=u", environment={"PASSWD_FD": str(reader)})[2] == "from fd"
    with pytest.raises(OSError):
        os.fstat(reader)
    for value in ("x", "-1", "999999"):
        with pytest.raises(MountError, match="PASSWD_FD"):
            parse("user=u", environment={"PASSWD_FD": value})
    with pytest.raises(MountError, match="PASSWD_FILE"):
        parse("user=u", environment={"PASSWD_FILE": "/absent"})
    (tmp_path / "password").write_bytes(b"\xff")
    with pytest.raises(MountError, match="UTF-8"):
        parse("user=u", environment={"PASSWD_FILE": f"{tmp_path}/password"})


def test_asking(file: Path) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "typed"

    assert login("username=alice", ask_password=ask) == ("", "alice", "typed")
    assert asked == ["Password for alice on //srv/share: "]
    assert login("username=alice,password=", ask_password=ask)[2] == ""
    assert len(asked) == 1
    with pytest.raises(MountError, match=r"username=alice.*terminal.*credentials=FILE"):
        parse("username=alice")
    with pytest.raises(OptionError, match="no user name"):
        parse("password=x", ask_password=ask)


@pytest.mark.parametrize("text", ["username={0}", "password={0},username=u", "domain={0},username=u"])
def test_limits(text: str) -> None:
    with pytest.raises(OptionError, match=r"longer than (256|512) characters") as caught:
        parse(text.format("x" * 513), environment={"PASSWD": "p"})
    assert "xxx" not in str(caught.value)
    for character in ("\0", "\udcff"):
        with pytest.raises(OptionError):
            parse(text.format(f"xxx{character}"), environment={"PASSWD": "p"})


def test_secrets_are_not_in_representations() -> None:
    options = parse("username=alice,password=hunter2")
    assert "hunter2" not in repr(options)
    assert "hunter2" not in str(options.credentials)
    assert "hunter2" not in repr(Login("alice", "hunter2"))
