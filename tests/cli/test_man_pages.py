"""The man pages: every option of the table under the heading that its verdict calls for, and clean roff."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from smb3fs.cli import mount_command, smb3fs_command
from smb3fs.option_table import OPTIONS, Option, Verdict
from smb3fs.option_values import CIPHERS
from smb3fs.options import MountOptions

MAN = Path(__file__).resolve().parents[2] / "man"
PAGE = (MAN / "mount.smb3fs.8").read_text()


def section(title: str) -> str:
    """The text between a heading and the next."""
    match = re.search(rf"^\.S[HS] {re.escape(title)}\n(.*?)(?=^\.S[HS] |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[1]


def bold(text: str) -> set[str]:
    """The names that are set in bold, without their values."""
    words: set[str] = set()
    for line in text.replace("\\\n", "").splitlines():
        match = re.match(r"\.(B|BR|BI|IB|RB) (.*)", line)
        if match:
            plain = re.sub(r"\\fI.*?\\fP|\\fR", "", match[2].replace("\\-", "-"))
            # Of macros that alternate with italics only the bold half; the roman half is nothing but punctuation.
            chosen = plain.split()[match[1] == "IB" :: 2] if "I" in match[1] else [plain]
            words |= {word.partition("=")[0] for part in chosen for word in re.split(r'[\s,"]+', part) if word}
    return words


HEADINGS = {
    Verdict.USED: [
        "Login",
        "Connection",
        "POSIX extensions",
        "Owner, mode and permissions",
        "Caching and the sizes of requests",
        "Symbolic links and special files",
        "Names and inode numbers",
        "Kernel",
        "Options for mount(8) and systemd",
    ],
    Verdict.STATED: ["Options that change nothing"],
    Verdict.REFUSED: ["Options that are refused"],
    Verdict.DROPPED: ["Options for mount(8) and systemd"],
}


@cache
def described(verdict: Verdict) -> frozenset[str]:
    """The names under the headings that a verdict calls for."""
    return frozenset[str]().union(*(bold(section(title)) for title in HEADINGS[verdict]))


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row.names[0])
def test_every_option_is_described_where_it_belongs(row: Option) -> None:
    assert set(row.names) <= described(row.verdict)


def test_nothing_is_described_that_is_not_there() -> None:
    known = {name for row in OPTIONS for name in row.names}
    for titles in HEADINGS.values():
        for title in titles:
            tagged = re.findall(
                r"^\.TP\n((?:\.B.*\n)(?:[^.\n].*\n)?)", section(title).replace("\\\n", ""), re.MULTILINE
            )
            assert {word for tag in tagged for word in bold(tag)} <= known, title


def test_the_defaults_are_those_of_the_code() -> None:
    defaults = {field: MountOptions.__dataclass_fields__[field].default for field in MountOptions.__slots__}
    for option, field in (
        ("port", "port"),
        ("timeout", "timeout"),
        ("echo_interval", "echo_interval"),
        ("actimeo", "acregmax"),
        ("actimeo", "acdirmax"),
        ("rsize", "rsize"),
        ("wsize", "wsize"),
        ("bsize", "bsize"),
        ("rasize", "rasize"),
        ("wcache", "wcache"),
    ):
        match = re.search(rf"^\.B[IR] .*\b{option}=.*\n(?:[^.].*\n)*?.*\(default (\d+)", PAGE, re.MULTILINE)
        assert match is not None, option
        assert float(match[1]) == float(str(defaults[field])), option
    names = {number: name for name, number in CIPHERS.items()}
    ciphers = MountOptions.__dataclass_fields__["ciphers"].default
    assert ":".join(names[number] for number in ciphers) in PAGE.replace("\\-", "-")


def test_every_flag_of_the_command_is_described() -> None:
    flags = bold(section("COMMAND LINE"))
    for action in mount_command.parser("x")._actions:
        if action.option_strings:
            assert set(action.option_strings) & flags, action.option_strings


def test_every_subcommand_is_described() -> None:
    text = (MAN / "smb3fs.1").read_text()
    for command in ("status", "top", "metrics", "snapshots", "mount", "install-helper"):
        assert f"smb3fs {command}" in text
        with pytest.raises(SystemExit) as caught:
            smb3fs_command.run([command, "--help"])
        assert caught.value.code == 0


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda page: page.name)
def test_the_roff_is_clean(page: Path) -> None:
    done = subprocess.run(
        ["groff", "-t", "-man", "-ww", "-z", "-Tutf8", str(page)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stderr == ""
