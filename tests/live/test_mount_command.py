"""mount.smb3fs, mount(8), fstab, an ordinary user: readiness, exit codes, options, sentences."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import DAEMON_SECONDS, Mount, MountFailedError, mount_point_type, program, wait_until
from lab.server import Samba

from .conftest import BOUND, Mounter

# mount(8): incorrect invocation, system error, mount failure
USAGE, SYSTEM, FAILURE = 1, 2, 32
USER = "nobody"


def call(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output kept."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def refused(
    mounted: Mounter, *options: str, share: str = "share", credentials: Path | bool = True, server: Samba | None = None
) -> tuple[int, str]:
    """Exit status and the one line of a mount that must fail and leave nothing."""
    with pytest.raises(MountFailedError) as caught:
        mounted(*options, share=share, credentials=credentials, server=server)
    mount = mounted.mounts[-1]
    assert not mount.mounted
    assert not mount.daemons()
    lines = caught.value.output.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return caught.value.status, lines[0]


# -- sentences -------------------------------------------------------------------------------------------------------


def test_wrong_password(mounted: Mounter, samba: Samba) -> None:
    status, line = refused(mounted, f"username={samba.user}", "password=wrong", credentials=False)
    assert status == FAILURE
    assert "password" in line
    assert "STATUS_LOGON_FAILURE" in line


def test_unknown_user(mounted: Mounter) -> None:
    status, line = refused(mounted, "username=stranger", "password=x", credentials=False)
    assert status == FAILURE
    assert "STATUS_LOGON_FAILURE" in line
    assert "username" in line or "credentials" in line


def test_no_such_share(mounted: Mounter) -> None:
    status, line = refused(mounted, share="absent")
    assert status == FAILURE
    assert "STATUS_BAD_NETWORK_NAME" in line
    assert "absent" in line


def test_no_such_directory_in_the_share(mounted: Mounter) -> None:
    status, line = refused(mounted, share="share/absent/below")
    assert status == FAILURE
    assert "absent" in line


def test_a_file_as_the_root(mounted: Mounter, samba: Samba) -> None:
    samba.put("plain-file", b"")
    status, line = refused(mounted, share="share/plain-file")
    assert status == FAILURE
    assert "directory" in line


def test_port_closed(mounted: Mounter) -> None:
    status, line = refused(mounted, "port=446")
    assert status == FAILURE
    assert "446" in line
    assert "port" in line


def test_no_answer(mounted: Mounter, own_samba: Samba) -> None:
    own_samba.network.drop()
    try:
        before = time.monotonic()
        status, line = refused(mounted, "timeout=2", server=own_samba)
        assert time.monotonic() - before < 2 + 4
    finally:
        own_samba.network.pass_again()
    assert status == FAILURE
    assert "timeout" in line


def test_a_name_that_does_not_resolve(tmp_path: Path, samba: Samba) -> None:
    mount = Mount("//no-such-host.invalid/share", samba.folder / "mnt-unresolved", [f"credentials={samba.credentials}"])
    with pytest.raises(MountFailedError) as caught:
        mount.mount()
    mount.path.rmdir()
    assert caught.value.status == FAILURE
    assert "no-such-host.invalid" in caught.value.output
    assert "ip=" in caught.value.output


@pytest.mark.parametrize("content", [None, "no equals sign\n", "username=\n", "password=only\n"])
def test_bad_credentials_files(mounted: Mounter, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "credentials"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    status, line = refused(mounted, credentials=file)
    assert status in (USAGE, SYSTEM, FAILURE)
    assert str(file) in line or "username" in line


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["nonsense"], "nonsense"),
        (["nonsense=1"], "nonsense"),
        (["vers=1.0"], "vers"),
        (["vers=7"], "vers"),
        (["timeout=abc"], "timeout"),
        (["timeout=0"], "timeout"),
        (["file_mode=9"], "file_mode"),
        (["uid=no-such-user"], "uid"),
        (["rdma"], "rdma"),
        (["sec=krb5p"], "sec"),
        (["multiuser"], "multiuser"),
        (["unc=//elsewhere/share"], "unc"),
        (["cipher=rot13"], "cipher"),
        (["cache=mad"], "cache"),
    ],
)
def test_an_option_that_is_wrong_or_not_there_is_named(mounted: Mounter, options: list[str], word: str) -> None:
    status, line = refused(mounted, *options)
    assert status == USAGE
    assert word in line


def test_remount_is_refused(mounted: Mounter) -> None:
    mount = mounted()
    done = call(program("mount.smb3fs"), mount.source, mount.path, "-o", "remount,ro")
    assert done.returncode == FAILURE
    assert "remount" in done.stderr
    assert len(mount.daemons()) == 1


def test_a_second_mount_on_the_same_directory_is_refused(mounted: Mounter) -> None:
    mount = mounted()
    done = call(program("mount.smb3fs"), mount.source, mount.path, "-o", ",".join(mount.options))
    assert done.returncode == FAILURE
    assert "mounted" in done.stderr
    assert len(mount.daemons()) == 1
    assert os.listdir(mount.path) is not None


@pytest.mark.parametrize("target", ["absent", "a file"])
def test_a_mountpoint_that_is_none(samba: Samba, tmp_path: Path, target: str) -> None:
    (tmp_path / "a file").write_bytes(b"")
    done = call(program("mount.smb3fs"), samba.source(), tmp_path / target, "-o", f"credentials={samba.credentials}")
    assert done.returncode in (USAGE, SYSTEM, FAILURE)
    assert str(tmp_path / target) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["//server/share"], ["one", "two", "three", "four"], ["noshare", "/mnt"]])
def test_usage(words: list[str]) -> None:
    done = call(program("mount.smb3fs"), *words)
    assert done.returncode == USAGE
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["mount.smb3fs", "smb3fs"])
def test_help_and_version(name: str) -> None:
    told, version = call(program(name), "--help"), call(program(name), "--version")
    assert (told.returncode, version.returncode) == (0, 0)
    assert name in told.stdout
    assert re.search(r"\d+\.\d+\.\d+", version.stdout)


# -- options at work -------------------------------------------------------------------------------------------------


def test_the_mount_is_there_when_the_command_returns(mounted: Mounter, samba: Samba) -> None:
    """Readiness: no waiting, no retry, ten times over."""
    samba.put("ready", b"yes")
    for _ in range(10):
        mount = mounted()
        assert (mount.path / "ready").read_bytes() == b"yes"
        mount.unmount()


def test_what_the_system_shows(mounted: Mounter, samba: Samba) -> None:
    mount = mounted()
    assert mount_point_type(mount.path) == "fuse.smb3fs"
    source, kind, options = call("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", mount.path).stdout.split()
    assert (source, kind) == (samba.source(), "fuse.smb3fs")
    assert {"nosuid", "nodev", "allow_other", "default_permissions"} <= set(options.split(","))
    assert "credentials" not in options


def test_kernel_flags_reach_the_kernel(mounted: Mounter) -> None:
    mount = mounted("noexec", "noatime", "ro")
    found = call("findmnt", "-no", "OPTIONS", mount.path).stdout.strip().split(",")
    assert {"noexec", "noatime", "ro"} <= set(found)


def test_fake_does_all_but_mount(samba: Samba, tmp_path: Path) -> None:
    done = call(program("mount.smb3fs"), samba.source(), tmp_path, "-f", "-o", f"credentials={samba.credentials}")
    assert done.returncode == 0, done.stderr
    assert mount_point_type(tmp_path) is None


def test_sloppy_takes_unknown_options(mounted: Mounter, samba: Samba) -> None:
    command = [program("mount.smb3fs"), "-s"]
    mount = Mount(
        samba.source(), samba.folder / "mnt-sloppy", [f"credentials={samba.credentials}", "nonsense=1"], command
    )
    with mount:
        assert mount.mounted


def test_nofail_reports_success(mounted: Mounter) -> None:
    """mount.cifs and fstab(5): a share that cannot be mounted does not fail the boot."""
    mount = mounted("nofail", share="absent")
    assert not mount.mounted


FOR_OTHERS = [["_netdev"], ["x-systemd.automount", "X-anything=1"], ["users"], ["noauto", "defaults"]]


@pytest.mark.parametrize("options", FOR_OTHERS, ids=str)
def test_options_for_others_are_taken(mounted: Mounter, options: list[str]) -> None:
    assert mounted(*options).mounted


def test_a_directory_of_the_share_as_the_root(mounted: Mounter, samba: Samba) -> None:
    (samba.directory() / "upper").mkdir()
    (samba.directory() / "upper/lower").mkdir()
    shutil.chown(samba.directory() / "upper/lower", "daemon")
    samba.put("upper/lower/file", b"found")
    for source, options in (("share/upper/lower", []), ("share", ["prefixpath=upper/lower"])):
        mount = mounted(*options, share=source)
        assert os.listdir(mount.path) == ["file"]
        (mount.path / "new").write_bytes(b"")
        assert (samba.directory() / "upper/lower/new").exists()
        (mount.path / "new").unlink()
    shutil.rmtree(samba.directory() / "upper")


def test_other_ways_to_write_the_source(samba: Samba) -> None:
    for source in (rf"\\{samba.address}\share", f"smb://{samba.address}/share", f"smb://{samba.address}:445/share"):
        with Mount(source, samba.folder / "mnt-source", [f"credentials={samba.credentials}"]) as mount:
            assert mount.mounted


def test_ip_in_place_of_the_name(samba: Samba) -> None:
    options = [f"credentials={samba.credentials}", f"ip={samba.address}"]
    with Mount("//some.name.invalid/share", samba.folder / "mnt-ip", options) as mount:
        assert os.listdir(mount.path) is not None


def test_a_password_with_every_character(own_samba: Samba, mounted: Mounter, tmp_path: Path) -> None:
    """In the file as mount.cifs reads it, and quoted in the options."""
    password = "a,b\\c \"d'=e$%§ü"
    own_samba.set_password(password)
    try:
        file = tmp_path / "credentials"
        file.write_text(f"username={own_samba.user}\npassword={password}\n")
        file.chmod(0o600)
        assert mounted(credentials=file, server=own_samba).mounted
        file.write_bytes(f"username={own_samba.user}\r\npassword={password}\r\ndomain=LAB\r\n".encode())
        assert mounted(credentials=file, server=own_samba).mounted
        escaped = password.replace("\\", "\\\\").replace(",", "\\,")
        assert mounted(f"username={own_samba.user}", f"password={escaped}", credentials=False, server=own_samba).mounted
    finally:
        mounted.finish()
        own_samba.set_password(own_samba.password)


def test_a_relative_credentials_file(samba: Samba) -> None:
    """Relative to where the command was called, not to the mountpoint."""
    mountpoint = samba.folder / "mnt-relative"
    mountpoint.mkdir()
    done = call(program("mount.smb3fs"), samba.source(), mountpoint, "-o", "credentials=credentials", cwd=samba.folder)
    assert done.returncode == 0, done.stderr
    Mount(samba.source(), mountpoint, []).unmount()


def test_passwd_in_the_environment(samba: Samba) -> None:
    mountpoint = samba.folder / "mnt-environment"
    mountpoint.mkdir()
    environment = {**os.environ, "PASSWD": samba.password}
    options = f"username={samba.user}"
    done = call(program("mount.smb3fs"), samba.source(), mountpoint, "-o", options, env=environment)
    assert done.returncode == 0, done.stderr
    Mount(samba.source(), mountpoint, []).unmount()


def test_foreground_stays_and_logs_to_the_terminal(samba: Samba) -> None:
    mount = Mount(samba.source(), samba.folder / "mnt-foreground", [f"credentials={samba.credentials}"])
    mount.path.mkdir()
    command = [program("mount.smb3fs"), samba.source(), str(mount.path), "--foreground", "-v", "-o", *mount.options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: mount.mounted, 20)
    assert process.poll() is None
    (mount.path / "foreground").write_bytes(b"works")
    (mount.path / "foreground").unlink()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not mount.mounted
    mount.path.rmdir()


def test_the_daemon_lets_go_of_its_surroundings(mounted: Mounter) -> None:
    """No terminal, no working directory, no inherited descriptors: the caller's pipe ends when the command does."""
    mount = mounted()  # reads the command's output to its end: this returned, so the pipes were let go
    (daemon,) = mount.daemons()
    assert os.readlink(f"/proc/{daemon}/cwd") == "/"
    assert {os.readlink(f"/proc/{daemon}/fd/{number}") for number in (0, 1, 2)} == {"/dev/null"}
    fields = Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()
    assert fields[4] == "0", "the daemon has a controlling terminal"
    assert int(fields[3]) != os.getsid(0)


