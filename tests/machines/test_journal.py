"""The journal of what is open: read after any end of its writer, and never taken from a living one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.handles import journal as journals
from smb3fs.handles.journal import MARK, Identity, Journal, Left, LeftName, LeftOpen, frame, read
from smb3fs.wire.create import FileId

ExpectLog = Callable[[str], None]

WHO = Identity(b"G" * 16, 7, 0x1234)
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
OPENS = st.builds(
    LeftOpen,
    st.builds(FileId, U64, U64),
    st.binary(min_size=16, max_size=16),
    st.text(st.characters(), max_size=20),
    U32,
    U32,
    U32,
    st.binary(max_size=60),
)
NAMES = st.builds(LeftName, st.text(st.characters(), max_size=20), U64, st.booleans())


def an_open(name: str = "f") -> LeftOpen:
    """An open of a file."""
    return LeftOpen(FileId(1, 2), b"C" * 16, name, 0x120196, 7, 0, b"lease")


def journal(folder: Path) -> Journal:
    """The journal of a mount."""
    return Journal(str(folder / "state" / "j"), lambda: (folder / "state").mkdir(mode=0o700, exist_ok=True))


def found(folder: Path) -> Left:
    """What the file says to one who only looks."""
    data = (folder / "state" / "j").read_bytes()
    left, end = read(data)
    assert end == len(data)
    return left


@given(
    st.lists(
        st.one_of(st.builds(Identity, st.binary(min_size=16, max_size=16), st.integers(0, 65535), U64), OPENS, NAMES)
    )
)
@settings(max_examples=30, deadline=None)
def test_whatever_byte_the_writer_stops_at_what_came_before_is_read(
    records: list[Identity | LeftOpen | LeftName],
) -> None:
    data, states, ends = MARK, [Left()], [len(MARK)]
    for number, record in enumerate(records):
        data += frame(record.encode() if isinstance(record, Identity) else record.encode(number))
        before = states[-1]
        if isinstance(record, Identity):
            states.append(Left(record, before.opens, before.names))
        elif isinstance(record, LeftOpen):
            states.append(Left(before.identity, {**before.opens, number: record}, before.names))
        else:
            states.append(Left(before.identity, before.opens, {**before.names, number: record}))
        ends.append(len(data))
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends)
        expected = (states[whole - 1], ends[whole - 1]) if whole else (Left(), 0)
        assert read(data[:cut]) == expected


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_byte_that_has_changed_is_noticed_and_nothing_behind_it_is_used(place: int, change: int) -> None:
    opens = {number: an_open(f"file {number}") for number in range(4)}
    frames = [frame(WHO.encode()), *(frame(one.encode(number)) for number, one in opens.items())]
    data = bytearray(MARK + b"".join(frames))
    data[place % len(data)] ^= change
    left, end = read(bytes(data))
    assert end <= place % len(data)
    assert left.opens == {number: opens[number] for number in left.opens}


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_is_garbage_in_a_good_frame_is_refused(payload: bytes) -> None:
    data = MARK + frame(WHO.encode())
    if payload[:1] not in (b"I", b"O", b"N", b"R", b"C"):
        assert read(data + frame(payload)) == (Left(WHO), len(data))
    for kind in (b"I", b"O", b"N", b"R", b"C"):
        read(data + frame(kind + payload))  # raises nothing


def test_the_next_one_finds_what_is_open_and_is_alone_with_it(tmp_path: Path, expect_log: ExpectLog) -> None:
    first = journal(tmp_path)
    assert first.take_over() == Left()
    assert not (tmp_path / "state").exists()  # nothing is written for a share that keeps nothing
    first.identify(WHO)
    first.keep("one", an_open("one"))
    first.keep("two", an_open("two"))
    first.keep("one", an_open("renamed"))
    first.drop("two")
    first.drop("unknown")
    assert found(tmp_path) == Left(WHO, {1: an_open("renamed")})
    assert (tmp_path / "state" / "j").stat().st_mode & 0o777 == 0o600

    expect_log("belongs to another daemon, which is alive")
    second = journal(tmp_path)
    assert second.take_over() == Left()
    second.identify(Identity(b"X" * 16, 0, 1))
    second.keep("mine", an_open("mine"))
    second.end(heard=True)
    assert found(tmp_path) == Left(WHO, {1: an_open("renamed")})

    os.close(first._descriptor)  # as the kernel does for those it kills
    third = journal(tmp_path)
    assert third.take_over() == Left(WHO, {1: an_open("renamed")})
    third.identify(WHO)
    third.keep("new", an_open("new"))
    third.drop_left(1)
    assert found(tmp_path) == Left(WHO, {2: an_open("new")})
    third.end(heard=True)
    assert os.listdir(tmp_path / "state") == []


@pytest.mark.parametrize(
    ("heard", "opened", "remains"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_the_file_stays_only_for_what_may_be_open_still(
    tmp_path: Path, heard: bool, opened: bool, remains: bool
) -> None:
    made = journal(tmp_path)
    made.identify(WHO)
    if opened:
        made.keep("one", an_open())
    made.end(heard=heard)
    assert (tmp_path / "state" / "j").exists() == remains


def test_the_file_does_not_grow_with_what_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "SMALL", 2000)
    made = journal(tmp_path)
    made.identify(WHO)
    made.keep("stays", an_open("stays"))
    for number in range(500):
        made.keep(number, an_open(str(number)))
        made.drop(number)
        assert (tmp_path / "state" / "j").stat().st_size < 2200
    assert found(tmp_path) == Left(WHO, {1: an_open("stays")})
    assert os.listdir(tmp_path / "state") == ["j"]
    made.end(heard=True)


def spoil(kind: str, file: Path) -> None:
    """Put something else where the journal should be."""
    if kind == "directory":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(file.parent / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(file, 0o600)
    else:
        file.write_bytes({"garbage": os.urandom(500), "empty": b"", "open": MARK + frame(WHO.encode())}[kind])
        file.chmod(0o666 if kind == "open" else 0o600)


@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "open", "garbage", "empty"])
def test_what_is_not_a_journal_of_ours_is_one_line_in_the_log(kind: str, tmp_path: Path, expect_log: ExpectLog) -> None:
    made = journal(tmp_path)
    (tmp_path / "state").mkdir(mode=0o700)
    spoil(kind, tmp_path / "state" / "j")
    usable = kind in ("garbage", "empty")
    if kind != "empty":
        expect_log("makes sense for 0 of" if usable else "cannot be read")
    assert made.take_over() == Left()
    made.identify(WHO)
    made.keep("one", an_open())
    if usable:
        assert found(tmp_path) == Left(WHO, {1: an_open()})
    made.end(heard=False)
    assert not (tmp_path / "state" / "elsewhere").exists()


def test_a_disk_that_is_full_costs_the_journal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    made = journal(tmp_path)
    made.identify(WHO)
    made.keep("one", an_open("one"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:5]))
    expect_log("cannot be written")
    for number in range(3):
        made.keep(number, an_open())
        made.drop(number)
    made.identify(WHO)
    made.end(heard=False)
    data = (tmp_path / "state" / "j").read_bytes()
    assert read(data) == (Left(WHO, {1: an_open("one")}), len(data) - 5)
