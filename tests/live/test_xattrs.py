"""Extended attributes on a real server: its own, streams, DOS attributes, time of birth, security descriptor."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.commands import run
from lab.mounting import Mount
from lab.server import Samba

from smb3fs.status import query_status
from smb3fs.wire.security import Acl, SecurityDescriptor

from .conftest import DRIVER, Mounter, Work
from .oracle import outcome

# Streams and Windows' access lists are kept by modules of Samba's, and are not there without.
MODULES = "vfs objects = streams_xattr acl_xattr"
EVERYONE = "S-1-1-0"
AUTHENTICATED = "S-1-5-11"
STREAM = "user.DosStream."


@pytest.fixture(scope="module")
def samba() -> Iterator[Samba]:
    """A server that keeps streams and access lists, in place of the one that most tests share."""
    with Samba(settings=MODULES) as server:
        yield server


@pytest.fixture(scope="module")
def mount(samba: Samba, every_mount: list[Mount]) -> Iterator[Mount]:
    """A mount of that server's share."""
    made = Mounter(samba, every_mount)
    try:
        yield made("noposix")
    finally:
        made.finish()


@pytest.fixture
def file(work: Work) -> Path:
    """A file with something in it."""
    path = work.path / "file"
    path.write_bytes(b"contents")
    return path


def round_trips(mount: Mount) -> int:
    """What the mount has counted so far."""
    count: int = query_status(str(mount.path))["round_trips"]
    return count


def test_attributes_are_the_servers(file: Path, work: Work) -> None:
    os.setxattr(file, "user.colour", b"blue\0green")
    os.setxattr(file, "user.Shape", b"round")
    assert os.getxattr(file, "user.colour") == b"blue\0green"
    assert os.getxattr(file, "user.SHAPE") == b"round"
    assert sorted(os.listxattr(file)) == ["user.Shape", "user.colour"]
    assert os.getxattr(work.behind / "file", "user.colour") == b"blue\0green"
    os.setxattr(work.behind / "file", "user.from", b"the other side")
    assert os.getxattr(file, "user.from") == b"the other side"
    os.removexattr(file, "user.colour")
    assert sorted(os.listxattr(file)) == ["user.Shape", "user.from"]
    assert file.read_bytes() == b"contents"


def test_flags_and_errors(file: Path) -> None:
    os.setxattr(file, "user.one", b"1", os.XATTR_CREATE)
    assert outcome(os.setxattr, file, "user.one", b"2", os.XATTR_CREATE) == "EEXIST"
    assert outcome(os.setxattr, file, "user.two", b"2", os.XATTR_REPLACE) == "ENODATA"
    os.setxattr(file, "user.one", b"2", os.XATTR_REPLACE)
    assert outcome(os.getxattr, file, "user.two") == "ENODATA"
    assert outcome(os.removexattr, file, "user.two") == "ENODATA"
    assert outcome(os.setxattr, file, "user.a:b", b"x") == "EINVAL"
    assert outcome(os.setxattr, file, "user.one", b"") == "ENOTSUP"
    assert outcome(os.setxattr, file, "user.one", bytes(65536)) == "E2BIG"
    assert os.getxattr(file, "user.one") == b"2"
    for name in ("trusted.one", "security.one", "system.one"):
        assert outcome(os.getxattr, file, name) == "ENOTSUP"
        assert outcome(os.setxattr, file, name, b"x") == "ENOTSUP"
    assert outcome(os.getxattr, file, "system.posix_acl_access") == "ENOTSUP"
    assert os.listxattr(file) == ["user.one"]


def test_a_full_file_system_says_so(file: Path, work: Work) -> None:
    """Where the disk behind the server has no room for a large value, neither has the mount, and the old one stays."""
    os.setxattr(work.behind / "file", "user.big", b"old")
    there = outcome(os.setxattr, work.behind / "probe", "user.big", bytes(60000))
    (work.behind / "probe").touch()
    there = outcome(os.setxattr, work.behind / "probe", "user.big", bytes(60000))
    assert outcome(os.setxattr, file, "user.big", bytes(60000)) == there
    assert os.getxattr(file, "user.big") == (b"old" if there is not None else bytes(60000))