# -- mount(8) and fstab ----------------------------------------------------------------------------------------------


@pytest.fixture
def helpers() -> Iterator[None]:
    """What `smb3fs install-helper` puts into /sbin, for the time of the test."""
    places = [Path("/sbin/mount.smb3fs"), Path("/sbin/mount.fuse.smb3fs")]
    if any(os.path.lexists(place) for place in places):
        pytest.fail(f"this machine has {places[0]} or {places[1]} already: `smb3fs install-helper --remove` removes it")
    subprocess.run([program("smb3fs"), "install-helper"], check=True, capture_output=True)
    assert all(place.exists() for place in places)
    yield
    subprocess.run([program("smb3fs"), "install-helper", "--remove"], check=True, capture_output=True)
    assert not any(os.path.lexists(place) for place in places)


@pytest.mark.parametrize("kind", ["smb3fs", "fuse.smb3fs"])
@pytest.mark.usefixtures("helpers")
def test_mount_by_type(samba: Samba, kind: str) -> None:
    command = ["mount", "-t", kind]
    with Mount(samba.source(), samba.folder / "mnt-type", [f"credentials={samba.credentials}"], command) as mount:
        assert mount_point_type(mount.path) == "fuse.smb3fs"
        (mount.path / "by-type").write_bytes(b"works")
        (mount.path / "by-type").unlink()


