"""Random reads, writes, truncations and mappings of one file, byte by byte against a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.server import Samba

from .conftest import Mounter
from .random_io import Mismatch, RandomFile
from .seeds import fresh_seeds, seeds


class Way(NamedTuple):
    """How the share is mounted, and with what flags its file is opened."""

    options: tuple[str, ...] = ()
    flags: tuple[int, ...] = (0,)
    mapped: bool = True

    @property
    def gathered(self) -> bool:
        """Whether writes are gathered, be it where the file is rewritten as a whole."""
        return not {"cache=none", "wcache=0"} & set(self.options)

    @property
    def late(self) -> bool:
        """Whether what is written need not be on the server's disk before fsync(2) or close(2)."""
        return self.gathered and 0 in self.flags


WAYS = {
    "as it comes": Way(),
    "nothing cached": Way(("cache=none",), mapped=False),  # the kernel maps no file that it may not cache
    "sealed": Way(("seal",)),
    "direct": Way(flags=(os.O_DIRECT,), mapped=False),
    "direct beside cached": Way(flags=(0, os.O_DIRECT), mapped=False),
    "synchronous": Way(flags=(os.O_SYNC, os.O_DSYNC)),
    "in small requests": Way(("rsize=16384", "wsize=16384")),
    "written through": Way(("wcache=0",)),
    "written through, sealed": Way(("wcache=0", "seal")),
    "written through, direct beside cached": Way(("wcache=0",), flags=(0, os.O_DIRECT), mapped=False),
    "written through, in small requests": Way(("wcache=0", "rsize=16384", "wsize=16384")),
    "believed for long": Way(("actimeo=60",)),
    "gathered, little at a time": Way(("wcache=100000", "wsize=16384")),
    "gathered beside direct": Way(("actimeo=60",), flags=(0, os.O_DIRECT, os.O_SYNC), mapped=False),
}


def try_it(samba: Samba, mounted: Mounter, way: Way, seed: int, steps: int) -> None:
    """Mount and do it."""
    mount = mounted(*way.options)
    name = f"random-{os.urandom(4).hex()}"
    behind = samba.directory() / name
    RandomFile(mount.path / name, behind, seed, way.flags, mapped=way.mapped, gathered=way.late).run(steps)
    assert bool(mount.status()["writes"]["gathered"]) == way.gathered
    (mount.path / name).unlink()


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("way", WAYS)
def test_random_io(samba: Samba, mounted: Mounter, way: str, seed: int) -> None:
    try_it(samba, mounted, WAYS[way], seed, 400)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_random_io_for_long(samba: Samba, mounted: Mounter, way: str) -> None:
    """Seeds that nobody has tried yet; a failure tells which."""
    for seed in fresh_seeds(6):
        try_it(samba, mounted, WAYS[way], seed, 2000)


class Forgetful(RandomFile):
    """Loses the last byte of a write now and then."""

    def put(self, offset: int, data: bytes) -> None:
        if len(data) > 1 and not self.chance.randrange(20):
            data = data[:-1]
        super().put(offset, data)


def test_the_model_is_right_and_notices(tmp_path: Path) -> None:
    """This machine's own filesystem passes; where one byte is amiss the seed is told."""
    RandomFile(tmp_path / "right", tmp_path / "right", 1, (0, os.O_SYNC), mapped=True).run(1000)
    with pytest.raises(Mismatch, match=r"SMB3FS_SEED=1.*other from"):
        Forgetful(tmp_path / "wrong", tmp_path / "wrong", 1, (0,), mapped=True).run(1000)