def test_directories_have_them_too(work: Work, mount: Mount) -> None:
    for place in (work.path, mount.path):
        os.setxattr(place, "user.place", b"here")
        assert os.getxattr(place, "user.place") == b"here"
        assert "user.place" in os.listxattr(place)
        os.removexattr(place, "user.place")
        assert outcome(os.getxattr, place, "user.place") == "ENODATA"


def test_streams(file: Path, work: Work, samba: Samba) -> None:
    os.setxattr(file, f"{STREAM}Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    os.setxattr(file, f"{STREAM}Grüße", b"")
    assert sorted(os.listxattr(file)) == [f"{STREAM}Grüße", f"{STREAM}Zone.Identifier"]
    shown = samba.client(f'cd {work.name}; allinfo file; get "file:Zone.Identifier" "{work.behind}/copy"')
    assert "stream: [:Zone.Identifier:$DATA], 26 bytes" in shown
    assert (work.behind / "copy").read_bytes() == b"[ZoneTransfer]\r\nZoneId=3\r\n"
    os.setxattr(file, f"{STREAM}Zone.Identifier", b"short", os.XATTR_REPLACE)
    assert os.getxattr(file, f"{STREAM}Zone.Identifier") == b"short"
    assert os.getxattr(file, f"{STREAM}zone.identifier") == b"short"
    assert os.getxattr(file, f"{STREAM}Grüße") == b""
    assert outcome(os.getxattr, file, f"{STREAM}absent") == "ENODATA"
    assert outcome(os.setxattr, file, f"{STREAM}Grüße", b"x", os.XATTR_CREATE) == "EEXIST"
    for wrong in (f"{STREAM}a:b", f"{STREAM}a/b", STREAM):
        assert outcome(os.setxattr, file, wrong, b"x") == "EINVAL"
        assert outcome(os.removexattr, file, wrong) == "EINVAL"
    os.removexattr(file, f"{STREAM}Zone.Identifier")
    os.removexattr(file, f"{STREAM}Grüße")
    assert outcome(os.removexattr, file, f"{STREAM}Grüße") == "ENODATA"
    assert os.listxattr(file) == []
    assert file.read_bytes() == b"contents"


def test_beside_the_posix_extensions(mounted: Mounter, samba: Samba, work: Work) -> None:
    """With them there are names that no stream can be asked for with; all else is as without them."""
    mount = mounted(server=samba)
    if not mount.status()["posix"]:
        pytest.skip("this server has no POSIX extensions; with SMB3FS_SAMBA_ROOT a later one is used")
    work = Work(mount.path / work.name, work.behind, work.name)
    (work.path / "folder").mkdir()
    for name in ("File", "file", "folder/x"):
        (work.path / name).write_bytes(b"contents")
        os.setxattr(work.path / name, f"{STREAM}s", name.encode())
    assert [os.getxattr(work.path / name, f"{STREAM}s") for name in ("File", "file")] == [b"File", b"file"]
    for name in ("a:b", "a\\b", "dot.", "what?"):
        (work.path / name).write_bytes(b"contents")
        assert outcome(os.setxattr, work.path / name, f"{STREAM}s", b"x") == "ENOTSUP"
        assert outcome(os.getxattr, work.path / name, f"{STREAM}s") == "ENOTSUP"
        os.setxattr(work.path / name, "user.one", b"1")
        assert os.listxattr(work.path / name) == ["user.one"]
        assert (work.path / name).read_bytes() == b"contents"
    assert len(os.listdir(work.path)) == 7
    assert len(getcifsacl(work.path / "file")) >= 4
    os.removexattr(work.path / "file", f"{STREAM}s")
    assert os.listxattr(work.path / "file") == []
    assert os.getxattr(work.path / "File", f"{STREAM}s") == b"File"


def test_a_copy_takes_them_along(work: Work, tmp_path: Path) -> None:
    """Whether rsync and cp have been told how attributes look: there and back again, and into another directory."""
    (work.path / "from").mkdir()
    source = work.path / "from/file"
    source.write_bytes(b"contents")
    os.setxattr(source, "user.one", b"1")
    os.setxattr(source, f"{STREAM}s", b"in a stream")
    run("rsync", "-aX", "--no-o", "--no-g", "--no-p", f"{work.path}/from/", f"{work.path}/to")
    run("cp", "--preserve=xattr", str(source), str(work.path / "copy"))
    for copy in (work.path / "to/file", work.path / "copy"):
        assert {name: os.getxattr(copy, name) for name in os.listxattr(copy)} == {
            "user.one": b"1",
            f"{STREAM}s": b"in a stream",
        }
    again = run("rsync", "-aXi", "--no-o", "--no-g", "--no-p", f"{work.path}/from/", f"{work.path}/to").stdout
    assert again == ""


def test_dos_attributes_and_time_of_birth(file: Path, work: Work, samba: Samba) -> None:
    def letters() -> str:
        shown = samba.client(f"cd {work.name}; allinfo file")
        return next(line.split(":")[1].split("(")[0].strip() for line in shown.splitlines() if "attributes" in line)

    (bits,) = struct.unpack("<I", os.getxattr(file, "user.cifs.dosattrib"))
    assert bits == 0x20
    os.setxattr(file, "user.smb3.dosattrib", struct.pack("<I", 0x23))
    assert letters() == "RHA"
    assert os.getxattr(file, "user.cifs.dosattrib") == b"\x23\0\0\0"
    time.sleep(1.1)  # the mount's actimeo
    assert file.stat().st_mode & 0o222 == 0
    os.setxattr(file, "user.cifs.dosattrib", bytes(4))
    assert os.getxattr(file, "user.smb3.dosattrib") == b"\x80\0\0\0"
    assert outcome(os.setxattr, file, "user.cifs.dosattrib", b"xyz") == "ERANGE"
    (born,) = struct.unpack("<Q", os.getxattr(file, "user.cifs.creationtime"))
    assert abs((born - 116_444_736_000_000_000) / 1e7 - time.time()) < 60
    os.setxattr(file, "user.smb3.creationtime", struct.pack("<Q", 131_444_736_000_000_007))
    assert struct.unpack("<Q", os.getxattr(file, "user.cifs.creationtime")) == (131_444_736_000_000_007,)
    assert "create_time:" in samba.client(f"cd {work.name}; allinfo file")
    assert os.listxattr(file) == []


def test_the_audit_list_with_the_privilege(own_samba: Samba, mounted: Mounter) -> None:
    own_samba.grant("SeSecurityPrivilege")
    with own_samba.settings("vfs objects = acl_xattr"):
        path = mounted("noposix", server=own_samba).path / "audited"
        path.write_bytes(b"contents")
        before = os.getxattr(path, "system.cifs_acl")
        assert setcifsacl("-U", "-a", f"SACL:{EVERYONE}:AUDIT/SA/FULL", path) == 0
        assert f"ACL:{EVERYONE}:0x2/0x40/0x1f01ff" in getcifsacl(path)
        assert os.getxattr(path, "system.cifs_acl") == before
        audit = SecurityDescriptor.parse(os.getxattr(path, "system.cifs_ntsd_sacl"))
        assert audit.sacl is not None
        assert audit.dacl is None
        assert [(ace.flags, ace.mask) for ace in audit.sacl.aces] == [(0x40, 0x1F01FF)]
        empty = SecurityDescriptor(audit.control, sacl=Acl())
        os.setxattr(path, "system.cifs_ntsd_sacl", empty.encode())
        assert not any("0x1f01ff" in line and EVERYONE in line for line in getcifsacl(path))
        assert os.getxattr(path, "system.cifs_acl") == before
        mounted.finish()


@pytest.mark.skipif("fuse=pyfuse3" in DRIVER, reason="libfuse 3 has no statx")
def test_stat_shows_the_time_of_birth(file: Path, work: Work) -> None:
    """The server's, in steps of 100 ns, and the same after a change and in another way to the file."""

    def born(path: Path) -> int:
        return round(float(run("stat", "--format=%.9W", str(path)).stdout) * 10_000_000) + 116_444_736_000_000_000

    (known,) = struct.unpack("<Q", os.getxattr(file, "user.cifs.creationtime"))
    assert abs(born(file) - known) <= 10  # of 100 ns: what a float leaves of it
    file.write_bytes(b"later")
    assert abs(born(file) - known) <= 10
    file.rename(work.path / "elsewhere")
    assert abs(born(work.path / "elsewhere") - known) <= 10
    assert born(work.path) <= known + 10


def acl(samba: Samba, work: Work, name: str = "file") -> list[str]:
    """The access list as another client sees it, with numbers for names."""
    account = ("-A", str(samba.credentials), "-s", "/dev/null", "--numeric")
    shown = run("smbcacls", *account, samba.source(), f"{work.name}/{name}").stdout
    return [line for line in shown.splitlines() if line.startswith(("OWNER", "GROUP", "ACL"))]


def getcifsacl(path: Path) -> list[str]:
    """What cifs-utils' own program shows."""
    done = run("getcifsacl", "-r", str(path))
    return [line for line in done.stdout.splitlines() if line.startswith(("OWNER", "GROUP", "ACL"))]


def setcifsacl(*arguments: str | Path) -> int:
    """What cifs-utils' own program returns."""
    command = ["setcifsacl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def test_getcifsacl_shows_what_the_server_has(file: Path, work: Work, samba: Samba) -> None:
    shown, known = getcifsacl(file), acl(samba, work)
    assert [line.split(":")[1] for line in shown] == [line.split(":")[1] for line in known]
    assert len(shown) == 5
    folder = getcifsacl(work.path)
    assert len(folder) >= 5


def test_setcifsacl_changes_the_servers_list(file: Path, work: Work, samba: Samba) -> None:
    entry = f"ACL:{AUTHENTICATED}:DENIED/0x0/0x2"
    assert setcifsacl("-a", entry, file) == 0
    assert f"ACL:{AUTHENTICATED}:1/0x0/0x00000002" in acl(samba, work)
    assert f"ACL:{AUTHENTICATED}:0x1/0x0/0x2" in getcifsacl(file)
    assert setcifsacl("-D", entry, file) == 0
    assert not any(AUTHENTICATED in line for line in acl(samba, work))
    assert setcifsacl("-M", f"ACL:{EVERYONE}:ALLOWED/0x0/FULL", file) == 0
    assert f"ACL:{EVERYONE}:0/0x0/0x001f01ff" in acl(samba, work)
    assert setcifsacl("-S", f"ACL:{EVERYONE}:ALLOWED/0x0/FULL", file) == 0
    assert [line for line in acl(samba, work) if line.startswith("ACL")] == [f"ACL:{EVERYONE}:0/0x0/0x001f01ff"]
    assert setcifsacl("-o", "S-1-5-32-544", file) == 0
    assert "OWNER:S-1-5-32-544" in acl(samba, work)
    assert file.read_bytes() == b"contents"


def test_what_needs_a_privilege(file: Path) -> None:
    """The audit list: not for users; the rest of the descriptor goes without."""
    assert outcome(os.getxattr, file, "system.cifs_ntsd_full") == "EIO"
    assert setcifsacl("-U", "-a", f"SACL:{EVERYONE}:AUDIT/SA/FULL", file) != 0
    whole = os.getxattr(file, "system.cifs_ntsd")
    assert os.getxattr(file, "system.smb3_acl") == whole
    os.setxattr(file, "system.cifs_ntsd", whole)
    assert os.getxattr(file, "system.cifs_acl") == whole
    assert outcome(os.setxattr, file, "system.cifs_acl", whole[:40]) == "EINVAL"
    assert outcome(os.setxattr, file, "system.cifs_acl", os.getxattr(file, "system.cifs_ntsd_owner")) == "EINVAL"


def test_what_each_costs(file: Path, work: Work, mounted: Mounter, samba: Samba) -> None:
    """A look is one round trip, a change two; what ls and the kernel ask for in passing costs nothing."""
    os.setxattr(file, "user.one", b"1")
    os.setxattr(file, f"{STREAM}s", b"s")
    # Permissions are the kernel's to check, by attributes that it knows as long as this. Of what is in a directory that
    # is kept it asks again after a change of a stream, which has no lease by which Samba could know that it is ours.
    mount = mounted("noposix", "actimeo=60", "nolease", server=samba)
    with (mount.path / work.name / "file").open("rb") as opened:
        descriptor = opened.fileno()

        def cost(call: Callable[..., object], *arguments: object) -> int:
            before = round_trips(mount)
            outcome(call, descriptor, *arguments)
            return round_trips(mount) - before

        for name in ("user.one", f"{STREAM}s", "system.cifs_acl", "user.cifs.dosattrib", "user.absent"):
            # The descriptor is larger than what Python makes room for at first.
            assert cost(os.getxattr, name) == (2 if name == "system.cifs_acl" else 1), name
        for name in ("security.selinux", "security.capability", "system.posix_acl_access", "trusted.x"):
            assert cost(os.getxattr, name) == 0, name
        assert cost(os.listxattr) == 1
        assert cost(os.setxattr, "user.one", b"2") == 2
        assert cost(os.removexattr, "user.one") == 2
        assert cost(os.setxattr, f"{STREAM}s", b"other") == 3
        assert cost(os.removexattr, f"{STREAM}s") == 2
        assert cost(os.setxattr, "user.cifs.dosattrib", bytes(4)) == 2


def test_a_plain_listing_asks_the_server_for_no_attribute(work: Work, mount: Mount) -> None:
    for number in range(30):
        (work.path / f"file-{number}").touch()
    run("ls", "-l", str(work.path))
    before = mount.status()
    run("ls", "-l", str(work.path))
    after = mount.status()
    assert after["round_trips"] - before["round_trips"] < 10
    assert after["requests"].get("QUERY_INFO", 0) - before["requests"].get("QUERY_INFO", 0) < 10


def test_asking_every_file_of_a_directory(own_samba: Samba, mounted: Mounter) -> None:
    """What today's ls -l does; where there are no streams, the listing of the directory answers for most files."""
    place = mounted("noposix", "actimeo=20", server=own_samba)
    folder = place.path / "many"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number}").touch()
    os.setxattr(folder / "77", "user.one", b"1")
    names = [entry.path for entry in os.scandir(folder)]
    before = round_trips(place)
    assert {name for name in names if os.listxattr(name)} == {str(folder / "77")}
    assert round_trips(place) - before <= 40
    os.setxattr(folder / "78", "user.two", b"2")
    assert os.listxattr(folder / "78") == ["user.two"]
    mounted.finish()


def test_nouser_xattr(mounted: Mounter, samba: Samba, work: Work, file: Path) -> None:
    os.setxattr(file, "user.one", b"1")
    other = mounted("noposix", "nouser_xattr", server=samba).path / work.name / "file"
    assert os.listxattr(other) == []
    assert outcome(os.getxattr, other, "user.one") == "ENOTSUP"
    assert outcome(os.setxattr, other, "user.two", b"2") == "ENOTSUP"
    assert getcifsacl(other) == getcifsacl(file)


def test_a_stream_that_linux_has_no_room_for(own_samba: Samba, mounted: Mounter, tmp_path: Path) -> None:
    """It is listed, and reading it says why it is not shown; removing it works."""
    with own_samba.settings("vfs objects = streams_depot"):
        path = mounted("noposix", server=own_samba).path / "file"
        path.write_bytes(b"contents")
        for size in (65536, 65537, 1 << 20):
            (tmp_path / "large").write_bytes(os.urandom(size))
            own_samba.client(f'put "{tmp_path}/large" "file:large"')
            assert os.listxattr(path) == [f"{STREAM}large"]
            if size <= 65536:
                assert os.getxattr(path, f"{STREAM}large") == (tmp_path / "large").read_bytes()
            else:
                assert outcome(os.getxattr, path, f"{STREAM}large") == "E2BIG"
            own_samba.client(f'get "file:large" "{tmp_path}/again"')
            assert (tmp_path / "again").read_bytes() == (tmp_path / "large").read_bytes()
        os.removexattr(path, f"{STREAM}large")
        os.setxattr(path, f"{STREAM}all", bytes(range(256)) * 256)
        assert os.getxattr(path, f"{STREAM}all") == bytes(range(256)) * 256
        mounted.finish()


def test_a_share_without_any(own_samba: Samba, mounted: Mounter) -> None:
    """Neither streams (no module keeps them) nor attributes (the configuration says so)."""
    with own_samba.settings("ea support = no"):
        mount = mounted("noposix", server=own_samba)
        path = mount.path / "file"
        path.write_bytes(b"contents")
        assert outcome(os.listxattr, path) == []
        assert outcome(os.getxattr, path, "user.one") in ("ENOTSUP", "ENODATA")
        assert outcome(os.setxattr, path, "user.one", b"1") == "ENOTSUP"
        assert outcome(os.setxattr, path, f"{STREAM}s", b"1") == "ENOTSUP"
        assert outcome(os.getxattr, path, f"{STREAM}s") == "ENOTSUP"
        assert outcome(os.removexattr, path, f"{STREAM}s") == "ENOTSUP"
        assert path.read_bytes() == b"contents"
        mounted.finish()