@pytest.mark.parametrize("kind", ["smb3fs", "fuse.smb3fs"])
@pytest.mark.usefixtures("helpers")
def test_an_fstab_line(samba: Samba, kind: str) -> None:
    """A line as people write it, with a blank in the path and everything that is meant for others."""
    mountpoint = samba.folder / "mnt with blank"
    mountpoint.mkdir()
    table = samba.folder / "fstab"
    options = f"credentials={samba.credentials},uid=12,_netdev,nofail,x-systemd.automount,noauto,users,file_mode=0640"
    table.write_text(f"{samba.source()} {str(mountpoint).replace(' ', chr(92) + '040')} {kind} {options} 0 0\n")
    subprocess.run(["mount", "-T", table, mountpoint], check=True)
    mount = Mount(samba.source(), mountpoint, [])
    assert mount_point_type(mountpoint) == "fuse.smb3fs"
    (mountpoint / "by-fstab").write_bytes(b"works")
    assert (mountpoint / "by-fstab").stat().st_uid == 12
    assert (mountpoint / "by-fstab").stat().st_mode & 0o777 == 0o640
    (mountpoint / "by-fstab").unlink()
    subprocess.run(["umount", mountpoint], check=True)
    subprocess.run(["mount", "-T", table, samba.source()], check=True)
    assert mount.mounted
    mount.unmount()


