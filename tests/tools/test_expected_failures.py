"""The list of the suites' expected failures: what its entries may be, and what they match."""

from __future__ import annotations

import pytest
from suites.expected import LIST, Expectation, read, unmatched, version_of

ENTRY = '[[failure]]\nreason = "r"\nshows = "s"\ntests = ["a.py::test[x*]"]\n'


def test_an_entry_matches_by_star_alone() -> None:
    (expectation,) = read(ENTRY)
    assert expectation == Expectation(("a.py::test[x*]",), "r", "s")
    assert expectation.matches("a.py::test[x and more]")
    assert expectation.matches("a.py::test[x]")
    assert not expectation.matches("a.py::testx")
    assert not Expectation(("a.py::what?",), "r", "s").matches("a.py::whatx")


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace('reason = "r"\n', ""),
        ENTRY.replace('reason = "r"', 'reason = ""'),
        ENTRY.replace("tests = [", "test = ["),
        ENTRY.replace('["a.py::test[x*]"]', "[]"),
        ENTRY + 'note = "n"\n',
        "[other]\n",
    ],
)
def test_an_entry_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"entry|unknown"):
        read(text)


def test_an_entry_for_no_test_is_found() -> None:
    expectations = [Expectation(("a.py::test[x*]", "a.py::gone", "b.py::test"), "r", "s")]
    assert unmatched(expectations, ["a.py::test[x1]"]) == ["a.py::gone"]
    assert unmatched(expectations, ["a.py::test[x1]", "b.py::other"]) == ["a.py::gone", "b.py::test"]


def test_the_list_itself() -> None:
    expectations = read(LIST.read_text())
    patterns = [pattern for expectation in expectations for pattern in expectation.tests]
    assert len(patterns) == len(set(patterns))
    for pattern in patterns:
        assert (LIST.parent / pattern.partition("::")[0]).is_file(), pattern


def test_an_entry_may_leave_a_configuration_out() -> None:
    text = (
        '[[failure]]\nreason = "r"\nshows = "s"\nwithout = "posix"\ntests = ["a.py::test[*]", "a.py::test_call[*-x]"]'
    )
    (expectation,) = read(text)
    assert expectation.matches("a.py::test[plain]")
    assert expectation.matches("a.py::test_call[plain-x]")
    assert not expectation.matches("a.py::test[posix]")
    assert not expectation.matches("a.py::test_call[posix-x]")


def test_a_newer_server_may_do_better() -> None:
    (expectation,) = read(ENTRY + 'before = "4.18"\n')
    assert expectation.applies((4, 17))
    assert not expectation.applies((4, 18))
    assert not expectation.applies((4, 25))
    assert version_of("Version 4.17.12-Debian\n") == (4, 17)
    assert version_of("no such thing") == ()
    assert read(ENTRY)[0].applies((4, 25))
