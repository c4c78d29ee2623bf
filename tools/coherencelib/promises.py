"""What each way to mount promises about seeing what others have done, and by when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coherencelib.schedule import MAPPING

# Within this, attributes and pages are believed where no lease is held: the mounts' default of acregmax= and acdirmax=.
ACTIMEO: Final = 1.0
# For so long what was written stays with the writer, and others who only ask for a size make nobody send it.
GATHERED: Final = 2.5
# What a machine that is busy with other things may take on top.
SLACK: Final = 2.0


@dataclass(frozen=True, slots=True)
class Promise:
    """A way to mount: its options, and what is not done there."""

    options: tuple[str, ...]
    server_disk: bool
    """Whether it promises to see what changes on the server's own disk, where no lease is broken."""
    without: frozenset[str] = frozenset()
    gathers: bool = True
    """Whether what is written may stay with the writer for a while."""


MODES: Final[Mapping[str, Promise]] = {
    "strict": Promise((), server_disk=False),
    "loose": Promise(("cache=loose",), server_disk=False),
    # A mapping is made of cached pages, and nothing tells of a change to what is mapped already.
    "none": Promise(("cache=none",), server_disk=True, without=MAPPING, gathers=False),
    "nolease": Promise(("nolease",), server_disk=True, gathers=False),
}


def actimeo(options: Sequence[str]) -> float:
    """For how many seconds a mount with these options believes what no lease licenses."""
    times = [float(value) for name, _, value in (option.partition("=") for option in options) if name == "actimeo"]
    return times[-1] if times else ACTIMEO


def bound(options: Sequence[str]) -> float:
    """After how many seconds everybody must see a change."""
    return actimeo(options) + (0.0 if "wcache=0" in options else GATHERED) + SLACK
