"""Mount options at work on a real server, beyond those that other tests are about."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError, wait_until
from lab.server import Samba

from .conftest import Mounter, Work
from .oracle import outcome


def requests(mount: Mount, command: str) -> int:
    """How many requests of a kind a mount has sent."""
    return int(mount.status()["requests"].get(command, 0))


def test_the_sizes_of_requests(mounted: Mounter, samba: Samba) -> None:
    samba.put("megabyte", bytes(1 << 20))
    mount = mounted("rsize=65536", "wsize=131072", "bsize=65536", "rasize=262144")
    assert (mount.path / "megabyte").read_bytes() == bytes(1 << 20)
    assert requests(mount, "READ") >= 16
    descriptor = os.open(mount.path / "written", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, bytes(1 << 20))
    finally:
        os.close(descriptor)
    assert requests(mount, "WRITE") >= 8
    assert (mount.path / "written").stat().st_blksize == 65536
    device = os.stat(mount.path).st_dev
    ahead = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert int(ahead.read_text()) == 256
    (mount.path / "written").unlink()
    (mount.path / "megabyte").unlink()


def test_few_credits_are_enough(mounted: Mounter, samba: Samba) -> None:
    mount = mounted("max_credits=20")
    data = os.urandom(8 << 20)
    (mount.path / "large").write_bytes(data)
    assert (samba.directory() / "large").read_bytes() == data
    assert (mount.path / "large").read_bytes() == data
    (channel,) = mount.status()["channels"]
    assert channel["credits"] <= 64  # beyond the 20 asked for, the server gives what answers had in flight
    assert mounted().status()["channels"][0]["credits"] > 64
    (mount.path / "large").unlink()


def test_fsync_with_and_without_the_servers_disk(mounted: Mounter) -> None:
    for option, flushes in (("strictsync", 1), ("nostrictsync", 0)):
        mount = mounted(option)
        with (mount.path / "synced").open("wb") as file:
            file.write(b"data")
            file.flush()
            os.fsync(file.fileno())
        assert requests(mount, "FLUSH") == flushes
        (mount.path / "synced").unlink()


def test_nothing_is_deleted(mounted: Mounter, work: Work, samba: Samba) -> None:
    for name in ("one", "other"):
        (work.path / name).write_text(name)
    (work.path / "folder").mkdir()
    path = mounted("nodelete").path / work.name
    assert outcome((path / "one").unlink) == "EACCES"
    assert outcome((path / "folder").rmdir) == "EACCES"
    assert outcome((path / "one").rename, path / "other") == "EACCES"
    (path / "one").rename(path / "new")
    (path / "new").write_text("changed")
    assert sorted(os.listdir(work.behind)) == ["folder", "new", "other"]
    assert (work.behind / "other").read_text() == "other"


def test_modes_and_owners_are_remembered(mounted: Mounter, work: Work) -> None:
    path = mounted("dynperm", "noposix").path / work.name
    (path / "file").write_bytes(b"")
    (path / "folder").mkdir()
    (path / "file").chmod(0o640)
    (path / "folder").chmod(0o700)
    os.chown(path / "file", 12, 34)
    for _ in range(2):
        told = (path / "file").stat()
        assert (stat.S_IMODE(told.st_mode), told.st_uid, told.st_gid) == (0o640, 12, 34)
        assert stat.S_IMODE((path / "folder").stat().st_mode) == 0o700
        os.listdir(path)
    (path / "file").chmod(0o440)
    # Of that the server keeps the read-only attribute, which another mount sees.
    told = (mounted("noposix").path / work.name / "file").stat()
    assert not told.st_mode & 0o222
    assert told.st_uid == 0


def test_names_of_users_and_groups_and_the_old_names_of_modes(mounted: Mounter, work: Work) -> None:
    (work.path / "file").write_bytes(b"")
    (work.path / "folder").mkdir()
    daemon = pwd.getpwnam("daemon")
    path = (
        mounted("noposix", "uid=daemon", "gid=daemon", "fmask=0640", "dmask=0750", "forceuid", "forcegid").path
        / work.name
    )
    told = (path / "file").stat()
    assert (told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)) == (daemon.pw_uid, daemon.pw_gid, 0o640)
    assert stat.S_IMODE((path / "folder").stat().st_mode) == 0o750


def test_the_password_from_a_file_and_from_a_descriptor(samba: Samba, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{samba.password}\nand more\n")
    point = samba.folder / "mnt-passwd"
    mount = Mount(samba.source(), point, [f"username={samba.user}"])
    for variable in ("PASSWD_FILE", "PASSWD_FD"):
        with file.open() as opened:
            os.set_inheritable(opened.fileno(), True)
            value = str(file) if variable == "PASSWD_FILE" else str(opened.fileno())
            mount.command = ["env", f"{variable}={value}", *mount.command[-1:]]
            point.mkdir(exist_ok=True)
            command = [*mount.command, mount.source, str(point), "-o", ",".join(mount.options)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[opened.fileno()])
        assert done.returncode == 0, done.stderr
        mount.unmount()


def test_the_domain_that_the_server_names(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings("log level = 3"):
        assert mounted(server=own_samba).mounted
        assert f"user=[{own_samba.user}] domain=[] " in own_samba.log()
        assert mounted("domainauto", server=own_samba).mounted
        assert f"user=[{own_samba.user}] domain=[LAB] " in own_samba.log()
        mounted.finish()


def test_the_local_address(mounted: Mounter, samba: Samba) -> None:
    network = samba.network
    mount = mounted(f"srcaddr={network.client_address}")
    assert mount.status()["channels"][0]["connection"].startswith(f"{network.client_address}:")
    with pytest.raises(MountFailedError, match=r"192\.0\.2\.1 is no address of this machine; srcaddr="):
        mounted("srcaddr=192.0.2.1")
    with pytest.raises(MountFailedError, match="one kind"):
        mounted(f"ip={network.server_address}", "srcaddr=::1")


def test_another_port_and_an_address_with_a_scope(own_samba: Samba, mounted: Mounter) -> None:
    """IPv6 without a router: the address of the server's end of the link, and the interface to it."""
    network = own_samba.network
    told = network.inside("ip", "-6", "-o", "addr", "show", "dev", network.far)
    found = re.search(r"inet6 (fe80::[0-9a-f:]+)/", told)
    if found is None:
        pytest.skip("this machine has no IPv6")
    assert wait_until(lambda: "tentative" not in network.inside("ip", "-6", "addr", "show", "dev", network.far), 10)
    assert wait_until(lambda: "tentative" not in subprocess.getoutput(f"ip -6 addr show dev {network.near}"), 10)
    with own_samba.settings("smb ports = 445 1445\nbind interfaces only = no"):
        assert "1445" in mounted("port=1445", server=own_samba).status()["channels"][0]["connection"]
        mount = mounted(f"ip={found[1]}%{network.near}", server=own_samba)
        assert found[1] in mount.status()["channels"][0]["connection"]
        (mount.path / "by-ipv6").write_bytes(b"1")
        assert (own_samba.directory() / "by-ipv6").exists()
        mounted.finish()


