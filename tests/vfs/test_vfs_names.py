"""Names: what goes to the server and what comes back, for every string there is."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfs_world import fails

from smb3fs.trace import Trace
from smb3fs.vfs.names import Hostile, NameMapping, Names, hostility

ANY_CHARACTER = st.characters(exclude_categories=())  # surrogates too


MAPPINGS = pytest.mark.parametrize("mapping", NameMapping)


def names_of(mapping: NameMapping = NameMapping.MAPPOSIX) -> Names:
    return Names(mapping, Trace())


@pytest.mark.parametrize(
    ("kernel", "server"),
    [
        (b"plain", "plain"),
        (b"a b.c", "a b.c"),
        ("Grüße 🐟".encode(), "Grüße 🐟"),
        (b'"', "\uf020"),
        (b"a*b", "a\uf021b"),
        (b"a:b", "a\uf022b"),
        (b"a<b>", "a\uf023b\uf024"),
        (b"why?", "why\uf025"),
        (b"back\\slash", "back\uf026slash"),
        (b"pi|pe", "pi\uf027pe"),
        (b"line\nbreak\x1f", "line\uf00abreak\uf01f"),
        (b"blank ", "blank\uf028"),
        (b"dot.", "dot\uf029"),
        (b"...", "..\uf029"),
        (b" . ", " .\uf028"),
        ("in the \uf028middle".encode(), "in the \uf028middle"),
        ("e\u0301 and \u00e9".encode(), "e\u0301 and \u00e9"),
        (b"\xed\xa0\x80", "\ud800"),
    ],
)
def test_the_mapping(kernel: bytes, server: str) -> None:
    assert names_of().to_server(kernel) == server
    assert names_of().to_kernel(server) == kernel


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"\xff", errno.EILSEQ),
        (b"\xed\xa0\xbd\xed\xb0\x9f", errno.EILSEQ),  # a surrogate pair in six bytes
        ("\uf022".encode(), errno.EILSEQ),
        (b"a" * 256, errno.ENAMETOOLONG),
        ("🐟".encode() * 128, errno.ENAMETOOLONG),
        (b"", errno.EINVAL),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
    ],
)
def test_what_cannot_be_sent_is_refused(name: bytes, number: int) -> None:
    with fails(number):
        names_of().to_server(name)


def test_the_longest_names() -> None:
    assert names_of().to_server(b"a" * 255) == "a" * 255
    assert names_of().to_server("🐟".encode() * 127) == "🐟" * 127
    assert names_of().to_server(b":" * 255) == "\uf022" * 255


@MAPPINGS
@given(st.text(ANY_CHARACTER, max_size=300))
def test_whatever_the_kernel_may_send_comes_back(mapping: NameMapping, text: str) -> None:
    names = names_of(mapping)
    kernel = text.encode("utf-8", "surrogatepass")
    try:
        server = names.to_server(kernel)
    except OSError as refusal:
        assert refusal.errno in (errno.EILSEQ, errno.ENAMETOOLONG, errno.EINVAL)  # noqa: PT017
        return
    if mapping is NameMapping.POSIX:
        assert server == text
    else:
        assert not set(server) & set('"*:<>?\\|/\0')
        assert server[-1] not in " ."
        assert min(server) >= "\x20"
    assert names.separator not in server
    assert names.to_kernel(server) == kernel


@pytest.mark.parametrize(
    ("kernel", "server"),
    [(b"plain", "plain"), (b"*:<>?|", "\uf02a\uf03a\uf03c\uf03e\uf03f\uf07c"), ("\uf022".encode(), "\uf022")],
)
def test_the_other_mapping(kernel: bytes, server: str) -> None:
    names = names_of(NameMapping.MAPCHARS)
    assert names.to_server(kernel) == server
    assert names.to_kernel(server) == kernel


@pytest.mark.parametrize("name", [b'"', b"a\\b", b"a\nb", b"blank ", b"dot."])
@pytest.mark.parametrize("mapping", [NameMapping.MAPCHARS, NameMapping.NOMAPCHARS])
def test_what_a_mapping_lacks_is_refused(mapping: NameMapping, name: bytes) -> None:
    with fails(errno.EINVAL):
        names_of(mapping).to_server(name)


@pytest.mark.parametrize("char", [b"*", b":", b"<", b">", b"?", b"|"])
def test_without_a_mapping_reserved_characters_are_refused(char: bytes) -> None:
    names = names_of(NameMapping.NOMAPCHARS)
    with fails(errno.EINVAL):
        names.to_server(b"a" + char)
    assert names.to_kernel("\uf022") == "\uf022".encode()
    assert names.to_server("\uf022".encode()) == "\uf022"


def test_with_posix_names_everything_goes_but_a_slash() -> None:
    names = names_of(NameMapping.POSIX)
    assert names.separator == "/"
    for name in (b'a"*:<>?|b', b"back\\slash", b"line\nbreak", b"blank ", b"dot.", b"...", "\uf022".encode()):
        assert names.to_server(name) == name.decode()
        assert names.to_kernel(name.decode()) == name
    for name in (b"a/b", b"a\0b", b"..", b""):
        with fails(errno.EINVAL):
            names.to_server(name)


@given(st.binary(max_size=40))
def test_any_bytes_become_a_name_or_an_errno(name: bytes) -> None:
    try:
        server = names_of().to_server(name)
    except OSError as refusal:
        assert refusal.errno in (errno.EILSEQ, errno.EINVAL)  # noqa: PT017
    else:
        assert names_of().to_kernel(server) == name


@given(st.text(ANY_CHARACTER, max_size=300))
def test_whatever_the_server_sends_is_a_name_or_dropped(text: str) -> None:
    kernel = names_of().to_kernel(text)
    if isinstance(kernel, bytes):
        assert kernel not in (b"", b".", b"..")
        assert not set(kernel) & {0, ord("/")}
        assert len(kernel) <= 3 * 255
    else:
        assert isinstance(kernel, Hostile)


@MAPPINGS
@given(st.text(ANY_CHARACTER, max_size=20), st.text(ANY_CHARACTER, max_size=20))
def test_two_names_of_the_kernel_are_two_of_the_server(mapping: NameMapping, one: str, other: str) -> None:
    sent = []
    for text in (one, other):
        try:
            sent.append(names_of(mapping).to_server(text.encode("utf-8", "surrogatepass")))
        except OSError:
            return
    assert (sent[0] == sent[1]) == (one == other)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", Hostile.EMPTY),
        (".", Hostile.DOTS),
        ("..", Hostile.DOTS),
        ("\uf029", Hostile.DOTS),
        (".\uf029", Hostile.DOTS),
        ("../etc/passwd", Hostile.SEPARATOR),
        ("a\0b", Hostile.SEPARATOR),
        ("x" * 256, Hostile.LONG),
        ("🐟" * 128, Hostile.LONG),
    ],
)
def test_hostile_names(name: str, reason: Hostile) -> None:
    assert names_of().to_kernel(name) is reason


def test_hostility_of_an_ordinary_name() -> None:
    assert hostility("x" * 255) is None


def test_a_drop_is_counted_and_told_once_for_each_kind(expect_log) -> None:  # type: ignore[no-untyped-def]
    expect_log(r"the server lists a name with / or NUL in it, .*: 'a/b'$")
    expect_log(r"the server lists an empty name")
    names = names_of()
    for name in ("a/b", "c/d", ""):
        reason = names.to_kernel(name)
        assert isinstance(reason, Hostile)
        names.drop(reason, name)
    assert names.dropped == {Hostile.SEPARATOR: 2, Hostile.EMPTY: 1}
    assert names._trace.dropped_names == 3
