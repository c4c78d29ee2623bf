"""Every option of mount.cifs, the Linux client and mount(8) has the one fate that was decided for it."""

# ruff: noqa: SIM905 (lists of a hundred words read better as text)
from __future__ import annotations

import re
from typing import Any

import pytest

from smb3fs.credentials import Credentials, Login, LoginSource
from smb3fs.errors import MountError, OptionError
from smb3fs.option_table import OPTIONS, Option, Takes, Verdict
from smb3fs.options import MountOptions, parse_mount_options

SOURCE = "//server/share"


def parse(text: str, **changes: Any) -> MountOptions:
    """Parse for root with a login, so that only the option under test can be wrong."""
    keywords: dict[str, Any] = {"environment": {"USER": "u%p"}, "cwd": "/", "is_root": True, "uid": 0, "gid": 0}
    return parse_mount_options(SOURCE, text, **{**keywords, **changes})


# Neither a user of the machine nor a terminal counts where tickets do, or nobody logs in.
TICKETS_ALONE: dict[str, Any] = {"credentials": Credentials("", ""), "login_source": LoginSource(needs_name=False)}

# How many connections there may be is said, and then not each has to go by a link of its own.
SEVERAL: dict[str, Any] = {"channels": 4, "one_each": False}

# What the option as written changes, compared with a mount without options.
USED: dict[str, dict[str, Any]] = {
    "port=1445": {"port": 1445},
    "nobrl": {"server_locks": False},
    "nolock": {"server_locks": False},
    "nobrl,brl": {},
    "nolock,lock": {},
    "ip=192.0.2.1": {"address": "192.0.2.1"},
    "addr=fe80::1%eth0": {"address": "fe80::1%eth0"},
    "ip=[2001:db8::1]": {"address": "2001:db8::1"},
    "timeout=5": {"timeout": 5.0},
    "timeout=2.5": {"timeout": 2.5},
    "echo_interval=60": {"echo_interval": 60.0},
    "vers=2.0": {"version_min": 0x202, "version_max": 0x202},
    "vers=2.0.2": {"version_min": 0x202, "version_max": 0x202},
    "vers=2.1": {"version_min": 0x210, "version_max": 0x210},
    "vers=2.1-3.1.1": {"version_min": 0x210, "version_max": 0x311},
    "vers=2.0-2.1": {"version_min": 0x202, "version_max": 0x210},
    "vers=3.0.2-3.11": {"version_min": 0x302, "version_max": 0x311},
    "vers=3": {"version_min": 0x300, "version_max": 0x311},
    "vers=default": {"version_min": 0x300, "version_max": 0x311},
    "vers=3.0": {"version_min": 0x300, "version_max": 0x300},
    "ver=3.0.2": {"version_min": 0x302, "version_max": 0x302},
    "vers=3.02": {"version_min": 0x302, "version_max": 0x302},
    "vers=3.1.1": {"version_min": 0x311, "version_max": 0x311},
    "vers=3.11": {"version_min": 0x311, "version_max": 0x311},
    "seal": {"seal": True},
    "nodfs": {"follow_links": False},
    "nodfs,dfs": {"follow_links": True},
    "cipher=aes-256-gcm": {"ciphers": (4,)},
    "cipher=AES-256-GCM:aes-128-ccm": {"ciphers": (4, 1)},
    "sec=ntlmssp": {},
    "sec=ntlmsspi": {},
    "sec=krb5": {"security": "krb5"} | TICKETS_ALONE,
    "sec=krb5i": {"security": "krb5"} | TICKETS_ALONE,
    "sec=krb5,keytab=lab.keytab": {"security": "krb5", "keytab": "/lab.keytab"} | TICKETS_ALONE,
    "sec=krb5,cruid=12": {"security": "krb5", "cruid": 12} | TICKETS_ALONE,
    "sec=krb5,cruid=root": {"security": "krb5", "cruid": 0} | TICKETS_ALONE,
    "sec=none": {"security": "none"} | TICKETS_ALONE,
    "guest": {
        "guest": True,
        "credentials": Credentials("guest", ""),
        "login_source": LoginSource(rest=Login("guest", "")),
    },
    "uid=12": {"uid": 12, "forces_uid": True},
    "uid=root": {"uid": 0, "forces_uid": True},
    "gid=34": {"gid": 34, "forces_gid": True},
    "gid=root": {"gid": 0, "forces_gid": True},
    "file_mode=0640": {"file_mode": 0o640},
    "fmask=600": {"file_mode": 0o600},
    "dir_mode=0750": {"dir_mode": 0o750},
    "dirmode=750": {"dir_mode": 0o750},
    "dmask=0700": {"dir_mode": 0o700},
    "noperm": {"noperm": True},
    "forceuid": {"forces_uid": True},
    "forcegid": {"forces_gid": True},
    "uid=12,noforceuid": {"uid": 12},
    "gid=12,noforcegid": {"gid": 12},
    "posix": {"posix": True},
    "unix": {"posix": True},
    "linux": {"posix": True},
    "noposix": {"posix": False},
    "posix,nounix": {"posix": False},
    "nolinux": {"posix": False},
    "symlink=default": {},
    "symlink=native": {},
    "symlink=none": {"symlink": "none"},
    "symlink=mfsymlinks": {"symlink": "mfsymlinks", "mfsymlinks": True},
    "mfsymlinks": {"symlink": "mfsymlinks", "mfsymlinks": True},
    "mfsymlinks,nomfsymlinks": {},
    "mfsymlinks,symlink=native": {"mfsymlinks": True},
    "reparse=default": {},
    "reparse=nfs": {},
    "reparse=none": {"special_files": "none"},
    "symlinkroot=/drives": {"symlink_root": "/drives"},
    "noperm,perm": {"noperm": False},
    "noperm,default_permissions": {"noperm": False},
    "user_xattr": {"user_xattr": True},
    "nouser_xattr": {"user_xattr": False},
    "snapshot=@GMT-2026.01.31-18.00.00": {"snapshot": "@GMT-2026.01.31-18.00.00", "read_only": True},
    "snapshot=134142048000000000,rw": {"snapshot": "134142048000000000", "read_only": True},
    "nolease": {"leases": False},
    "cache=none": {"cache": "none"},
    "cache=strict": {"cache": "strict"},
    "cache=loose": {"cache": "loose"},
    "closetimeo=0": {"closetimeo": 0.0},
    "closetimeo=2.5": {"closetimeo": 2.5},
    "max_cached_handles=7": {"max_cached_handles": 7},
    "wcache=1,wcache=0": {"wcache": 0},
    "wcache=1048576": {"wcache": 1 << 20},
    "nohandlecache": {"handle_cache": False},
    "nohandlecache,handlecache": {},
    "actimeo=30": {"acregmax": 30.0, "acdirmax": 30.0},
    "acregmax=3": {"acregmax": 3.0},
    "acdirmax=4": {"acdirmax": 4.0},
    "noac": {"acregmax": 0.0, "acdirmax": 0.0},
    "actimeo=5,acregmax=0": {"acregmax": 0.0, "acdirmax": 5.0},
    "rsize=65536": {"rsize": 65536},
    "wsize=65536": {"wsize": 65536},
    "bsize=65536": {"bsize": 65536},
    "rasize=0": {"rasize": 0, "read_ahead": 0},
    "domainauto": {"servers_domain": True},
    "soft": {},
    "hard": {"hard": True},
    "hard,soft": {},
    "retrans=0": {"retrans": 0},
    "srcaddr=192.0.2.9": {"source_address": "192.0.2.9"},
    "srcaddr=[fe80::1%eth0]": {"source_address": "fe80::1%eth0"},
    "max_credits=20": {"max_credits": 20},
    "multichannel": SEVERAL | {"channels": 2},
    "multichannel,max_channels=4": SEVERAL,
    "max_channels=4,multichannel": SEVERAL,
    "max_channels=3": SEVERAL | {"channels": 3},
    "max_channels=1": SEVERAL | {"channels": 1},
    "multichannel,max_channels=1": SEVERAL | {"channels": 1},
    "nomultichannel": {"channels": 1},
    "max_channels=4,nomultichannel": {"channels": 1},
    "nomultichannel,max_channels=4": {"channels": 1},
    "nomultichannel,multichannel": SEVERAL | {"channels": 2},
    "interfaces=eth0:wl*": {"interfaces": ("eth0", "wl*")},
    "max_channels=2,exclude_interfaces=eth0:eth0.7": SEVERAL
    | {"channels": 2, "excluded_interfaces": ("eth0", "eth0.7")},
    "mixlinks": {"mixed_links": True},
    "multichannel,mixlinks": SEVERAL | {"channels": 2, "mixed_links": True},
    "mixlinks,nomixlinks": {},
    "persistenthandles": {"persistent": True},
    "nopersistenthandles": {"persistent": False},
    "handletimeout=0": {},
    "handletimeout=960000": {"handle_timeout": 960_000},
    "max_credits=60000": {"max_credits": 60000},
    "dynperm": {"dynperm": True},
    "dynperm,nodynperm": {},
    "strictsync": {},
    "nostrictsync": {"strictsync": False},
    "nodelete": {"nodelete": True},
    "unc=//SERVER/Share": {},
    "path=//server/share": {},
    "source=//server/share/below": {},
    "target=//server/share": {},
    "fuse=native": {},
    "fuse=pyfuse3": {"fuse": "pyfuse3"},
    "noserverino": {"server_inodes": False},
    "mapposix": {},
    "mapchars": {"name_mapping": "mapchars"},
    "nomapchars": {"name_mapping": "nomapchars"},
    "mapchars,mapposix": {},
    "nocase": {"nocase": True},
    "ignorecase": {"nocase": True},
    "nomapposix": {"name_mapping": "nomapchars"},
    "noserverino,serverino": {"server_inodes": True},
    "prefixpath=a/b": {"prefix_path": "a\\b"},
    "prefixpath=\\a\\b\\": {"prefix_path": "a\\b"},
    "ro": {"read_only": True},
    "ro,rw": {"read_only": False},
    "suid": {"kernel_flags": ("nodev",)},
    "dev": {"kernel_flags": ("nosuid",)},
    "suid,nosuid": {},
    "dev,nodev": {},
    "noexec": {"kernel_flags": ("nosuid", "nodev", "noexec")},
    "noexec,exec": {},
    "sync": {"kernel_flags": ("nosuid", "nodev", "sync")},
    "sync,async": {},
    "dirsync": {"kernel_flags": ("nosuid", "nodev", "dirsync")},
    "noatime": {"kernel_flags": ("nosuid", "nodev", "noatime")},
    "noatime,atime": {},
    "nodiratime": {"kernel_flags": ("nosuid", "nodev", "nodiratime")},
    "nodiratime,diratime": {},
    "allow_other": {"allow_other": True},
    "noallow_other": {"allow_other": False},
    "fsname=other": {"fsname": "other"},
    "nofail": {"nofail": True},
}
# Their effects are on the login: test_cli_credentials.
LOGIN = {
    "username",
    "user",
    "password",
    "pass",
    "password2",
    "pass2",
    "credentials",
    "cred",
    "domain",
    "dom",
    "workgroup",
}
# Accepted, with one line for the log.
STATED = """
    upcall_target=app nosharesock tcpnodelay noblocksend noautotune netbiosname=X servern=Y nbsessinit
    sign esize=1 min_enc_offload=1 nocompress resilienthandles noresilienthandles
    nocifsacl noacl noidsfromsid nomodefromsid
    setuids nosetuids rwpidforward posixpaths noposixpaths
    max_cached_dirs=16 locallease fsc forcemandatorylock forcemand iocharset=utf8 utf8
    unicode nosfu nonativesocket nosparse intr nointr relatime
    norelatime strictatime nostrictatime lazytime nolazytime mand nomand iversion noiversion silent loud
    subtype=smb3fs
""".split()
# For mount(8) and systemd: not a word about them.
DROPPED = """
    defaults auto noauto user users nousers nouser owner noowner group nogroup _netdev comment=hello comment loop
    sloppy x-systemd.automount x-gvfs-show X-mount.mkdir x-systemd.idle-timeout=60
""".split()
REFUSED = """
    multiuser sharesock signloosely ignore_signature
    compress rdma
    witness cifsacl acl idsfromsid setuidfromacl modefromsid modesid backupuid=0
    backupgid=0
    nounicode sfu nativesocket symlink=unix symlink=sfu symlink=nfs symlink=wsl reparse=wsl
    allow_root context=x fscontext=x defcontext=x rootcontext=x seclabel bind rbind move
    sec=krb5p sec=ntlm sec=ntlmi sec=ntlmv2 sec=ntlmv2i sec=lanman
    vers=1.0 vers=1.0-3.1.1 iocharset=iso8859-1 subtype=other
""".split()
WRONG = """
    max_channels=0 max_channels=17 multichannel=2 interfaces= interfaces=a::b interfaces=a/b mixlinks=1
    exclude_interfaces=longer-than-15-ch exclude_interfaces interfaces multichannel,max_channels=1,mixlinks
    nomultichannel,interfaces=eth0 max_channels=1,exclude_interfaces=eth0
    retrans=-1 retrans=x srcaddr=name srcaddr= max_credits=19 max_credits=60001 unc=//other/share path=//server/other
    source=x target= hard=1 dynperm=yes handletimeout=960001 handletimeout=x
    port=0 port=65536 port=x port ip=name ip=1.2.3 timeout=0 timeout=x timeout=-1 timeout=3601 echo_interval=0
    vers=3.1 vers=2 vers=4 vers= vers=3.1.1-2.1 vers=2.1- vers=2.1-3 vers=-3.0
    seal=1 cipher=rot13 cipher=aes-128-gcm:aes-128-gcm cipher= sec=x
    posix,vers=3.0 unix,vers=2.1-3.0.2
    uid=no-such-user-here gid=no-such-group-here uid=4294967295 uid=-1 uid= file_mode=9 file_mode=17777 file_mode=
    noperm=1 actimeo=x actimeo=1073741825 rsize=4095 rsize=8388609 wsize=0 bsize=1 rasize=67108865
    symlink=x reparse=x symlinkroot=mnt
    cache=x fuse=x max_channels=x ro=1 fsname= username credentials credentials= prefixpath=../x
""".split()


