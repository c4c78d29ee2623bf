"""What may stand behind the = of a mount option, and what it becomes.

Each converter takes the text and raises ValueError where that makes no sense; what the error says completes the
sentence "option name=value: ...".
"""

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

# [MS-SMB2] 2.2.3: the dialects by number; 2.2.3.1.2: the ciphers by name.
SMB_3_0: Final = 0x0300
SMB_3_1_1: Final = 0x0311
# How mount.cifs writes the dialects, and Samba in its own way of writing 2.0.2.
DIALECTS: Final[Mapping[str, int]] = {
    "2.0": 0x0202,
    "2.0.2": 0x0202,
    "2.02": 0x0202,
    "2.1": 0x0210,
    "3.0": SMB_3_0,
    "3.0.2": 0x0302,
    "3.02": 0x0302,
    "3.1.1": SMB_3_1_1,
    "3.11": SMB_3_1_1,
}
CIPHERS: Final[Mapping[str, int]] = {"aes-128-gcm": 2, "aes-256-gcm": 4, "aes-128-ccm": 1, "aes-256-ccm": 3}
# What can connect the mount to the kernel.
FUSE_DRIVERS: Final = ("native", "pyfuse3")

Effect = Callable[[str], Mapping[str, Any]]


def into(field: str, convert: Callable[[str], object]) -> Effect:
    """Return the effect that stores the converted value in one field."""
    return lambda text: {field: convert(text)}


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter of decimal numbers from `low` to `high`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return convert


def seconds(low: float, high: int) -> Callable[[str], float]:
    """Return a converter of seconds from `low` to `high`, with decimals."""

    def convert(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,9})?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(f"give a number of seconds from {low:g} to {high}")
        return float(text)

    return convert


def octal_mode(text: str) -> int:
    """Convert permission bits."""
    if not re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) or int(text, 8) > 0o7777:
        raise ValueError("give permission bits in octal, for example 0755")
    return int(text, 8)


