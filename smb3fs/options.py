r"""Mount options: from the text of `-o` and the source to one checked, immutable value.

Text is split at commas. Inside a value `\,` is a comma and `\\` a backslash; a backslash before anything else is
itself, so `DOMAIN\user` needs no care. A value that begins with `"` goes on to the next `"`; inside it commas and
backslashes are ordinary and `""` is one quotation mark. mount(8) and mount.fuse3 hand both forms through untouched.
What each option means stands in `option_table`, and which source of a login wins in `credentials`.
"""

from __future__ import annotations

import difflib
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from smb3fs import credentials, login_options
from smb3fs.credentials import Credentials, Login, LoginSource
from smb3fs.errors import MountError, OptionError
from smb3fs.option_table import OPTIONS, Option, Takes, Verdict, find
from smb3fs.option_values import CIPHERS, SMB_3_0, SMB_3_1_1, number

# Options whose values are never shown: not in a message, not in the list of processes.
SECRET: Final = frozenset({"password", "pass", "password2", "pass2"})
# Options that may carry a password after a %.
SECRET_AFTER_PERCENT: Final = frozenset({"username", "user"})
# Options that say again what the source says.
SAME_SHARE: Final = frozenset({"unc", "path", "source", "target"})
# Options that say which connections there are beside the first one.
OF_SEVERAL: Final = frozenset({"interfaces", "exclude_interfaces", "mixlinks"})
# How many connections a mount may have if nothing is said, each by a link of its own.
DEFAULT_CHANNELS: Final = 4
# What the kernel is told about the mount as a whole, apart from ro: the flags of mount(2), in mount(8)'s words.
KERNEL_FLAGS: Final = ("nosuid", "nodev", "noexec", "sync", "dirsync", "noatime", "nodiratime")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """Everything that decides how a share is mounted. Times are seconds, sizes are bytes."""

    # The share. `prefix_path` is the directory that becomes the root, components joined by a backslash.
    server: str
    share: str
    prefix_path: str = ""
    address: str | None = None
    port: int = 445
    # Who logs in and how; `login_source` is read again when that may have changed.
    credentials: Credentials
    login_source: LoginSource
    security: str = "ntlmssp"
    # Whether a user without a domain is one of the domain that the server names.
    servers_domain: bool = False
    guest: bool = False
    keytab: str | None = None
    cruid: int | None = None
    sudo_uid: int | None = None
    # Dialects as numbers ([MS-SMB2] 2.2.3), ciphers in order of preference ([MS-SMB2] 2.2.3.1.2).
    version_min: int = SMB_3_0
    version_max: int = SMB_3_1_1
    ciphers: tuple[int, ...] = tuple(CIPHERS.values())
    seal: bool = False
    # Whether DFS links are followed to the servers that they name.
    follow_links: bool = True
    # The local address to connect from.
    source_address: str | None = None
    # No call takes longer than `timeout`, unless `hard` has it wait for the server for as long as it takes; a request
    # that is lost is repeated `retrans` times (None: as often as it takes); an idle connection is probed every
    # `echo_interval`.
    timeout: float = 30.0
    hard: bool = False
    retrans: int | None = None
    echo_interval: float = 10.0
    max_credits: int | None = None
    # How many connections the mount may have at most, by which of this machine's interfaces, or by which not, and
    # whether links of different speed carry data together; `one_each`: no two of them by one link.
    channels: int = DEFAULT_CHANNELS
    one_each: bool = True
    interfaces: tuple[str, ...] = ()
    excluded_interfaces: tuple[str, ...] = ()
    mixed_links: bool = False
    # Whether the server keeps open files for good: True, or no mount; None where it offers to. For how many
    # milliseconds it is asked to keep them after a loss (0: for as long as it likes).
    persistent: bool | None = None
    handle_timeout: int = 0
    # What files look like to local programs.
    uid: int
    gid: int
    forces_uid: bool = False
    forces_gid: bool = False
    file_mode: int = 0o755
    dir_mode: int = 0o755
    noperm: bool = False
    # Whether a chmod and chown that the server does not keep are remembered here.
    dynperm: bool = False
    server_inodes: bool = True
    # How links and special files are made, and what is taken for one; see `option_table`.
    symlink: str = "native"
    mfsymlinks: bool = False
    special_files: str = "nfs"
    symlink_root: str = "/mnt"
    # Whether to use the SMB3 POSIX extensions: True, or no mount; None where the server has them.
    posix: bool | None = None
    # What becomes of the characters that SMB cannot hold.
    name_mapping: str = "mapposix"
    # Whether a name that is not there is looked for in another spelling.
    nocase: bool = False
    user_xattr: bool = True
    # The previous version of the share to mount, as it was written; None for the share as it is.
    snapshot: str | None = None
    # What may be remembered without a lease, and for how long.
    cache: str = "strict"
    # For how many seconds a handle may stay open on the server after the last close, and how many of them there may be.
    handle_cache: bool = True
    closetimeo: float = 10.0
    max_cached_handles: int = 1000
    # How many bytes of what programs have written may be on their way, where leases permit it; see `gathers`.
    wcache: int = 16 << 20
    # Whether leases are asked for.
    leases: bool = True
    # Whether fsync waits for the server's disk.
    strictsync: bool = True
    # Whether nothing can be deleted.
    nodelete: bool = False
    # Whether locks are the server's, seen by all its clients, or stay on this machine.
    server_locks: bool = True
    acregmax: float = 1.0
    acdirmax: float = 1.0
    # The largest READ and WRITE (the server may allow less), a program's preferred buffer, the kernel's read-ahead, and
    # how much of a file that is read in order is fetched ahead of the kernel.
    rsize: int = 4 << 20
    wsize: int = 4 << 20
    bsize: int = 1 << 20
    rasize: int = 4 << 20
    read_ahead: int = 16 << 20
    # What the kernel is told. `fsname` is the source as it was typed, so that mount(8) recognises the fstab line.
    read_only: bool = False
    allow_other: bool
    kernel_flags: tuple[str, ...] = ("nosuid", "nodev")
    fsname: str
    fuse: str = "native"
    # What the mount command does with all this.
    nofail: bool = False
    # Lines for the log: options that were accepted and changed nothing, and what somebody should put right.
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def gathers(self) -> bool:
        """Whether any write may be answered before it has arrived at the server."""
        return self.wcache > 0 and self.leases and self.cache != "none" and "sync" not in self.kernel_flags


