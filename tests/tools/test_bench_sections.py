"""Sections of the report that other commands have written stay where the main report is written anew."""

from __future__ import annotations

from pathlib import Path

from benchlib.sections import OTHERS, put_section, section_of, with_others, with_section

HEADING = OTHERS[0]
OLD = f"# How fast\n\n## Rates\n\nold\n\n{HEADING}\n\na table\n\n## Memory\n\nsome\n"


def test_a_section() -> None:
    assert section_of(OLD, HEADING) == f"{HEADING}\n\na table"
    assert section_of(OLD, "## Memory") == "## Memory\n\nsome"
    assert section_of(OLD, "## None") == ""


def test_it_is_replaced_or_added() -> None:
    new = with_section(OLD, f"{HEADING}\n\nanother table")
    assert new == OLD.replace("a table", "another table")
    assert with_section("# How fast\n", f"{HEADING}\n\na table\n") == f"# How fast\n\n{HEADING}\n\na table\n"


def test_the_main_report_leaves_it() -> None:
    assert with_others("# How fast\n\nnew\n", OLD) == f"# How fast\n\nnew\n\n{HEADING}\n\na table\n"
    assert with_others("# How fast\n\nnew\n", "") == "# How fast\n\nnew\n"


def test_a_document_is_made_where_there_is_none(tmp_path: Path) -> None:
    document = tmp_path / "new.md"
    put_section(document, f"{HEADING}\n\na table\n")
    assert document.read_text() == f"{HEADING}\n\na table\n"
    put_section(document, f"{HEADING}\n\nanother\n")
    assert "another" in document.read_text()
