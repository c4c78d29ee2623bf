"""A server that has nothing in common with Samba: impacket's, which speaks SMB 2.0.2, knows compounds badly and leases
not at all, and tells the number of a file in one of three places.

Nothing here truncates: it sets the end of a file by writing a zero before it, and forgets what is behind.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator

import pytest
from lab.mounting import Mount, MountFailedError
from lab.second_server import Impacket, missing

from .oracle import outcome, tree


@pytest.fixture(scope="module")
def impacket() -> Iterator[Impacket]:
    """The server."""
    if missing():
        pytest.skip(missing())
    with Impacket() as server:
        yield server


@pytest.fixture(scope="module")
def foreign(impacket: Impacket, every_mount: list[Mount]) -> Iterator[Mount]:
    """A mount of its share."""
    mount = Mount(impacket.source, impacket.folder / "mnt", [f"credentials={impacket.credentials}", "vers=2.0"])
    every_mount.append(mount)
    with mount:
        yield mount


def test_an_old_dialect_is_taken_when_asked_for_and_signed(foreign: Mount) -> None:
    status = foreign.status()
    assert status["dialect"] == "2.0.2"
    assert status["signing"] == "HMAC_SHA256"


def test_without_being_asked_for_it_is_not(impacket: Impacket) -> None:
    mount = Mount(impacket.source, impacket.folder / "no", [f"credentials={impacket.credentials}"])
    with pytest.raises(MountFailedError, match=r"vers"):
        mount.mount()


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_001])
def test_write_and_read(foreign: Mount, impacket: Impacket, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (foreign.path / "file").write_bytes(data)
    assert (impacket.directory / "file").read_bytes() == data
    assert (foreign.path / "file").stat().st_size == size
    assert (foreign.path / "file").read_bytes() == data
    (foreign.path / "file").unlink()
    assert os.listdir(impacket.directory) == []


def test_names_and_directories(foreign: Mount, impacket: Impacket) -> None:
    place = foreign.path / "folder"
    place.mkdir()
    for number in range(20):
        (place / f"file {number} \u00e4").write_bytes(b"%d" % number)
    assert sorted(os.listdir(place)) == sorted(os.listdir(impacket.directory / "folder"))
    assert tree(place) == tree(impacket.directory / "folder")
    (place / "sub").mkdir()
    (place / "file 1 \u00e4").rename(place / "sub/moved")
    (place / "file 2 \u00e4").rename(place / "file 3 \u00e4")
    place.rename(foreign.path / "renamed")
    assert (foreign.path / "renamed/sub/moved").read_bytes() == b"1"
    assert (foreign.path / "renamed/file 3 \u00e4").read_bytes() == b"2"
    assert outcome((foreign.path / "renamed").rmdir) == "ENOTEMPTY"
    assert outcome((foreign.path / "absent").read_bytes) == "ENOENT"
    subprocess.run(["rm", "-r", foreign.path / "renamed"], check=True)
    assert os.listdir(impacket.directory) == []


def test_changes_within_a_file(foreign: Mount, impacket: Impacket) -> None:
    with (foreign.path / "file").open("w+b", buffering=0) as file:
        file.write(b"0123456789")
        os.pwrite(file.fileno(), b"AB", 4)
        assert os.pread(file.fileno(), 20, 0) == b"0123AB6789"
        os.fsync(file.fileno())
    with (foreign.path / "file").open("ab") as file:
        file.write(b"end")
    assert (impacket.directory / "file").read_bytes() == b"0123AB6789end"
    assert outcome(os.open, foreign.path / "file", os.O_CREAT | os.O_EXCL) == "EEXIST"
    (foreign.path / "file").unlink()


def test_a_tree_comes_and_goes(foreign: Mount, impacket: Impacket) -> None:
    """tar x, and rm -r."""
    source = os.path.dirname(__file__)
    (foreign.path / "tree").mkdir()
    archive = subprocess.run(["tar", "-c", "--exclude=__pycache__", "-C", source, "."], capture_output=True, check=True)
    extract = ["tar", "-x", "--no-same-owner", "--no-same-permissions", "--touch", "-C", foreign.path / "tree"]
    subprocess.run(extract, input=archive.stdout, check=True)
    assert subprocess.run(["diff", "-r", "-x", "__pycache__", source, foreign.path / "tree"]).returncode == 0
    subprocess.run(["rm", "-r", foreign.path / "tree"], check=True)
    assert os.listdir(impacket.directory) == []
