"""Logins by password, as a guest and as nobody, on a real server; passwords that change while the mount lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError
from lab.server import Samba

from live.conftest import Mounter, until

SECOND = "the-next-one"
GUESTS = "guest account = daemon\nguest ok = yes\nforce user = daemon"


@pytest.fixture
def mounted(own_samba: Samba, every_mount: list[Mount]) -> Iterator[Mounter]:
    made = Mounter(own_samba, every_mount)
    yield made
    made.finish()


@pytest.fixture
def file(own_samba: Samba) -> Iterator[Path]:
    """A credentials file; in the end the server's user has the usual password again."""
    path = own_samba.folder / f"credentials-{os.urandom(4).hex()}"
    path.touch(mode=0o600)
    write(path, own_samba.password)
    yield path
    own_samba.set_password(own_samba.password)


def write(path: Path, password: str, password2: str = "") -> None:
    """Put passwords into a credentials file, as an editor does: by another file in its place."""
    text = f"username=lab\npassword={password}\n" + (f"password2={password2}\n" if password2 else "")
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)


def refused(mounted: Mounter, *options: str, credentials: Path | bool = True) -> str:
    """Fail to mount, and return the sentence."""
    with pytest.raises(MountFailedError) as caught:
        mounted(*options, credentials=credentials)
    assert caught.value.status == 32
    (line,) = caught.value.output.strip().splitlines()
    return line


def answers(mount: Mount) -> bool:
    """Whether the mount answers."""
    try:
        os.statvfs(mount.path)
    except TimeoutError:
        return False
    return True


def told(mount: Mount, text: str) -> bool:
    """Whether the mount's history has an error that says so."""
    return any(text in entry["text"] for entry in mount.status()["last_errors"])


# -- passwords that change


def test_the_second_password(own_samba: Samba, mounted: Mounter, file: Path) -> None:
    write(file, "no longer", own_samba.password)
    assert os.listdir(mounted(credentials=file).path) is not None
    assert os.listdir(mounted(f"username=lab,password=no longer,password2={own_samba.password}").path) is not None
    write(file, "no longer", "nor this")
    line = refused(mounted, credentials=file)
    assert "STATUS_LOGON_FAILURE" in line
    assert "no longer" not in line


def test_the_second_password_takes_over_when_the_first_one_is_changed(
    own_samba: Samba, mounted: Mounter, file: Path
) -> None:
    write(file, own_samba.password, SECOND)
    mount = mounted("timeout=20", credentials=file)
    own_samba.set_password(SECOND)
    own_samba.restart()
    assert answers(mount)
    assert mount.status()["reconnects"] == 1
    assert not told(mount, "LOGON_FAILURE")


def test_a_changed_file_is_tried_at_once(own_samba: Samba, mounted: Mounter, file: Path) -> None:
    """After a refusal the next attempt is a minute away, unless there is something new to try."""
    mount = mounted("timeout=5", credentials=file)
    own_samba.set_password(SECOND)
    own_samba.restart()
    until(lambda: told(mount, "next attempt in 60.0 s: SESSION_SETUP: STATUS_LOGON_FAILURE"))
    assert not answers(mount)
    write(file, SECOND)
    until(lambda: answers(mount))
    assert mount.status()["reconnects"] == 1


def test_hanging_up_reads_the_file_and_tries_again(own_samba: Samba, mounted: Mounter, file: Path) -> None:
    """The password was right all the time, and the server has come to see it; the file is the same as before."""
    mount = mounted("timeout=5", credentials=file)
    own_samba.set_password(SECOND)
    own_samba.restart()
    until(lambda: told(mount, "next attempt in 60.0 s: SESSION_SETUP: STATUS_LOGON_FAILURE"))
    own_samba.set_password(own_samba.password)
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGHUP)
    until(lambda: answers(mount))
    # And while all is well: the next login is by what the file has come to say.
    own_samba.set_password(SECOND)
    write(file, SECOND)
    os.kill(daemon, signal.SIGHUP)
    own_samba.restart()
    until(lambda: answers(mount))
    assert mount.daemons() == [daemon]


# -- guests and nobody


def test_a_guest_is_one_only_where_that_was_asked_for(own_samba: Samba, mounted: Mounter, file: Path) -> None:
    """The server takes whoever it does not know, and whoever has the wrong password, for its guest."""
    with own_samba.settings(f"map to guest = bad password\n{GUESTS}"):
        write(file, "wrong")
        line = refused(mounted, credentials=file)
        assert all(word in line for word in ("guest", "password", "safety"))
        mount = mounted("guest", credentials=False)
        (mount.path / "by a guest").write_text("unsigned")
        assert (own_samba.directory() / "by a guest").read_text() == "unsigned"
        status = mount.status()
        assert (status["signing"], status["encryption"]) == (None, None)
        # The right password makes a session like any other, whatever else would be accepted.
        write(file, own_samba.password)
        assert mounted("guest", credentials=file).status()["signing"] == "AES_GMAC"
        mounted.finish()


def test_nobody(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings(f"map to guest = never\n{GUESTS}"):
        for number, options in enumerate(([], ["vers=3.0"], ["vers=2.1"])):
            mount = mounted("sec=none", *options, credentials=False)
            (mount.path / f"by nobody {number}").write_text("unsigned")
            assert (own_samba.directory() / f"by nobody {number}").read_text() == "unsigned"
            assert mount.status()["signing"] is None
        mounted.finish()


def test_a_server_without_guests(mounted: Mounter) -> None:
    line = refused(mounted, "guest", credentials=False)
    assert all(word in line for word in ("guest", "sec=none", "credentials=", "STATUS_LOGON_FAILURE"))
    line = refused(mounted, "sec=none", credentials=False)
    assert all(word in line for word in ("nobody", "username=", "STATUS_ACCESS_DENIED"))


# -- what the server does not take


def test_a_server_without_kerberos(mounted: Mounter) -> None:
    pytest.importorskip("gssapi")
    line = refused(mounted, "sec=krb5", credentials=False)
    assert all(word in line for word in ("Kerberos", "sec=ntlmssp"))


def test_a_server_without_ntlm(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings("ntlm auth = disabled"):
        line = refused(mounted)
    assert all(word in line for word in ("NTLM", "sec=krb5", "STATUS_NTLM_BLOCKED"))
