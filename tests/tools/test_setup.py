"""tools/setup, as far as it can be tried without installing anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "tools" / "setup"
# All that it gets to see: without apt-get it ends before it does anything.
PROGRAMS = ("bash", "dirname", "flock", "env")


def test_a_second_one_in_the_same_tree_waits_for_the_first(tmp_path: Path) -> None:
    """Both would make the same virtual environments anew, each under the other's feet."""
    found = {name: shutil.which(name) for name in PROGRAMS}
    if not all(found.values()):
        pytest.skip(f"one of {', '.join(PROGRAMS)} is not installed")
    (tmp_path / "bin").mkdir()
    for name, path in found.items():
        (tmp_path / "bin" / name).symlink_to(str(path))
    tree = tmp_path / "tree"
    (tree / "tools").mkdir(parents=True)
    shutil.copy(SETUP, tree / "tools")
    first = os.open(tree, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    with subprocess.Popen(
        [tree / "tools" / "setup"],
        env={"PATH": str(tmp_path / "bin")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as second:
        try:
            assert second.stdout is not None
            assert "another set-up is under way" in second.stdout.readline()
            os.close(first)
            rest = second.stdout.read()
        finally:
            second.kill()
    assert rest.startswith(f"==> set-up of smb3fs in {tree}\n")
    assert "this is no Debian" in rest
