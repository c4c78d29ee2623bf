"""Each call of the table, on the mount and on this machine's own filesystem, by which the table itself is judged."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from live.oracle import outcome

from ..conftest import Work
from .errors_table import EVERY
from .permissions_table import PERMISSIONS
from .scene import Case, set_scene

# POSIX lets rename and rmdir choose between these two.
EITHER = {"EEXIST", "ENOTEMPTY"}


def agrees(result: object, expected: object) -> bool:
    """Whether a result is the one expected, or as good."""
    return result == expected or (result in EITHER and expected == "ENOTEMPTY")


def came(case: Case, place: Path) -> object:
    """What a case came to; None for a success whose result is of no interest."""
    result = outcome(case.action, set_scene(place))
    return result if isinstance(result, str) or case.expected is not None else None


@pytest.mark.parametrize("case", [*EVERY, *PERMISSIONS], ids=lambda case: case.name)
def test_call(work: Work, case: Case) -> None:
    result = came(case, work.path)
    assert agrees(result, case.expected), f"{result!r} instead of {case.expected!r}"


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory on this machine's own disk that everybody may enter."""
    place = Path(tempfile.mkdtemp(prefix="smb3fs-suite-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_the_table_is_true_of_linux(here: Path) -> None:
    wrong = []
    for number, case in enumerate([*EVERY, *PERMISSIONS]):
        place = here / str(number)
        place.mkdir()
        result = came(case, place)
        if not agrees(result, case.expected):
            wrong.append(f"{case.name}: {result!r} instead of {case.expected!r}")
    assert not wrong, "\n".join(wrong)
