"""Old and new dialects against a server that speaks nothing newer, and somebody in between who would like less."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError
from lab.server import Samba

from .conftest import Mounter
from .middleman import FLAG_SIGNED, FLAGS_OFFSET, READ, Middleman, command_of, keep_only

# What Samba calls the newest dialect that it may speak, and what comes of the widest offer.
NEWEST = {
    "SMB2_02": ("2.0.2", "HMAC_SHA256"),
    "SMB2_10": ("2.1", "HMAC_SHA256"),
    "SMB3_00": ("3.0", "AES_CMAC"),
    "SMB3_02": ("3.0.2", "AES_CMAC"),
    "SMB3_11": ("3.1.1", "AES_GMAC"),
}
OLD = ("SMB2_02", "SMB2_10")
ANY = "vers=2.0-3.1.1"


@pytest.fixture(scope="module", params=NEWEST)
def newest(request: pytest.FixtureRequest, own_samba: Samba) -> Iterator[str]:
    """The module's server, with one dialect after the other as the newest that it speaks."""
    name: str = request.param
    with own_samba.settings(f"server max protocol = {name}"):
        yield name


@pytest.fixture
def old_mount(newest: str, own_samba: Samba, mounted: Mounter) -> Mount:
    """A mount of that server which offers every dialect."""
    mount = mounted(ANY, server=own_samba)
    status = mount.status()
    assert (status["dialect"], status["signing"]) == NEWEST[newest]
    assert status["encryption"] is None
    return mount