class Source(NamedTuple):
    """The parts of what stands in front of the mountpoint."""

    server: str
    share: str
    prefix_path: str
    port: int | None


class Item(NamedTuple):
    """One option as it was written: name, unquoted value (None without `=`), and the text itself."""

    name: str
    value: str | None
    raw: str


# One option and the comma or the end behind it; it fails to match only where a quotation mark is never closed.
_ITEM: Final = re.compile(
    r"""(?P<raw> (?P<name>[^,=]*)
                 (?: = (?: "(?P<quoted>(?:[^"]|"")*)"
                         | (?!")(?P<bare>(?:\\[,\\]|[^,])*) ) )? )
        (?:,|\Z)""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\([,\\])")


def split_options(text: str) -> list[Item]:
    """Split the text of `-o` by the quoting rule of this module; empty places between commas are nothing."""
    items = []
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            name = text[position:].partition("=")[0]
            raise OptionError(
                f"the value of option {name} begins with a quotation mark, and none ends it before a comma: "
                'write "" for one inside the quotes'
            )
        name, quoted, bare = match.group("name", "quoted", "bare")
        value = quoted.replace('""', '"') if quoted is not None else bare and _ESCAPE.sub(r"\1", bare)
        if name or value is not None:
            items.append(Item(name, value, match["raw"]))
        position = match.end()
    return items


def parse_source(text: str) -> Source:
    r"""Take `//server/share/dir`, `\\server\share\dir` or `smb://server:port/share/dir` apart."""
    port: int | None = None
    if not text.isprintable():
        raise OptionError("the source contains characters that cannot be printed; write it as //SERVER/SHARE")
    if text.lower().startswith("smb://"):
        place, _, path = text[len("smb://") :].partition("/")
        if "@" in place or ";" in place:
            raise OptionError("the source contains a login; give it as credentials=FILE or username=NAME")
        # What follows the last colon is a port, unless that colon is part of an IPv6 address in brackets.
        if match := re.fullmatch(r"(\[.*\]|[^:]*):([0-9]+)", place):
            place = match[1]
            try:
                port = number(1, 65535)(match[2])
            except ValueError as error:
                raise OptionError(f"the port in the source {text!r}: {error}") from None
        try:
            path = urllib.parse.unquote(path, errors="strict")
        except UnicodeDecodeError:
            raise OptionError(f"the source {text!r} has percent escapes that are not UTF-8; correct them") from None
    elif text.startswith(("//", "\\\\")):
        place, _, path = text[2:].replace("\\", "/").partition("/")
    else:
        raise OptionError(f"the source {text!r} names no share; write it as //SERVER/SHARE or //SERVER/SHARE/DIRECTORY")
    if place.startswith("[") and place.endswith("]"):
        place = place[1:-1]
    elif ":" in place:
        raise OptionError(f"the server in the source {text!r} has a colon; use port= for a port, [ADDRESS] for IPv6")
    share, *components = [part for part in path.replace("\\", "/").split("/") if part] or [""]
    if not place or not share:
        raise OptionError(f"the source {text!r} lacks the server or the share; write it as //SERVER/SHARE")
    return Source(place, share, join_prefix(components), port)


def join_prefix(components: list[str]) -> str:
    """Join the directories below the share; `.` and `..` have no meaning on the server."""
    if {".", ".."} & set(components):
        raise OptionError("the path below the share contains '.' or '..'; write it without")
    if any("\0" in component for component in components):
        raise OptionError("the path below the share contains a NUL character; write it without")
    return "\\".join(components)


def parse_mount_options(
    source: str,
    option_text: str,
    *,
    environment: Mapping[str, str],
    cwd: str,
    is_root: bool,
    uid: int,
    gid: int,
    sloppy: bool = False,
    ask_password: Callable[[str], str] | None = None,
) -> MountOptions:
    """Turn the two texts of a mount into options, or raise the one sentence that says why not.

    `uid` and `gid` are the caller's; `ask_password` is given where somebody sits at a terminal.
    """
    items = split_options(option_text)
    if any(item.name == "remount" for item in items):
        raise MountError("option remount is refused: a mount keeps its options; unmount it and mount it again")
    sloppy = sloppy or any(item.name == "sloppy" for item in items)
    place = parse_source(source)
    settings: dict[str, Any] = {
        "fsname": source,
        "uid": uid,
        "gid": gid,
        "allow_other": is_root,
        "nosuid": True,
        "nodev": True,
    }
    notes: list[str] = []
    warnings: list[str] = []
    for previous, item in zip([None, *items], items, strict=False):
        row = find(item.name, item.value)
        if row is not None:
            settings |= _effect_of(row, item)
            if row.verdict is Verdict.STATED or item.value in row.noted:
                name = f"{item.name}={item.value}" if row.noted else item.name
                notes.append(f"option {name} changes nothing: {row.sentence}")
        elif sloppy:
            warnings.append(f"{_unknown(item, previous)}; it is ignored, as -s demands")
        else:
            raise OptionError(_unknown(item, previous))

    if "prefixpath" in settings:
        prefix = join_prefix([part for part in re.split(r"[/\\]", settings.pop("prefixpath")) if part])
        if place.prefix_path not in ("", prefix):
            raise OptionError("option prefixpath names another directory than the source; give one of the two")
        place = place._replace(prefix_path=prefix)
    for name in sorted(SAME_SHARE & settings.keys()):
        try:
            server, share, *_ = parse_source(settings.pop(name))
        except OptionError as error:
            raise OptionError(f"option {name} names no share; leave it out ({error})") from None
        if (server.lower(), share.lower()) != (place.server.lower(), place.share.lower()):
            raise OptionError(f"option {name} names another share than the source; leave it out")
    if settings.get("hard") and settings.get("fuse") == "pyfuse3":
        raise OptionError("option hard cannot be had with fuse=pyfuse3, under which a call that waits has no other end")
    if place.port is not None:
        settings.setdefault("port", place.port)
    # As mount.cifs has it, except that the order of these does not matter.
    several, most = settings.pop("multichannel", None), settings.pop("max_channels", None)
    if several is False:
        settings["channels"] = 1
    elif several or most:
        settings |= {"channels": most or 2, "one_each": False}
    if settings.get("channels") == 1 and (
        needless := next((item.name for item in items if item.name in OF_SEVERAL), None)
    ):
        raise OptionError(f"option {needless} is about several connections, and there is to be one; leave that out")
    settings["kernel_flags"] = tuple(name for name in KERNEL_FLAGS if settings.pop(name, False))
    if "snapshot" in settings:
        settings["read_only"] = True
    # As mount.cifs has it, who names an owner means it, unless told otherwise.
    named = {item.name for item in items}
    settings.setdefault("forces_uid", "uid" in named)
    settings.setdefault("forces_gid", "gid" in named)
    if settings.get("posix") and settings.get("version_max", SMB_3_1_1) < SMB_3_1_1:
        raise OptionError("option posix needs SMB 3.1.1; leave out vers=, or give vers=3.1.1")
    if settings.get("mfsymlinks"):
        settings.setdefault("symlink", "mfsymlinks")
    _check_protection(settings)
    share = f"//{place.server}/{place.share}"

    def ask(login: Login) -> Login:
        return credentials.ask_for_missing(login, share, ask_password)

    settings |= login_options.login(settings, notes, warnings, environment, cwd, ask)
    return MountOptions(
        server=place.server,
        share=place.share,
        prefix_path=place.prefix_path,
        notes=tuple(notes),
        warnings=tuple(warnings),
        **settings,
    )


def _effect_of(row: Option, item: Item) -> Mapping[str, Any]:
    """Return the fields that an option sets, or raise what is wrong with it."""
    if row.verdict is Verdict.REFUSED:
        raise OptionError(f"option {item.name} is refused: {row.sentence}")
    if row.takes is Takes.VALUE and item.value is None:
        raise OptionError(f"option {item.name} needs a value: {item.name}=VALUE")
    if row.takes is Takes.NOTHING and item.value is not None:
        raise OptionError(f"option {item.name} takes no value; write {item.name} alone")
    try:
        return row.effect(item.value or "")
    except ValueError as error:
        shown = item.value if item.value and item.value.isprintable() else repr(item.value or "")
        raise OptionError(f"option {item.name}={shown}: {error}") from None


def _unknown(item: Item, previous: Item | None) -> str:
    """Return the sentence about an option that is in no row; nothing that may be half of a password is shown."""
    if previous is not None and previous.name in SECRET and not re.fullmatch(r"[a-z][a-z0-9_]+", item.name):
        return f"what follows the comma in option {previous.name} is no option; write a comma inside a value as \\,"
    guess = difflib.get_close_matches(item.name, [name for row in OPTIONS for name in row.names], 1, 0.8)
    return f"unknown option {item.name!r}" + (f"; did you mean {guess[0]}?" if guess else "")


def _check_protection(settings: Mapping[str, Any]) -> None:
    """Refuse what no dialect that is allowed can encrypt with: SMB 2 cannot at all, 3.0 and 3.0.2 only one way."""
    highest = settings.get("version_max", SMB_3_1_1)
    if highest < SMB_3_0:
        if settings.get("seal"):
            raise OptionError(
                "option seal cannot be had with SMB 2, which has no encryption; use vers=3 or leave it out"
            )
        if "ciphers" in settings:
            raise OptionError("option cipher has no meaning with SMB 2, which has no encryption; use vers=3")
    elif highest < SMB_3_1_1 and CIPHERS["aes-128-ccm"] not in settings.get("ciphers", CIPHERS.values()):
        raise OptionError(
            "option cipher leaves out aes-128-ccm, the only one of SMB 3.0 and 3.0.2; add it or use vers=3.1.1"
        )
