"""The one table of mount options: what each name does, or why it does nothing, or why it is refused.

The names are those of mount.cifs 7.6 and the Linux client, of mount(8), and a few of our own. Each row ends in exactly
one of four verdicts, so that no option is ever parsed and forgotten:

USED     it changes fields of `MountOptions`
STATED   it says what happens anyway, or asks for something harmless that has no meaning here: one line in the log
DROPPED  it is addressed to mount(8) or systemd, which have read it already
REFUSED  it asks for what this version does not do, and going on would break a promise: one sentence, and no mount
"""

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple

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


class Verdict(Enum):
    """What becomes of an option."""

    USED = "used"
    STATED = "stated"
    DROPPED = "dropped"
    REFUSED = "refused"


class Takes(Enum):
    """Whether an option is written with a value."""

    NOTHING = "nothing"
    VALUE = "a value"
    EITHER = "a value or nothing"


class Option(NamedTuple):
    """One row: its spellings, its verdict, and what that needs (an effect, or a sentence)."""

    names: tuple[str, ...]
    verdict: Verdict
    takes: Takes
    effect: Effect = lambda _: {}
    sentence: str = ""
    # Values of an option that is used otherwise, which change nothing.
    noted: frozenset[str] = frozenset()


def value(names: str, effect: Effect, sentence: str = "", noted: Collection[str] = ()) -> Option:
    """Return the row of an option that needs a value; of the values in `noted` a line in the log says the sentence."""
    return Option(tuple(names.split()), Verdict.USED, Takes.VALUE, effect, sentence, frozenset(noted))


def flag(names: str, **fields: object) -> Option:
    """Return the row of an option that stands alone and sets `fields`."""
    return Option(tuple(names.split()), Verdict.USED, Takes.NOTHING, lambda _: fields)


def stated(names: str, sentence: str) -> Option:
    """Return the row of an option that changes nothing here, and the sentence that says so."""
    return Option(tuple(names.split()), Verdict.STATED, Takes.EITHER, sentence=sentence)


def dropped(names: str) -> Option:
    """Return the row of an option that mount(8) or systemd read."""
    return Option(tuple(names.split()), Verdict.DROPPED, Takes.EITHER)


def refused(names: str, sentence: str) -> Option:
    """Return the row of an option that ends the mount, and the sentence: why, and what to do instead."""
    return Option(tuple(names.split()), Verdict.REFUSED, Takes.EITHER, sentence=sentence)


# Values. A ValueError's text completes the sentence "option name=value: ...".


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
        case "none" | "strict":
            return {"cache": text}
        case "loose" | "ro" | "singleclient":
            return {"cache": "strict"}
        case _:
            raise ValueError("give strict or none")


def character_set(text: str) -> Mapping[str, Any]:
    """Accept the one character set that file names have here."""
    if text.lower() not in ("utf8", "utf-8"):
        raise ValueError("file names are UTF-8 here; use iocharset=utf8 or leave it out")
    return {}


def one_channel(text: str) -> Mapping[str, Any]:
    """Accept the one connection that a mount has."""
    if number(1, 16)(text) > 1:
        raise ValueError("several connections for one mount are not supported by this version; use max_channels=1")
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


_LATER: Final = "not supported by this version; leave it out"
_ACL: Final = f"mapping access lists to owner and mode is {_LATER}, and use uid=, gid=, file_mode= and dir_mode="
_LEASE: Final = "this version asks the server for no leases, so no handle stays open after the last close"
_ATIME: Final = "access times are kept by the server, not by the kernel"
_SMB1: Final = "it belongs to SMB 1 and NetBIOS, which are not used"
_UNIX: Final = "the POSIX and UNIX extensions are not used"
_SELINUX: Final = f"one security label for the whole mount is {_LATER}"