def test_files_of_all_sizes(old_mount: Mount, own_samba: Samba) -> None:
    """Requests of 64 KiB at most in 2.0.2, of many credits from 2.1 on: the data are the same."""
    for size in (0, 1, 65_535, 65_536, 65_537, 5_000_001):
        data = os.urandom(size)
        (old_mount.path / "data").write_bytes(data)
        assert (own_samba.directory() / "data").read_bytes() == data
        own_samba.put(f"foreign-{size}", data[::-1])
        assert (old_mount.path / f"foreign-{size}").read_bytes() == data[::-1]
        (old_mount.path / f"foreign-{size}").unlink()
        os.truncate(old_mount.path / "data", size // 2)
        assert (old_mount.path / "data").read_bytes() == data[: size // 2]
    os.rename(old_mount.path / "data", old_mount.path / "renamed")
    with pytest.raises(FileNotFoundError):
        (old_mount.path / "data").stat()
    assert os.statvfs(old_mount.path).f_blocks > 0
    (old_mount.path / "renamed").unlink()


def test_large_directories(old_mount: Mount, own_samba: Samba) -> None:
    """More entries than fit into many pages of 64 KiB."""
    many = own_samba.directory() / "many"
    many.mkdir()
    shutil.chown(many, "daemon")
    names = {f"{number:05}-{'n' * 60}" for number in range(2000)}
    for name in names:
        os.mknod(many / name)
    with os.scandir(old_mount.path / "many") as entries:
        assert {entry.name for entry in entries if entry.is_file()} == names
    shutil.rmtree(many)


def test_programs(newest: str, old_mount: Mount, tmp_path: Path) -> None:
    """A tree unpacked by tar, and a repository that git makes, commits to and checks."""
    if newest not in OLD:
        pytest.skip("test_programs does more of this with SMB 3")
    tree = tmp_path / "tree"
    for number in range(40):
        (tree / f"d{number % 6}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 6}" / f"f{number}").write_bytes(os.urandom(number * 300))
    subprocess.run(["tar", "-cf", tmp_path / "tree.tar", "-C", tmp_path, "tree"], check=True)
    work = old_mount.path / "programs"
    work.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "tree.tar", "-C", work, "--no-same-owner"], check=True)
    subprocess.run(["diff", "-r", tree, work / "tree"], check=True)
    git = ["git", "-c", "safe.directory=*", "-c", "user.name=T", "-c", "user.email=t@example.org", "-C", work / "tree"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["fsck", "--no-progress"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    assert subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True).stdout == b""
    shutil.rmtree(work)


def test_a_changed_answer_is_not_believed(newest: str, own_samba: Samba, mounted: Mounter) -> None:
    """One bit of file data is turned on its way: the reader gets an error, never the data."""
    own_samba.put("precious", b"A" * 200_000)
    changed = []

    def flip(frame: bytearray) -> None:
        if command_of(frame) == READ and frame[FLAGS_OFFSET] & FLAG_SIGNED and len(frame) > 1_000:
            frame[-1] ^= 1
            changed.append(frame)

    with Middleman(own_samba.address, to_client=flip) as between:
        mount = mounted(ANY, "timeout=2", *between.options(), server=own_samba)
        with pytest.raises(OSError):
            (mount.path / "precious").read_bytes()
        assert changed
        assert any("signature" in entry["text"] for entry in mount.status()["events"])
        between.to_client = None
        assert (mount.path / "precious").read_bytes() == b"A" * 200_000
        mounted.finish()


OFFERS = {
    "SMB2_02": {"vers=2.0": "2.0.2", "vers=2.1": None, "": None},
    "SMB2_10": {"vers=2.0": "2.0.2", "vers=2.1-3.1.1": "2.1", "": None},
    "SMB3_00": {"vers=2.0-2.1": "2.1", "vers=3.0.2": None, "": "3.0"},
    "SMB3_02": {"vers=3.02": "3.0.2", "vers=3.1.1": None},
    "SMB3_11": {"vers=2.1": "2.1", "vers=3.0-3.0.2": "3.0.2", "vers=default": "3.1.1"},
}


def test_what_is_offered_and_what_comes_of_it(newest: str, own_samba: Samba, mounted: Mounter) -> None:
    for options, dialect in OFFERS[newest].items():
        words = [options] if options else []
        if dialect is None:
            with pytest.raises(MountFailedError) as caught:
                mounted(*words, server=own_samba)
            assert caught.value.status == 32
            assert "vers=2.1" in caught.value.output
            assert "STATUS_NOT_SUPPORTED" in caught.value.output
        else:
            assert mounted(*words, server=own_samba).status()["dialect"] == dialect
        mounted.finish()
    assert own_samba.sessions() == 0


def test_smb_2_is_never_taken_for_encrypted(newest: str, own_samba: Samba, mounted: Mounter) -> None:
    if newest in OLD:
        with pytest.raises(MountFailedError, match="encrypt"):
            mounted(ANY, server=own_samba, share="encrypted")
        with pytest.raises(MountFailedError, match="SMB 2") as caught:
            mounted(ANY, "seal", server=own_samba)
        assert caught.value.status == 32
    else:
        assert mounted(ANY, "seal", server=own_samba).status()["encryption"]
    mounted.finish()
    assert own_samba.sessions() == 0


@pytest.mark.parametrize("left", [(0x0202,), (0x0202, 0x0210), (0x0202, 0x0210, 0x0300)], ids=["2.0.2", "2.1", "3.0"])
def test_nobody_in_between_can_talk_the_server_into_less(samba: Samba, mounted: Mounter, left: tuple[int, ...]) -> None:
    """The newer dialects are taken out of the offer on its way: the mount is refused, and says why."""
    with Middleman(samba.address, to_server=keep_only(*left)) as between:
        with pytest.raises(MountFailedError) as caught:
            mounted(ANY, *between.options())
        assert caught.value.status == 32
        assert "negotiation" in caught.value.output or "ended the connection" in caught.value.output
        assert len(caught.value.output.strip().splitlines()) == 1
        mounted.finish()


@pytest.mark.parametrize(("window", "vers"), [(1, "2.0"), (3, "2.1"), (2, "3.1.1")])
def test_a_server_with_few_credits(own_samba: Samba, mounted: Mounter, window: int, vers: str) -> None:
    """Fewer than a chain costs: everything works all the same, if slowly."""
    with own_samba.settings(f"smb2 max credits = {window}"):
        mount = mounted(f"vers={vers}", server=own_samba)
        folder = mount.path / "few"
        folder.mkdir()
        for number in range(12):
            (folder / f"{number}").write_bytes(bytes([number]) * 70_000)
        assert {name: (folder / name).read_bytes()[-1] for name in os.listdir(folder)} == {
            f"{number}": number for number in range(12)
        }
        shutil.rmtree(folder)
        assert mount.status()["channels"][0]["credits"] <= window
        mounted.finish()
