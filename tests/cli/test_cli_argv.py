"""Passwords leave the list of processes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.cli.argv import HIDDEN, hide, hide_in

FAKE = Path(__file__).with_name("fake_mount.py")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ro,uid=0", "ro,uid=0"),
        ("", ""),
        (",,ro", ",,ro"),
        ("username=a,password=s3cret,ro", f"username=a,password={HIDDEN},ro"),
        ("pass=s3cret", f"pass={HIDDEN}"),
        ("password2=s3cret,pass2=s3cret", f"password2={HIDDEN},pass2={HIDDEN}"),
        (r"password=s3\,cret,ro", f"password={HIDDEN},ro"),
        ('password="s3,cret",ro', f"password={HIDDEN},ro"),
        ("password=,ro", f"password={HIDDEN},ro"),
        ("user=DOM\\a%s3cret", f"user=DOM\\a%{HIDDEN}"),
        ("username=a%s3cret%", f"username=a%{HIDDEN}"),
        # What nobody quoted, mistyped, or cannot be read is hidden rather than shown.
        ("password=a,s3cret,S3cret,ro", f"password={HIDDEN},{HIDDEN},{HIDDEN},ro"),
        ("pasword=s3cret,ro", f"{HIDDEN},ro"),
        ("=password=s3cret", HIDDEN),
        ('ro,password="s3cret', HIDDEN),
        ("credentials=/etc/x%y", "credentials=/etc/x%y"),
        ("user,users,frobnicate", "user,users,frobnicate"),
    ],
)
def test_what_is_seen_of_options(text: str, seen: str) -> None:
    assert hide(text) == seen


@given(st.text(), st.sampled_from(["password={}", 'pass="{}"', "user=u%{}", "x=1,password={},ro", "password=a,{}"]))
def test_no_secret_is_seen(secret: str, form: str) -> None:
    marked = f"s3cret{secret}".replace(",", "\\,") if "{}," not in form else f"s3cret{secret}"
    assert "s3cret" not in hide(form.format(marked))


SECRET = "username=u,password=s3cret"
CLEAN = f"username=u,password={HIDDEN}"


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["//s/h", "/m", "-o", SECRET], ["//s/h", "/m", "-o", CLEAN]),
        (["-o", SECRET, "//s/h", "/m"], ["-o", CLEAN, "//s/h", "/m"]),
        ([f"-o{SECRET}"], [f"-o{CLEAN}"]),
        (["-vo", SECRET], ["-vo", CLEAN]),
        ([f"-fvo{SECRET}"], [f"-fvo{CLEAN}"]),
        (["--options", SECRET], ["--options", CLEAN]),
        ([f"--options={SECRET}"], [f"--options={CLEAN}"]),
        ([f"-o={SECRET}"], [f"-o{HIDDEN},password={HIDDEN}"]),
        (["-t", "foo", "-o", "ro", "-o", SECRET], ["-t", "foo", "-o", "ro", "-o", CLEAN]),
        (["mount", "//s/h", "/m", "-o", SECRET], ["mount", "//s/h", "/m", "-o", CLEAN]),
        (["//s/h", "/m", "-o"], ["//s/h", "/m", "-o"]),
        (["//s/home", "/mnt/o", "-v", "--foreground"], ["//s/home", "/mnt/o", "-v", "--foreground"]),
    ],
)
def test_what_is_seen_of_arguments(words: list[str], seen: list[str]) -> None:
    assert hide_in(words) == seen


def started(*words: str, flags: tuple[str, ...] = ()) -> tuple[list[object], list[bytes], list[bytes], list[int]]:
    """Start the program and return its arguments as it knows them, as others see them, its environment, its flags."""
    command = [sys.executable, *flags, str(FAKE), *words]
    done = subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, "CONDUCT": "show arguments"}, timeout=20
    )
    arguments, cmdline, environment, python = map(ast.literal_eval, done.stdout.decode().splitlines())
    return arguments, cmdline, environment, python


def test_the_kernel_shows_no_password() -> None:
    words = ["//s/h", "/m t", "-o", "username=ü,password=s3\\,cret", "-v", ""]
    arguments, cmdline, environment, flags = started(*words, flags=("-s", "-X", "utf8"))
    assert arguments == [words, True]
    assert not any(b"cret" in word for word in cmdline + environment)
    # Otherwise the command is what it was: interpreter, flags, script, and every other word.
    assert cmdline[:5] == [os.fsencode(word) for word in (sys.executable, "-s", "-X", "utf8", str(FAKE))]
    assert cmdline[5:8] == [b"//s/h", b"/m t", b"-o"]
    assert flags == [1, 1]


def test_without_a_password_nothing_starts_again() -> None:
    arguments, cmdline, _, _ = started("//s/h", "/m", "-o", "credentials=/x")
    assert arguments == [["//s/h", "/m", "-o", "credentials=/x"], False]
    assert cmdline[-2] == b"credentials=/x"
