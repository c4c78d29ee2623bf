"""The quoting rule and the forms of the source."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.errors import OptionError
from smb3fs.options import Item, Source, parse_mount_options, parse_source, split_options


def escaped(value: str) -> str:
    """Write a value with backslashes, as the man page tells to."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def quoted(value: str) -> str:
    """Write a value in quotation marks, as the man page tells to."""
    return '"' + value.replace('"', '""') + '"'


VALUES = st.text().filter(lambda value: not value.startswith('"'))
NAMES = st.text("abcdefgh_", min_size=1)
WRITTEN = st.one_of(
    VALUES.map(lambda value: (value, escaped(value))),
    st.text().map(lambda value: (value, quoted(value))),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(NAMES, st.none() | WRITTEN), max_size=6))
def test_what_is_written_by_the_rule_is_read_back(written: list[tuple[str, tuple[str, str] | None]]) -> None:
    words = [name if value is None else f"{name}={value[1]}" for name, value in written]
    items = split_options(",".join(words))
    assert [(item.name, item.value) for item in items] == [(name, value and value[0]) for name, value in written]
    assert [item.raw for item in items] == words


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        items = split_options(text)
    except OptionError:
        assert '"' in text
        return
    # Nothing is lost but empty places between commas.
    assert ",".join(item.raw for item in items).replace(",", "") == text.replace(",", "")


@given(st.text("ab\\", max_size=8).filter(lambda text: "\\\\" not in text))
def test_a_backslash_before_anything_else_is_itself(value: str) -> None:
    assert split_options(f"name={value}") == [Item("name", value, f"name={value}")]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (r"p=a\,b", ["a,b"]),
        (r"p=a\\,q=1", ["a\\", "1"]),
        (r"p=DOM\user", ["DOM\\user"]),
        (r"p=a\\\,b", ["a\\,b"]),
        ("p=a=b", ["a=b"]),
        ("p=,q", ["", None]),
        ('p="a,b",q', ["a,b", None]),
        ('p="a""b"', ['a"b']),
        ('p="a"""', ['a"']),
        (r'p="a\,b"', [r"a\,b"]),
        ('p=a"b,q', ['a"b', None]),
        ('p=""', [""]),
        (",,p=1,", ["1"]),
        ("", []),
    ],
)
def test_examples(text: str, values: list[str | None]) -> None:
    assert [item.value for item in split_options(text)] == values


@pytest.mark.parametrize("text", ['p="', 'ro,p="a,b', 'p="a"b', 'p="""'])
def test_quotes_that_nothing_closes(text: str) -> None:
    with pytest.raises(OptionError, match="option p begins with a quotation mark"):
        split_options(text)


def test_a_broken_quote_does_not_show_the_value() -> None:
    with pytest.raises(OptionError) as caught:
        split_options('password="secret,ro')
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("//srv/share", Source("srv", "share", "", None)),
        ("//srv/share/", Source("srv", "share", "", None)),
        ("//srv/share/sub/dir", Source("srv", "share", "sub\\dir", None)),
        ("//srv//share///sub//", Source("srv", "share", "sub", None)),
        ("\\\\srv\\share", Source("srv", "share", "", None)),
        ("\\\\srv\\share\\sub dir", Source("srv", "share", "sub dir", None)),
        ("//srv.example.org/share$", Source("srv.example.org", "share$", "", None)),
        ("//[::1]/share", Source("::1", "share", "", None)),
        ("//[fe80::1%eth0]/share/x", Source("fe80::1%eth0", "share", "x", None)),
        ("smb://srv/share/sub", Source("srv", "share", "sub", None)),
        ("SMB://srv/share", Source("srv", "share", "", None)),
        ("smb://srv:1445/share", Source("srv", "share", "", 1445)),
        ("smb://[::1]:1445/share", Source("::1", "share", "", 1445)),
        ("smb://[::1]/share", Source("::1", "share", "", None)),
        ("smb://srv/my%20share/%C3%A4", Source("srv", "my share", "ä", None)),
        ("//srv/100%25", Source("srv", "100%25", "", None)),
        ("//srv/müsli/ü", Source("srv", "müsli", "ü", None)),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "share",
        "srv:/share",
        "/srv/share",
        "//",
        "//srv",
        "//srv/",
        "///share",
        "//srv:445/share",
        "//::1/share",
        "//srv/share/../x",
        "//srv/share/./x",
        "smb:///share",
        "smb://srv",
        "smb://user@srv/share",
        "smb://DOM;user:secret@srv/share",
        "smb://srv:0/share",
        "smb://srv:99999/share",
        "smb://srv/share/%00",
        "smb://srv/share/%FF",
        "//srv/sha\nre",
        "//srv/sha\0re",
    ],
)
def test_sources_that_are_none(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_source_is_read_or_refused(text: str) -> None:
    for form in ("//", "\\\\", "smb://", ""):
        try:
            source = parse_source(form + text)
        except OptionError:
            continue
        assert source.server
        assert source.share
        assert not {"", ".", ".."} & set(source.prefix_path.split("\\")) or source.prefix_path == ""


def test_source_and_options_together() -> None:
    keywords = {"environment": {"USER": "u%p"}, "cwd": "/", "is_root": True, "uid": 0, "gid": 0}
    assert parse_mount_options("smb://srv:99/s", "", **keywords).port == 99  # type: ignore[arg-type]
    assert parse_mount_options("smb://srv:99/s", "port=98", **keywords).port == 98  # type: ignore[arg-type]
    assert parse_mount_options("//srv/s/a", "prefixpath=a", **keywords).prefix_path == "a"  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="prefixpath"):
        parse_mount_options("//srv/s/a", "prefixpath=b", **keywords)  # type: ignore[arg-type]
    # As it was typed, so that `mount -a` recognises what is mounted already.
    assert parse_mount_options("\\\\srv\\s", "", **keywords).fsname == "\\\\srv\\s"  # type: ignore[arg-type]