@pytest.mark.usefixtures("helpers")
def test_mount_8_passes_the_status_on(samba: Samba, tmp_path: Path) -> None:
    options = f"credentials={samba.credentials}"
    done = call("mount", "-t", "smb3fs", samba.source("absent"), tmp_path, "-o", options)
    assert done.returncode == FAILURE
    assert "STATUS_BAD_NETWORK_NAME" in done.stderr
    done = call("mount", "-t", "smb3fs", samba.source(), tmp_path, "-o", f"{options},nonsense")
    assert done.returncode == USAGE
    assert "nonsense" in done.stderr


@pytest.mark.usefixtures("helpers")
def test_mount_8_fake_and_remount(samba: Samba, mounted: Mounter, tmp_path: Path) -> None:
    options = f"credentials={samba.credentials}"
    subprocess.run(["mount", "-f", "-n", "-t", "smb3fs", samba.source(), tmp_path, "-o", options], check=True)
    assert mount_point_type(tmp_path) is None
    with Mount(samba.source(), samba.folder / "mnt-remount", [options], ["mount", "-t", "smb3fs"]) as mount:
        assert call("mount", "-o", "remount,ro", mount.path).returncode != 0
        assert len(mount.daemons()) == 1


# -- without privileges ----------------------------------------------------------------------------------------------