def test_soft_gives_up_and_hard_does_not(own_samba: Samba, mounted: Mounter) -> None:
    own_samba.put("file", b"content")
    soft = mounted("soft", "timeout=2", server=own_samba).path
    hard = mounted("hard", "timeout=2", server=own_samba).path
    came: dict[str, object] = {}
    own_samba.stop()
    try:
        waits = threading.Thread(target=lambda: came.update(hard=outcome((hard / "file").read_bytes)))
        waits.start()
        # Each of these takes the two seconds that the hard mount does not care about.
        assert [outcome((soft / "file").stat) for _ in range(2)] == ["ETIMEDOUT"] * 2
        assert not came
    finally:
        own_samba.start()
    waits.join(60)
    assert came == {"hard": b"content"}


@pytest.mark.parametrize("end", ["umount", "kill the process", "SIGTERM"])
def test_a_hard_wait_can_be_ended(own_samba: Samba, mounted: Mounter, end: str) -> None:
    mount = mounted("hard", "timeout=2", server=own_samba)
    own_samba.stop()
    try:
        with subprocess.Popen(["stat", mount.path / "file"], stderr=subprocess.PIPE, text=True) as waits:
            with pytest.raises(subprocess.TimeoutExpired):
                waits.wait(3)
            match end:
                case "umount":
                    subprocess.run(["umount", "--force", "--lazy", mount.path], check=True)
                    assert waits.wait(15) != 0
                case "kill the process":
                    waits.kill()
                    assert waits.wait(15) == -signal.SIGKILL
                case _:
                    os.kill(mount.daemons()[0], signal.SIGTERM)
                    assert waits.wait(15) != 0
        if end != "kill the process":
            assert wait_until(lambda: not mount.daemons(), 15)
    finally:
        own_samba.start()


def test_how_often_a_lost_request_is_repeated(own_samba: Samba, mounted: Mounter) -> None:
    mounts = {option: mounted(option, "timeout=20", server=own_samba) for option in ("retrans=0", "retrans=1")}
    came: dict[str, object] = {}

    def list_it(option: str) -> None:
        came[option] = outcome(os.listdir, mounts[option].path)

    threads = [threading.Thread(target=list_it, args=[option]) for option in mounts]
    own_samba.network.drop()
    try:
        for thread in threads:
            thread.start()
        for mount in mounts.values():
            assert wait_until(lambda mount=mount: mount.status()["channels"][0]["in_flight"] > 0, 10)
        own_samba.kill()
    finally:
        own_samba.network.pass_again()
        own_samba.start()
    for thread in threads:
        thread.join(60)
    assert came["retrans=0"] == "EIO"
    assert isinstance(came["retrans=1"], list)


def test_what_the_source_says_may_be_said_again(mounted: Mounter, samba: Samba) -> None:
    assert mounted(f"unc={samba.source()}", f"source={samba.source('SHARE')}").mounted


def test_a_prefix_is_mapped_as_names_are(mounted: Mounter, samba: Samba) -> None:
    folder = samba.directory() / "what\uf025"
    folder.mkdir()
    shutil.chown(folder, "daemon")
    (folder / "file").write_bytes(b"")
    assert os.listdir(mounted("noposix", share="share/what?").path) == ["file"]
    with pytest.raises(MountFailedError, match="nomapchars"):
        mounted("nomapchars", "noposix", share="share/what?")
    shutil.rmtree(folder)