def name_of(text: str) -> str:
    return text.rpartition(",")[2].partition("=")[0]


@pytest.mark.parametrize("text", USED)
def test_used(text: str) -> None:
    plain, options = parse(""), parse(text)
    expected = {field: getattr(plain, field) for field in MountOptions.__slots__} | USED[text]
    assert {field: getattr(options, field) for field in MountOptions.__slots__} == expected


@pytest.mark.parametrize("text", STATED)
def test_stated_with_one_line(text: str) -> None:
    plain, options = parse(""), parse(text)
    (note,) = options.notes
    assert re.fullmatch(rf"option {name_of(text)} changes nothing: \S.+[^.]", note)
    assert {field: getattr(options, field) for field in MountOptions.__slots__ if field != "notes"} == {
        field: getattr(plain, field) for field in MountOptions.__slots__ if field != "notes"
    }


@pytest.mark.parametrize("text", DROPPED)
def test_dropped_in_silence(text: str) -> None:
    assert parse(text) == parse("")


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_a_sentence_that_names_it(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    sentence = str(caught.value)
    assert re.match(rf"option {name_of(text)}( is refused|=)", sentence)
    assert len(sentence) > len(text) + 30  # a reason and a way out, not just a no
    assert "\n" not in sentence
    with pytest.raises(OptionError):
        parse(text, sloppy=True)  # -s forgives what is unknown, not what would break a promise


@pytest.mark.parametrize("text", WRONG)
def test_wrong_values_are_named(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert name_of(text) in str(caught.value) or "path below" in str(caught.value)


def test_every_row_has_an_expectation() -> None:
    """A new option cannot come without saying here what becomes of it."""
    expected = {
        Verdict.USED: {name_of(text) for text in USED} | LOGIN,
        Verdict.STATED: {name_of(text) for text in STATED},
        Verdict.DROPPED: {name_of(text) for text in DROPPED},
        Verdict.REFUSED: {name_of(text) for text in REFUSED},
    }
    missing = {name for row in OPTIONS for name in row.names if name not in expected[row.verdict]}
    assert not missing


def test_no_name_twice_and_no_row_without_words() -> None:
    names = [name for row in OPTIONS for name in row.names]
    assert len(names) == len(set(names))
    assert all(row.sentence for row in OPTIONS if row.verdict in (Verdict.REFUSED, Verdict.STATED))
    assert all(row.takes is not Takes.EITHER for row in OPTIONS if row.verdict is Verdict.USED)


def test_every_used_row_sets_a_field_that_exists() -> None:
    login = {
        "username",
        "user",
        "password",
        "password2",
        "credentials_file",
        "domain",
        "prefixpath",
        "unc",
        "path",
        "source",
        "target",
        "multichannel",
        "max_channels",
    }
    flags = {"nosuid", "nodev", "noexec", "sync", "dirsync", "noatime", "nodiratime"}
    samples = {text.rpartition(",")[2].partition("=")[::2] for text in USED} | {(name, "x") for name in LOGIN}
    rows: dict[str, Option] = {name: row for row in OPTIONS for name in row.names}
    for name, value in samples:
        assert set(rows[name].effect(value)) <= set(MountOptions.__slots__) | login | flags, name


# The table of mount.cifs 7.6 and fs_context.c in groups, as people write them, aliases and negations included.
MOUNT_CIFS = """
    username user password pass password2 pass2 credentials cred domain dom workgroup domainauto guest sec cruid
    multiuser upcall_target setuids nosetuids rwpidforward backupuid backupgid
    uid gid forceuid noforceuid forcegid noforcegid file_mode dir_mode dirmode fmask dmask perm noperm dynperm
    cifsacl noacl idsfromsid setuidfromacl modefromsid modesid nouser_xattr posix unix linux noposix posixpaths
    ip addr port servern netbiosname nbsessinit srcaddr vers ver sign seal signloosely ignore_signature esize
    min_enc_offload multichannel nomultichannel max_channels rdma persistenthandles nopersistenthandles
    resilienthandles noresilienthandles handletimeout witness echo_interval hard soft retrans max_credits tcpnodelay
    noblocksend noautotune compress nosharesock nodfs snapshot
    cache actimeo acregmax acdirmax noac rsize wsize bsize rasize handlecache nohandlecache max_cached_dirs closetimeo
    nolease locallease nostrictsync fsc nobrl nolock forcemandatorylock forcemand
    iocharset unicode nounicode utf8 mapposix mapchars nomapchars nocase ignorecase serverino noserverino mfsymlinks
    sfu symlink symlinkroot reparse nonativesocket nodelete nosparse unc path prefixpath source target
    ro rw suid nosuid dev nodev exec noexec sync async noatime relatime comment nofail sloppy nounix _netdev
    defaults auto noauto users nouser owner group atime strictatime lazytime mand dirsync iversion nolazytime loop bind
    context
""".split()


@pytest.mark.parametrize("name", MOUNT_CIFS)
def test_no_option_of_mount_cifs_is_unknown(name: str) -> None:
    assert any(name in row.names for row in OPTIONS)


def test_remount_fails_the_mount() -> None:
    with pytest.raises(MountError, match="remount"):
        parse("nonsense,remount,ro")


def test_unknown_options_are_named_and_guessed() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'frobnicate'$"):
        parse("ro,frobnicate=1")
    with pytest.raises(OptionError, match="did you mean credentials"):
        parse("credential=/x")
    for sloppy in ({"sloppy": True}, {}):
        options = parse("frobnicate=1,ro" + ("" if sloppy else ",sloppy"), **sloppy)
        assert options.read_only
        assert options.warnings == ("unknown option 'frobnicate'; it is ignored, as -s demands",)


def test_the_rest_of_an_unquoted_password_is_not_shown() -> None:
    with pytest.raises(OptionError) as caught:
        parse("username=u,password=se,Cr3t!")
    assert "Cr3t" not in str(caught.value)
    assert "\\," in str(caught.value)
    with pytest.raises(OptionError, match="frobnicate"):
        parse("username=u,password=secret,frobnicate")


def test_ciphers_that_fit_no_dialect() -> None:
    with pytest.raises(OptionError, match="aes-128-ccm"):
        parse("vers=3.0,cipher=aes-256-gcm")
    assert parse("vers=3.0,cipher=aes-256-gcm:aes-128-ccm").ciphers == (4, 1)
    assert parse("vers=3.0.2").ciphers == (2, 4, 1, 3)


def test_smb_2_has_no_encryption_to_ask_for() -> None:
    for text in ("vers=2.1,seal", "seal,vers=2.0-2.1", "vers=2.1,cipher=aes-128-ccm"):
        with pytest.raises(OptionError, match="no encryption"):
            parse(text)
    assert parse("vers=2.1-3.0,seal").seal


@pytest.mark.parametrize("mode", ["ro", "singleclient"])
def test_looser_caching_is_taken_for_the_default_with_one_line(mode: str) -> None:
    options = parse(f"cache=none,cache={mode}")
    assert options.cache == "strict"
    assert len(options.notes) == 1
    assert f"option cache={mode} changes nothing: cache=strict is used" in options.notes[0]
    assert parse("cache=strict").notes == ()


def test_what_goes_together_with_hard() -> None:
    assert parse("hard,fuse=native").hard
    with pytest.raises(OptionError, match="hard cannot be had with fuse=pyfuse3"):
        parse("hard,fuse=pyfuse3")


def test_what_depends_on_the_caller() -> None:
    user = parse("", is_root=False, uid=1000, gid=1001)
    assert (user.uid, user.gid, user.allow_other) == (1000, 1001, False)
    assert parse("").allow_other


def test_a_line_pasted_from_the_linux_client() -> None:
    """/proc/mounts of a cifs mount, with what has a meaning here kept."""
    options = parse(
        "rw,relatime,vers=3.1.1,cache=strict,username=alice,uid=1000,forceuid,gid=1000,forcegid,addr=192.0.2.7,"
        "file_mode=0755,dir_mode=0755,soft,nounix,serverino,mapposix,noperm,rsize=4194304,wsize=4194304,bsize=1048576,"
        "retrans=1,echo_interval=60,actimeo=1,closetimeo=1",
        environment={"PASSWD": "x"},
    )
    assert (options.uid, options.gid, options.noperm, options.address) == (1000, 1000, True, "192.0.2.7")
    assert (options.posix, options.forces_uid, options.forces_gid) == (False, True, True)
    assert options.closetimeo == 1
    assert len(options.notes) == 1
