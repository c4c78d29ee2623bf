"""The one table of mount options: what each name does, or why it does nothing, or why it is refused.

The names are those of mount.cifs 7.6 and the Linux client, of mount(8), and a few of our own. Each row ends in exactly
one of four verdicts, so that no option is ever parsed and forgotten:

USED     it changes fields of `MountOptions`
STATED   it says what happens anyway, or asks for something harmless that has no meaning here: one line in the log
DROPPED  it is addressed to mount(8) or systemd, which have read it already
REFUSED  it asks for what this version does not do, and going on would break a promise: one sentence, and no mount
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final, NamedTuple

from smb3fs.option_values import (
    Effect,
    absolute_directory,
    cache_mode,
    character_set,
    ciphers,
    fuse_driver,
    group_id,
    interface_names,
    into,
    ip_address,
    link_notation,
    number,
    octal_mode,
    our_type,
    seconds,
    security,
    snapshot,
    special_notation,
    text_of,
    user_id,
    versions,
)


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


def _read_ahead(text: str) -> dict[str, object]:
    """Return the effect of `rasize=`: how far the kernel reads ahead, and how far we do, ahead of the kernel."""
    size = number(0, 64 << 20)(text)
    return {"rasize": size, "read_ahead": size}


_LATER: Final = "not supported by this version; leave it out"
_ACL: Final = f"mapping access lists to owner and mode is {_LATER}, and use uid=, gid=, file_mode= and dir_mode="
_HANDLES: Final = "how many directories stay open follows from how much is in them"
_ATIME: Final = "access times are kept by the server, not by the kernel"
_SMB1: Final = "it belongs to SMB 1 and NetBIOS, which are not used"
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
    flag("domainauto", servers_domain=True),
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
    flag("multichannel", multichannel=True),
    flag("nomultichannel", multichannel=False),
    # The limit of the Linux client (CIFS_MAX_CHANNELS).
    value("max_channels", into("max_channels", number(1, 16))),
    value("interfaces", into("interfaces", interface_names)),
    value("exclude_interfaces", into("excluded_interfaces", interface_names)),
    flag("mixlinks", mixed_links=True),
    flag("nomixlinks", mixed_links=False),
    refused("rdma", f"SMB Direct is {_LATER}"),
    # The limits of the Linux client.
    value("max_credits", into("max_credits", number(20, 60_000))),
    # What happens when the server goes away or moves.
    flag("persistenthandles", persistent=True),
    flag("nopersistenthandles", persistent=False),
    stated("resilienthandles noresilienthandles", "durable handles are asked for, which do more"),
    # In milliseconds; the limit of the Linux client, 16 minutes.
    value("handletimeout", into("handle_timeout", number(0, 960_000))),
    refused("witness", f"the Witness service is {_LATER}"),
    flag("dfs", follow_links=True),
    flag("nodfs", follow_links=False),
    value("snapshot", into("snapshot", snapshot)),
    # Owner, mode, permissions.
    value("uid", into("uid", user_id)),
    value("gid", into("gid", group_id)),
    flag("forceuid", forces_uid=True),
    flag("forcegid", forces_gid=True),
    flag("noforceuid", forces_uid=False),
    flag("noforcegid", forces_gid=False),
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
    stated("setuids nosetuids", "new files belong to uid= and gid="),
    stated("rwpidforward", "locks of this machine's processes are in no other's way on the server"),
    refused("backupuid backupgid", f"opening files with backup intent is {_LATER}"),
    flag("posix unix linux", posix=True),
    flag("noposix nounix nolinux", posix=False),
    stated("posixpaths noposixpaths", "paths have slashes where the POSIX extensions are used, and there alone"),
    # Caching and the sizes of requests.
    # What these modes give up, freshness, is not given up: they are taken for the default.
    value("cache", cache_mode, "cache=strict is used, which shows what others write", ("ro", "singleclient")),
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
    value("rasize", _read_ahead),
    value("wcache", into("wcache", number(0, 1 << 30))),
    flag("nolease", leases=False),
    flag("nohandlecache", handle_cache=False),
    flag("handlecache", handle_cache=True),
    # The limit of the Linux client (SMB3_MAX_DCLOSETIMEO, 2**30 ticks).
    value("closetimeo", into("closetimeo", seconds(0, 2**30))),
    value("max_cached_handles", into("max_cached_handles", number(0, 100_000))),
    stated("max_cached_dirs", _HANDLES),
    stated("locallease", "leases are the server's; this version gives programs none by fcntl"),
    flag("strictsync", strictsync=True),
    flag("nostrictsync", strictsync=False),
    stated("fsc", "there is no FS-Cache"),
    flag("nobrl nolock", server_locks=False),
    flag("brl lock", server_locks=True),
    stated("forcemandatorylock forcemand", "locks are mandatory on the server; nobrl keeps them from it"),
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
