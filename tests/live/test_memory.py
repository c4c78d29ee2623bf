"""The daemon's memory stays bounded, whatever passes through it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lab.mounting import Mount, wait_until

from .conftest import Mounter, Work

LIMIT_KIB = 150 * 1024


def peak(mount: Mount) -> int:
    """The largest resident size that the daemon ever had, in KiB."""
    (daemon,) = mount.daemons()
    lines = Path(f"/proc/{daemon}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_peak_after_a_copy_and_a_listing(work: Work, mount: Mount, tmp_path: Path) -> None:
    """2 GiB there and back, 100,000 files listed with their attributes."""
    with (tmp_path / "large").open("wb") as file:
        for _ in range(128):
            file.write(os.urandom(16 << 20))
    subprocess.run(["cp", tmp_path / "large", work.path / "large"], check=True)
    subprocess.run(["cmp", tmp_path / "large", work.path / "large"], check=True)
    (tmp_path / "large").unlink()
    (work.behind / "many").mkdir()
    for number in range(100_000):
        (work.behind / f"many/entry-{number:06}").write_bytes(b"")
    with os.scandir(work.path / "many") as listing:
        assert sum(1 for entry in listing if entry.stat().st_size == 0) == 100_000
    assert peak(mount) < LIMIT_KIB


def test_many_open_files(mounted: Mounter) -> None:
    """A thousand handles at once cost little, and all are closed."""
    mount = mounted()
    (mount.path / "open").mkdir()
    files = [(mount.path / f"open/{number}").open("wb") for number in range(1000)]
    assert mount.status()["open_handles"] == 1000
    assert peak(mount) < LIMIT_KIB
    for file in files:
        file.close()
    subprocess.run(["rm", "-r", mount.path / "open"], check=True)
    assert mount.status()["open_handles"] == 0


def test_what_the_kernel_forgets_is_not_known_here_any_more(work: Work, mounted: Mounter) -> None:
    mount = mounted()
    for number in range(1000):
        (work.behind / f"{number}").touch()
    before = mount.status()["inodes"]
    with os.scandir(mount.path / work.name) as listing:
        assert sum(1 for entry in listing if entry.stat().st_size == 0) == 1000
    assert mount.status()["inodes"] >= before + 1000
    # Remounted, a file system has the kernel drop all names that nobody uses.
    subprocess.run(["mount", "-i", "-o", "remount", mount.path], check=True)
    assert wait_until(lambda: mount.status()["inodes"] <= before + 10, 60)