@pytest.fixture
def as_user() -> Iterator[list[str]]:
    """What to put before a command to run it as a user without privileges who may open /dev/fuse, as udev lets all."""
    plain = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups"]
    # Where Python or this project lies in a folder that is closed to others, the user may read all, but nothing else.
    reader = [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    usable = call(*plain, "env", program("mount.smb3fs"), "--version").returncode == 0
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    try:
        yield [*(plain if usable else reader), "env"]
    finally:
        os.chmod("/dev/fuse", mode)


def test_an_ordinary_user_mounts_by_fusermount3(samba: Samba, as_user: list[str]) -> None:
    """The files belong to the user, the user asks for the status and unmounts."""
    owner = pwd.getpwnam(USER)
    folder = samba.folder / "unprivileged"
    point = folder / "mnt"
    point.mkdir(parents=True)
    shutil.copy(samba.credentials, folder / "credentials")
    for path in (folder, point, folder / "credentials"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    options = [f"credentials={folder}/credentials", f"timeout={BOUND}"]
    mount = Mount(samba.source(), point, options, [*as_user, f"HOME={folder}", program("mount.smb3fs")])
    mount.mount()
    try:
        told = call(*as_user, "sh", "-c", f"echo works >{point}/by-user && stat -c %u:%g {point}/by-user")
        assert told.stdout.strip() == f"{owner.pw_uid}:{owner.pw_gid}", told.stderr
        assert (samba.directory() / "by-user").read_text() == "works\n"
        status = call(*as_user, program("smb3fs"), "status", "--json", point)
        assert json.loads(status.stdout)["dialect"] == "3.1.1", status.stderr
        done = call(*as_user, "fusermount3", "-u", point)
        assert done.returncode == 0, done.stderr
        assert wait_until(lambda: not mount.daemons(), DAEMON_SECONDS)
    finally:
        mount.unmount()
    (samba.directory() / "by-user").unlink()


def test_an_ordinary_user_without_a_helper_is_told(samba: Samba, as_user: list[str], tmp_path: Path) -> None:
    """A directory of somebody else is no mountpoint for a user: one sentence, and nothing mounted."""
    point = samba.folder / "not-theirs"
    point.mkdir()
    options = f"username={samba.user},password={samba.password}"
    done = call(*as_user, program("mount.smb3fs"), samba.source(), point, "-o", options)
    assert done.returncode in (SYSTEM, FAILURE)
    assert str(point) in done.stderr
    assert "Traceback" not in done.stderr
    assert mount_point_type(point) is None
    point.rmdir()