def user_id(text: str) -> int:
    """Convert a user's name or number; a number wins over a name that looks like one, as in chown(1) with `+`."""
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        return _id_number(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError("no such user; give a name from the user database or a number") from None


def group_id(text: str) -> int:
    """Convert a group's name or number."""
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        return _id_number(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ValueError("no such group; give a name from the group database or a number") from None


def _id_number(text: str) -> int:
    """Convert a number of a user or group; the kernel reads the largest 32-bit value as "nobody in particular"."""
    if len(text) > 10 or int(text) >= 2**32 - 1:
        raise ValueError(f"give a name or a number below {2**32 - 1}")
    return int(text)


def ip_address(text: str) -> str:
    """Convert an address literal; an IPv6 address may carry brackets and a scope."""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError("give an IPv4 or IPv6 address; a name belongs into the source, //NAME/share") from None


def interface_names(text: str) -> tuple[str, ...]:
    """Convert names of network interfaces, or patterns of them, between colons; linux/if.h has how long they may be."""
    names = tuple(text.split(":"))
    if not all(re.fullmatch(r"[^/\s]{1,15}", name) and name.isprintable() for name in names):
        raise ValueError("give names of network interfaces with colons between them, for example eth0:wl*")
    return names


def text_of(what: str, limit: int) -> Callable[[str], str]:
    """Return a converter of short free text without control characters."""

    def convert(text: str) -> str:
        if not text or len(text) > limit or not text.isprintable():
            raise ValueError(f"give {what} of 1 to {limit} printable characters")
        return text

    return convert


def snapshot(text: str) -> str:
    """Check the time of a previous version: a token, or a number of 100 ns intervals since 1601."""
    try:
        if text.isdecimal():
            if 0 < int(text) < 2**63:
                return text
        elif datetime.strptime(text, "@GMT-%Y.%m.%d-%H.%M.%S"):
            return text
    except ValueError:
        pass
    raise ValueError(
        "give the time as @GMT-YYYY.MM.DD-HH.MM.SS, as 'smb3fs snapshots' prints it, or as a number of 100 ns "
        "intervals since 1601"
    )


def versions(text: str) -> Mapping[str, Any]:
    """Convert a dialect, a range of them as LOW-HIGH, or a word for the default range."""
    if text in ("3", "default"):
        text = "3.0-3.1.1"
    low, _, high = text.partition("-") if "-" in text else (text, "", text)
    if {"1", "1.0"} & {low, high}:
        raise ValueError("SMB 1 is insecure and not supported; enable SMB 3 on the server and use vers=3")
    if low not in DIALECTS or high not in DIALECTS:
        raise ValueError("give 2.0, 2.1, 3.0, 3.0.2, 3.1.1, a range of these (2.1-3.1.1), 3 or default")
    if DIALECTS[low] > DIALECTS[high]:
        raise ValueError(f"no dialect is as new as {low} and as old as {high}; give the older one first")
    return {"version_min": DIALECTS[low], "version_max": DIALECTS[high]}


def ciphers(text: str) -> Mapping[str, Any]:
    """Convert a list of ciphers in order of preference, separated by colons."""
    names = text.lower().split(":")
    if len(set(names)) != len(names) or not set(names) <= set(CIPHERS):
        raise ValueError(f"give one or several of {', '.join(CIPHERS)}, separated by colons, the preferred one first")
    return {"ciphers": tuple(CIPHERS[name] for name in names)}


def security(text: str) -> Mapping[str, Any]:
    """Convert a way to log in; the trailing i of mount.cifs demands signatures, which there are always."""
    match text:
        case "ntlmssp" | "ntlmsspi":
            return {"security": "ntlmssp"}
        case "krb5" | "krb5i":
            return {"security": "krb5"}
        case "none":
            return {"security": "none"}
        case "krb5p":
            raise ValueError("encryption is not asked for this way; use sec=krb5 and seal")
        case "ntlm" | "ntlmi" | "ntlmv2" | "ntlmv2i" | "lanman":
            raise ValueError("this is a login of SMB 1; use sec=ntlmssp, which carries NTLMv2")
        case _:
            raise ValueError("give ntlmssp, ntlmsspi, krb5, krb5i or none")


def fuse_driver(text: str) -> str:
    """Convert the name of a driver."""
    if text not in FUSE_DRIVERS:
        raise ValueError(f"give {' or '.join(FUSE_DRIVERS)}")
    return text


def cache_mode(text: str) -> Mapping[str, Any]:
    """Convert the cache mode."""
    match text:
        case "none" | "strict" | "loose":
            return {"cache": text}
        case "ro" | "singleclient":
            return {"cache": "strict"}
        case _:
            raise ValueError("give strict, loose or none")


def character_set(text: str) -> Mapping[str, Any]:
    """Accept the one character set that file names have here."""
    if text.lower() not in ("utf8", "utf-8"):
        raise ValueError("file names are UTF-8 here; use iocharset=utf8 or leave it out")
    return {}


def link_notation(text: str) -> Mapping[str, Any]:
    """Convert how symbolic links are made; those of Minshall and French are recognised where they are made."""
    match text:
        case "default":
            return {}
        case "native" | "none":
            return {"symlink": text}
        case "mfsymlinks":
            return {"symlink": text, "mfsymlinks": True}
        case "unix":
            raise ValueError("it belongs to SMB 1; leave it out, and links are made as native reparse points")
        case "sfu" | "nfs" | "wsl":
            raise ValueError("links of this kind are read, but not made; use symlink=native or mfsymlinks")
        case _:
            raise ValueError("give default, native, mfsymlinks or none")


def special_notation(text: str) -> Mapping[str, Any]:
    """Convert how pipes, sockets and devices are made."""
    match text:
        case "default":
            return {}
        case "nfs" | "none":
            return {"special_files": text}
        case "wsl":
            raise ValueError("special files of this kind are read, but not made; use reparse=nfs")
        case _:
            raise ValueError("give default, nfs or none")


def absolute_directory(text: str) -> str:
    """Convert the path of a directory on this machine."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("give the absolute path of a directory, for example /mnt")
    return text


def our_type(text: str) -> Mapping[str, Any]:
    """Accept the one type under which `smb3fs status` and the check for a second mount find mounts."""
    if text != "smb3fs":
        raise ValueError("the type of the mount is fuse.smb3fs; leave it out")
    return {}
