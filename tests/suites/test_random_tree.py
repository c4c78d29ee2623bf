"""Random operations on a tree: one process against a model, then several at a time, then the server's own view."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import wait_until
from lab.server import Samba
from live.oracle import tree

from . import tree_worker
from .configurations import Configuration
from .conftest import Mounter, Work
from .random_tree import RandomTree
from .seeds import fresh_seeds, seeds


@pytest.fixture
def model() -> Iterator[Path]:
    """A directory on this machine's own disk."""
    place = Path(tempfile.mkdtemp(prefix="smb3fs-suite-", dir="/var/tmp"))
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("seed", seeds(3))
def test_one_process_against_a_model(work: Work, model: Path, configuration: Configuration, seed: int) -> None:
    RandomTree(work.path, work.behind, model, seed, symlinks=configuration.symlinks).run(400)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
def test_one_process_for_long(work: Work, model: Path, configuration: Configuration, number: int) -> None:
    """A seed that nobody has tried yet; a failure tells which."""
    RandomTree(work.path, work.behind, model, fresh_seeds(1)[0], symlinks=configuration.symlinks).run(3000)


def hammer(place: Path, workers: int, steps: int, seed: int) -> None:
    """Have several processes work in one tree."""
    for folder in ("one/deep", "two"):
        (place / folder).mkdir(parents=True)
    running = [
        subprocess.Popen(
            [sys.executable, tree_worker.__file__, place, str(seed * 100 + number), str(steps)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    complaints = []
    for process in running:
        output, errors = process.communicate(timeout=200)
        complaints += [errors] if process.returncode else json.loads(output)["faults"]
    assert not complaints, f"SMB3FS_SEED={seed}: " + "\n".join(complaints[:20])


@pytest.mark.parametrize("seed", seeds(1))
def test_several_processes_in_one_tree(work: Work, samba: Samba, seed: int) -> None:
    """Nothing fails but for what another process did; in the end both sides show the same, and it is whole."""
    hammer(work.path, 4, 150, seed)
    at_the_server = tree(work.behind)
    assert tree(work.path) == at_the_server
    assert all(data is None or tree_worker.is_whole(data) for data in at_the_server.values())
    assert not [name for name in at_the_server if "tmp-" in name or ".smb3fs-" in name]
    # What was read stays open for a moment.
    assert wait_until(lambda: not [name for name in samba.open_files() if work.name in name and name != work.name], 30)
    subprocess.run(["rm", "-r", *work.path.iterdir()], check=True)
    assert os.listdir(work.behind) == []


@pytest.mark.slow
def test_several_processes_for_long(work: Work) -> None:
    hammer(work.path, 6, 1500, fresh_seeds(1)[0])
    assert tree(work.path) == tree(work.behind)


def test_two_mounts_in_one_tree(mounted: Mounter, samba: Samba) -> None:
    """Two clients make files side by side, each its own; both see all of them."""
    first, second = mounted(), mounted()
    (first.path / "both").mkdir()
    for number in range(30):
        for who, mount in (("first", first), ("second", second)):
            (mount.path / "both" / f"{who}-{number}").write_bytes(who.encode() * number)
    os.rename(first.path / "both/first-1", first.path / "both/moved")
    os.unlink(second.path / "both/second-1")
    behind = tree(samba.directory() / "both")
    assert len(behind) == 59
    assert tree(first.path / "both") == tree(second.path / "both") == behind
    shutil.rmtree(first.path / "both")