OPTIONS: Final[tuple[Option, ...]] = (
    # Who logs in. What a name and a password may look like, and which source wins: smb3fs/credentials.py.
    value("username", into("username", str)),
    # Bare `user` is addressed to mount(8), which hands over the flags that it implies by name; see `find`.
    value("user", into("user", str)),
    value("password pass", into("password", str)),
    value("credentials cred", into("credentials_file", text_of("a path", 4096))),
    value("domain dom workgroup", into("domain", str)),
    value("sec", security),
    flag("guest", guest=True),
    value("password2 pass2", into("password2", str)),
    refused("domainauto", "the domain is not taken from the server; use domain=NAME or leave it out"),
    refused("multiuser", "a session for each local user is not supported by this version; mount once for each user"),
    value("cruid", into("cruid", user_id)),
    value("keytab", into("keytab", text_of("a path", 4096))),
    stated("upcall_target", "there is no Kerberos upcall"),
    # How the server is reached.
    value("ip addr", into("address", ip_address)),
    value("port", into("port", number(1, 65535))),
    value("timeout", into("timeout", seconds(1, 3600))),
    value("echo_interval", into("echo_interval", seconds(1, 600))),
    flag("soft", hard=False),
    flag("hard", hard=True),
    value("retrans", into("retrans", number(0, 2**31 - 1))),
    value("srcaddr", into("source_address", ip_address)),
    stated("nosharesock", "each mount has a connection of its own"),
    refused("sharesock", "each mount has a connection of its own; leave it out"),
    stated("tcpnodelay noblocksend noautotune", "sockets send without delay and never block the daemon"),
    stated("netbiosname servern nbsessinit", _SMB1),
    # What is negotiated.
    value("vers ver", versions),
    stated("sign", "whatever a session carries is signed or encrypted, always"),
    flag("seal", seal=True),
    value("cipher", ciphers),
    refused("signloosely ignore_signature", "a wrong signature always ends the connection; leave it out"),
    stated("esize min_enc_offload", "large messages are decrypted by threads without being told"),
    refused("compress", f"compression is {_LATER}"),
    stated("nocompress", "nothing is compressed"),
    refused("multichannel", f"several connections for one mount are {_LATER}"),
    stated("nomultichannel", "a mount has one connection"),
    Option(("max_channels",), Verdict.STATED, Takes.VALUE, one_channel, "a mount has one connection"),
    refused("rdma", f"SMB Direct is {_LATER}"),
    # The limits of the Linux client.
    value("max_credits", into("max_credits", number(20, 60_000))),
    # What happens when the server goes away or moves.
    refused("persistenthandles resilienthandles", f"keeping files open over a lost connection is {_LATER}"),
    stated("nopersistenthandles noresilienthandles", "files that are open when the connection is lost answer EIO"),
    refused("handletimeout", f"keeping files open over a lost connection is {_LATER}"),
    refused("witness", f"the Witness service is {_LATER}"),
    flag("dfs", follow_links=True),
    flag("nodfs", follow_links=False),
    value("snapshot", into("snapshot", snapshot)),
    # Owner, mode, permissions.
    value("uid", into("uid", user_id)),
    value("gid", into("gid", group_id)),
    stated("forceuid forcegid noforceuid noforcegid", "uid= and gid= own every file, always"),
    value("file_mode fmask", into("file_mode", octal_mode)),
    value("dir_mode dirmode dmask", into("dir_mode", octal_mode)),
    flag("noperm", noperm=True),
    flag("perm default_permissions", noperm=False),
    flag("dynperm", dynperm=True),
    flag("nodynperm", dynperm=False),
    refused("cifsacl acl idsfromsid setuidfromacl modefromsid modesid", _ACL),
    stated("nocifsacl noacl noidsfromsid nomodefromsid", "uid=, gid=, file_mode= and dir_mode= say who may do what"),
    flag("user_xattr", user_xattr=True),
    flag("nouser_xattr", user_xattr=False),
    stated("setuids nosetuids rwpidforward", "new files belong to uid= and gid=, and locks never reach the server"),
    refused("backupuid backupgid", f"opening files with backup intent is {_LATER}"),
    refused("posix unix linux posixpaths", f"the SMB3 POSIX extensions are {_LATER}"),
    stated("noposix nounix nolinux noposixpaths", _UNIX),
    # Caching and the sizes of requests.
    # What the looser modes give up, freshness, is not given up: they are taken for the default.
    value("cache", cache_mode, "cache=strict is used, which shows what others write", ("loose", "ro", "singleclient")),
    # The limit of the Linux client (CIFS_MAX_ACTIMEO, 2**30 ticks).
    value("actimeo", lambda text: dict.fromkeys(("acregmax", "acdirmax"), seconds(0, 2**30)(text))),
    value("acregmax", into("acregmax", seconds(0, 2**30))),
    value("acdirmax", into("acdirmax", seconds(0, 2**30))),
    flag("noac", acregmax=0.0, acdirmax=0.0),
    # [MS-SMB2] 3.3.5.4: servers allow 8 MiB a request; one page is the least that makes sense.
    value("rsize", into("rsize", number(4096, 8 << 20))),
    value("wsize", into("wsize", number(4096, 8 << 20))),
    # The limits of the Linux client.
    value("bsize", into("bsize", number(16 << 10, 16 << 20))),
    value("rasize", into("rasize", number(0, 64 << 20))),
    stated("nolease nohandlecache", _LEASE),
    stated("handlecache max_cached_dirs closetimeo locallease", _LEASE),
    flag("strictsync", strictsync=True),
    flag("nostrictsync", strictsync=False),
    stated("fsc", "there is no FS-Cache"),
    stated("nobrl nolock", "fcntl and flock locks are local to this machine; other clients do not see them"),
    refused(
        "brl forcemandatorylock forcemand",
        f"locks on the server are {_LATER}; fcntl and flock locks are local to this machine",
    ),
    # Names and kinds of files.
    flag("serverino", server_inodes=True),
    flag("noserverino", server_inodes=False),
    # The last one of these counts.
    flag("mapposix", name_mapping="mapposix"),
    flag("mapchars", name_mapping="mapchars"),
    flag("nomapchars nomapposix", name_mapping="nomapchars"),
    Option(("iocharset",), Verdict.STATED, Takes.VALUE, character_set, "file names are UTF-8"),
    stated("utf8 unicode", "file names are UTF-8"),
    refused("nounicode", "SMB 3 knows Unicode alone; leave it out"),
    flag("nocase ignorecase", nocase=True),
    flag("mfsymlinks", mfsymlinks=True),
    flag("nomfsymlinks", mfsymlinks=False),
    value("symlink", link_notation),
    value("reparse", special_notation),
    value("symlinkroot", into("symlink_root", absolute_directory)),
    refused("sfu", "links and special files of Services for Unix are not known; use mfsymlinks or leave it out"),
    refused("nativesocket", "sockets are made in the notation of reparse=nfs; leave it out"),
    stated("nosfu nonativesocket", "sockets are made in the notation of reparse=nfs"),
    flag("nodelete", nodelete=True),
    stated("nosparse", "files are never made sparse"),
    stated("intr nointr", "a call can be given up at any time, and ends by itself after timeout="),
    # Parts of the source.
    value("prefixpath", into("prefixpath", str)),
    # What says the same as the source is accepted; see `parse_mount_options`.
    *(value(name, into(name, str)) for name in ("unc", "path", "source", "target")),
    # What the kernel and FUSE are told. A server without us may hold device nodes, so dev and suid must be asked for.
    flag("ro", read_only=True),
    flag("rw", read_only=False),
    flag("suid", nosuid=False),
    flag("nosuid", nosuid=True),
    flag("dev", nodev=False),
    flag("nodev", nodev=True),
    flag("exec", noexec=False),
    flag("noexec", noexec=True),
    flag("async", sync=False),
    flag("sync", sync=True),
    flag("dirsync", dirsync=True),
    flag("atime", noatime=False),
    flag("noatime", noatime=True),
    flag("diratime", nodiratime=False),
    flag("nodiratime", nodiratime=True),
    stated("relatime norelatime strictatime nostrictatime lazytime nolazytime", _ATIME),
    flag("allow_other", allow_other=True),
    flag("noallow_other", allow_other=False),
    refused("allow_root", "use allow_other, which admits root and everybody else, and file_mode= to keep those out"),
    value("fsname", into("fsname", text_of("a name", 4096))),
    value("fuse", into("fuse", fuse_driver)),
    Option(("subtype",), Verdict.STATED, Takes.VALUE, our_type, "the type of the mount is fuse.smb3fs"),
    refused("context fscontext defcontext rootcontext seclabel", _SELINUX),
    stated("mand nomand iversion noiversion silent loud", "it has no meaning for a filesystem in user space"),
    refused("bind rbind move", "it is no mount of a share; leave it out, or call mount(8) without a type"),
    # For mount(8) and systemd; names that begin with x- or X- are dropped too, see `find`.
    flag("nofail", nofail=True),
    dropped("defaults auto noauto users nousers nouser owner noowner group nogroup _netdev comment loop"),
    # Read before all others, see `parse_mount_options`.
    dropped("sloppy"),
)


def find(name: str, text: str | None) -> Option | None:
    """Return the row for an option as it was written, None where no row has its name."""
    if name.startswith(("x-", "X-")) or (name == "user" and not text):
        return Option((name,), Verdict.DROPPED, Takes.EITHER)
    return next((row for row in OPTIONS if name in row.names), None)
