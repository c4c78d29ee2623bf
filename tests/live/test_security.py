"""Dialects, signatures and ciphers: what is agreed on, on both sides, and what is refused rather than weakened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.mounting import Mount, MountFailedError
from lab.server import Samba

from .conftest import Mounter


class Case(NamedTuple):
    """Lines for the server, options for the mount, and what must come of it."""

    server: str
    options: tuple[str, ...]
    dialect: str
    signing: str | None
    encryption: str | None

    def __str__(self) -> str:
        return f"[{self.server.replace('server ', '')}] {','.join(self.options)}".strip()


def algorithms(kind: str, names: str) -> str:
    return f"server smb3 {kind} algorithms = {names}"


CASES = [
    Case("", (), "3.1.1", "AES_GMAC", None),
    Case("", ("sign",), "3.1.1", "AES_GMAC", None),
    Case("server signing = mandatory", (), "3.1.1", "AES_GMAC", None),
    Case(algorithms("signing", "AES-128-CMAC"), (), "3.1.1", "AES_CMAC", None),
    Case(algorithms("signing", "HMAC-SHA256"), (), "3.1.1", "HMAC_SHA256", None),
    Case("", ("vers=3.1.1", "seal"), "3.1.1", None, "AES_128_GCM"),
    Case("", ("seal", "cipher=aes-256-gcm"), "3.1.1", None, "AES_256_GCM"),
    Case("", ("seal", "cipher=aes-128-ccm"), "3.1.1", None, "AES_128_CCM"),
    Case("", ("seal", "cipher=aes-256-ccm"), "3.1.1", None, "AES_256_CCM"),
    Case(algorithms("encryption", "AES-256-GCM"), ("seal",), "3.1.1", None, "AES_256_GCM"),
    Case(algorithms("encryption", "AES-128-CCM"), ("seal",), "3.1.1", None, "AES_128_CCM"),
    Case(algorithms("encryption", "AES-256-CCM"), ("seal",), "3.1.1", None, "AES_256_CCM"),
    Case("server smb encrypt = required", (), "3.1.1", None, "AES_128_GCM"),
    Case("", ("vers=3.0.2",), "3.0.2", "AES_CMAC", None),
    Case("", ("vers=3.0",), "3.0", "AES_CMAC", None),
    Case("", ("vers=3.0.2", "seal"), "3.0.2", None, "AES_128_CCM"),
    Case("", ("vers=3.0", "seal"), "3.0", None, "AES_128_CCM"),
    Case("server max protocol = SMB3_02", (), "3.0.2", "AES_CMAC", None),
    Case("server max protocol = SMB3_00", (), "3.0", "AES_CMAC", None),
    Case("server max protocol = SMB3_00\nserver smb encrypt = required", (), "3.0", None, "AES_128_CCM"),
]


SAMBAS_WORD = {"3.0": "SMB3_00", "3.0.2": "SMB3_02", "3.1.1": "SMB3_11"}


def work_on(path: Path, behind: Path) -> None:
    """Every kind of message once, with data of several sizes."""
    path.mkdir()
    for size in (0, 1, 4096, 100_000, 3_000_001):
        data = os.urandom(size)
        (path / "file").write_bytes(data)
        assert (behind / "file").read_bytes() == data
        os.utime(path / "file", (1, 1))
        (behind / "foreign").write_bytes(data)
        assert (path / "foreign").read_bytes() == data
        (path / "foreign").unlink()
    assert os.listdir(path) == ["file"]
    (path / "file").rename(path / "renamed")
    os.truncate(path / "renamed", 10)
    assert (behind / "renamed").stat().st_size == 10
    (path / "renamed").unlink()
    os.statvfs(path)
    path.rmdir()


@pytest.fixture(scope="module")
def servers(own_samba: Samba) -> Samba:
    """The server that is configured anew for each case."""
    return own_samba


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agreed_and_at_work(servers: Samba, mounted: Mounter, case: Case) -> None:
    with servers.settings(case.server):
        mount = mounted(*case.options, server=servers)
        status = mount.status()
        assert (status["dialect"], status["signing"], status["encryption"]) == (
            case.dialect,
            case.signing,
            case.encryption,
        )
        (session,) = servers.status()["sessions"].values()
        assert session["session_dialect"] == SAMBAS_WORD[case.dialect]
        ciphers = {session["encryption"]["cipher"]} | {
            tcon["encryption"]["cipher"] for tcon in servers.status()["tcons"].values()
        }
        wanted = (case.encryption or "").replace("_", "-")
        assert (wanted in ciphers) if wanted else ciphers <= {"", "-"}
        work_on(mount.path / "work", servers.directory() / "work")
        mounted.finish()


def test_the_encrypted_share_is_encrypted_without_being_asked(samba: Samba, mounted: Mounter) -> None:
    mount = mounted(share="encrypted")
    assert mount.status()["encryption"] == "AES_128_GCM"
    work_on(mount.path / "work", samba.directory("encrypted") / "work")


REFUSALS = [
    ("server max protocol = SMB2_10", (), ("dialect", "SMB")),
    ("server max protocol = SMB3_02", ("vers=3.1.1",), ("vers=",)),
    ("server min protocol = SMB3_11", ("vers=3.0",), ("vers=",)),
    ("server smb encrypt = off", ("seal",), ("seal", "encrypt")),
    (algorithms("encryption", "AES-128-GCM"), ("seal", "cipher=aes-256-gcm"), ("cipher",)),
    ("server max protocol = SMB3_00", ("seal", "cipher=aes-256-gcm"), ("cipher",)),
    ("map to guest = bad password", ("username=lab", "password=wrong"), ("guest", "password")),
    ("map to guest = bad user", ("username=stranger", "password=wrong"), ("guest", "name")),
]


@pytest.mark.parametrize(("server", "options", "words"), REFUSALS, ids=lambda value: str(value)[:60])
def test_refused_rather_than_weakened(
    servers: Samba, mounted: Mounter, server: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with servers.settings(server):
        with pytest.raises(MountFailedError) as caught:
            mounted(*options, server=servers, credentials=not any("username" in word for word in options))
        assert caught.value.status == 32
        assert any(word in caught.value.output for word in words), caught.value.output
        assert len(caught.value.output.strip().splitlines()) == 1
        assert servers.sessions() == 0
        mounted.finish()


def test_the_password_is_nowhere_to_be_seen(samba: Samba, mounted: Mounter) -> None:
    """Given on the command line it is wiped from the list of processes; the status does not show it either."""
    mount = mounted(f"username={samba.user}", f"password={samba.password}", credentials=False)
    (daemon,) = mount.daemons()
    for file in ("cmdline", "environ"):
        assert samba.password.encode() not in Path(f"/proc/{daemon}/{file}").read_bytes()
    assert samba.password not in str(mount.status())
    assert samba.password not in Path("/proc/self/mountinfo").read_text()


def test_both_sides_count_the_same_bytes(samba: Samba, mounted: Mounter) -> None:
    """What status calls read and written is the data of files (of a large one the kernel may read a part twice)."""
    mount: Mount = mounted()
    before = mount.status()["bytes"]
    (mount.path / "counted").write_bytes(bytes(1_000_000))
    written = mount.status()["bytes"]
    assert written["written"] - before["written"] == 1_000_000
    samba.put("counted-foreign", bytes(2_000_000))
    (mount.path / "counted-foreign").read_bytes()
    assert 2_000_000 <= mount.status()["bytes"]["read"] - written["read"] <= 2_300_000
    (mount.path / "counted").unlink()
    (mount.path / "counted-foreign").unlink()
