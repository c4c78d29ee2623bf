"""Keeping passwords out of the list of processes.

Whoever may read /proc sees the arguments of every process. A password among them cannot be unsaid, but it need not
stand there for as long as the mount lives: the command starts itself again with its true arguments in an anonymous file
and a copy without secrets in their place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import Final, NamedTuple, NoReturn

from smb3fs.errors import OptionError
from smb3fs.option_table import find
from smb3fs.options import SECRET, SECRET_AFTER_PERCENT, split_options

# Names the descriptor of the anonymous file for the second start.
VARIABLE: Final = "_SMB3FS_ARGUMENTS_FD"
HIDDEN: Final = "(hidden)"
# The options of the mount commands that stand alone, and may stand in front of an o in one word: -vo ro.
FLAGS: Final = "sfnvrwdhV"


class Arguments(NamedTuple):
    """The arguments that a person gave, and whether a password was among them."""

    words: list[str]
    had_secret: bool


def hide(text: str) -> str:
    """Return option text with every password replaced; what cannot be taken apart is hidden as a whole."""
    try:
        items = split_options(text)
    except OptionError:
        return HIDDEN
    seen = []
    behind_secret = False
    for item in items:
        known = find(item.name, item.value) is not None
        behind_secret = (behind_secret and not known) or (item.name in SECRET and item.value is not None)
        if item.name in SECRET and item.value is not None:
            seen.append(f"{item.name}={HIDDEN}")
        elif behind_secret or (item.value is not None and not known):
            # No option, and behind a password: the password had a comma in it that nobody quoted.
            seen.append(HIDDEN)
        elif item.name in SECRET_AFTER_PERCENT and item.value is not None and "%" in item.value:
            seen.append(f"{item.raw.partition('%')[0]}%{HIDDEN}")
        else:
            seen.append(item.raw)
    return text if seen == [item.raw for item in items] else ",".join(seen)


def hide_in(words: Sequence[str]) -> list[str]:
    """Return the arguments of a mount command with the passwords replaced in whatever is text of `-o`."""
    seen: list[str] = []
    expects_options = False
    for word in words:
        letters, o, text = word.partition("o")
        if expects_options:
            seen.append(hide(word))
            expects_options = False
        elif word.startswith("--options"):
            name, equals, text = word.partition("=")
            seen.append(name + equals + hide(text))
            expects_options = not equals
        elif o and letters.startswith("-") and set(letters[1:]) <= set(FLAGS):
            seen.append(letters + o + hide(text))
            expects_options = not text
        else:
            seen.append(word)
    return seen


def without_secrets(environment: MutableMapping[str, str]) -> Arguments:
    """Return the arguments of this command, none of which shows a password to others.

    Where one does, this call does not return: the same interpreter runs the same command again with clean arguments.
    """
    descriptor = environment.pop(VARIABLE, None)
    if descriptor is not None:
        with open(int(descriptor), encoding="utf-8", errors="surrogateescape") as file:
            return Arguments(file.read().split("\0"), True)
    words = sys.argv[1:]
    clean = hide_in(words)
    if clean != words:
        _start_again(words, clean, environment)
    return Arguments(words, False)


def _start_again(words: Sequence[str], clean: Sequence[str], environment: MutableMapping[str, str]) -> NoReturn:
    """Run this command again under the arguments `clean`, with its true ones in an anonymous file."""
    secret = os.memfd_create("smb3fs-arguments", 0)  # 0: it stays open across the exec
    with open(secret, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        file.write("\0".join(words))
    os.lseek(secret, 0, os.SEEK_SET)
    environment[VARIABLE] = str(secret)
    # orig_argv has the interpreter, its flags and the script in front of our words, whichever way we were started.
    start = sys.orig_argv[: len(sys.orig_argv) - len(words)]
    os.execve(sys.executable, [*start, *clean], environment)  # noqa: S606 (no shell is what is wanted)
