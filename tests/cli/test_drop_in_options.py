"""Every option of the lines that people have for mount.cifs, walked through a table of what is to become of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from test_cli_option_table import MOUNT_CIFS, parse

from smb3fs.errors import MountError, OptionError

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("drop_in_options.tsv")
FATES = ("built", "noted", "taken", "refused")


class Row(NamedTuple):
    """One line of the table."""

    option: str
    fate: str
    test: str

    @property
    def name(self) -> str:
        return self.option.rpartition(",")[2].partition("=")[0]


def rows() -> list[Row]:
    """The table."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            option, fate, *test = line.split("\t")
            found.append(Row(option, fate, *(test or [""])))
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.option)
def test_each_has_the_fate_that_is_written_down(row: Row, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("username=u\npassword=p\n")
    file.chmod(0o600)
    option = row.option.replace("FILE", str(file))
    # Nobody's logins have no password, so none may come from the environment.
    environment = {} if option in ("guest", "sec=none") else {"USER": "u%p", "PASSWD": "p"}
    if row.fate == "refused":
        with pytest.raises((MountError, OptionError)) as caught:
            parse(option, environment=environment)
        assert row.name in str(caught.value)
        return
    options = parse(option, environment=environment)
    told = [note for note in options.notes if re.match(rf"option {re.escape(row.name)}\b", note)]
    assert len(options.notes) == len(told) == (1 if row.fate == "noted" else 0)
    if row.fate == "taken":
        assert options == parse("")


@pytest.mark.parametrize("row", [row for row in rows() if row.fate == "built"], ids=lambda row: row.option)
def test_what_is_built_is_tested(row: Row) -> None:
    file, _, name = row.test.partition("::")
    text = (ROOT / file).read_text()
    if name:
        assert f"def {name}(" in text
    else:
        assert re.search(rf"\b{re.escape(row.name)}\b", text), f"{file} says nothing of {row.name}"


def test_the_table_is_well_formed_and_complete() -> None:
    assert {row.fate for row in rows()} == set(FATES)
    assert all(bool(row.test) == (row.fate == "built") for row in rows())
    assert len({row.option for row in rows()}) == len(rows())
    assert set(MOUNT_CIFS) <= {row.name for row in rows()}
