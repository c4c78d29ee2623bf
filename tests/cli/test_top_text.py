"""What smb3fs top shows: rates, rows and columns, on terminals of any width, whatever a server calls things."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mount_snapshots import channel, snapshot

from smb3fs.cli.printable import cut, printable, width
from smb3fs.cli.top_text import COLUMNS, Style, View, screen, short


def later(seconds: float = 2.0, **values: Any) -> dict[str, Any]:
    return snapshot(uptime=3725.5 + seconds, **values)


def texts(*views: View, columns: int = 132, rows: int | None = None) -> list[str]:
    return [line.text for line in screen(views, columns, rows)]


def table(view: View, columns: int = 132) -> list[dict[str, str]]:
    """The rows of the connections by their titles; a blank within a cell is none between cells."""
    lines = texts(view, columns=columns)
    head = next(number for number, line in enumerate(lines) if line.split()[:1] in (["#"], ["REMOTE"], ["STATE"]))
    titles = lines[head].split()
    return [dict(zip(titles, line.replace("in use", "in_use").split(), strict=True)) for line in lines[head + 1 :]]


def test_rates_are_growth_by_the_daemons_clock() -> None:
    before = snapshot(channels=[channel(received=1000, sent=0), channel(1)])
    now = later(
        operations=3000,
        round_trips=99 + 40,
        bytes={"read": (5 << 30) + (20 << 20), "written": 100},
        caches={"data": {"hits": 3 + 3, "misses": 1 + 1}, "names": {"hits": 3, "misses": 1}},
        channels=[channel(received=1000 + (20 << 20), sent=3000, in_flight=4, bytes_in_flight=1 << 20), channel(1)],
    )
    shown = "\n".join(texts(View("/mnt/photos", now, before)))
    for word in (
        "//nas/photos on /mnt/photos",
        "operations 1,500/s",
        "round trips 20/s",
        "read 10.0 MiB/s",
        "written 0 B/s",
        "cache hits data 75 %, names -",
        "open 3, deferred 2",
        "dirty 1.0 MiB",
        "leases RWH: 1, RH: 2, directory: 3",
        "memory 64.0 MiB",
        "handles 3 claimed, 1 reopened, 0 lost, in 0.5 s, at most 1.5 s",
        "the link went away",
    ):
        assert word in shown
    busy, idle = table(View("/mnt/photos", now, before))
    assert (busy["#"], busy["LOCAL"], busy["REMOTE"], busy["STATE"]) == ("0", "10.0.0.2", "10.0.0.1", "in_use")
    assert (busy["IN/s"], busy["OUT/s"], busy["REQS"], busy["BYTES"]) == ("10M", "1.5K", "4", "1.0M")
    assert (busy["RTT"], busy["CLASS"], busy["SPEED"]) == ("0.2ms", "-", "-")
    assert (idle["IN/s"], idle["OUT/s"]) == ("0", "0")


def test_what_several_connections_say() -> None:
    rows = [
        channel(0, **{"class": "RSS"}, speed=10_000_000_000),
        channel(1, state="standby", speed=100_000_000, errors=3, reconnects=2, **{"class": "plain"}),
        channel(2, state="silent"),
    ]
    best, lower, silent = table(View("/x", snapshot(channels=rows)))
    assert (best["CLASS"], best["SPEED"]) == ("RSS", "10G")
    assert (lower["STATE"], lower["SPEED"], lower["ERR"], lower["BACK"]) == ("standby", "100M", "3", "2")
    assert silent["STATE"] == "silent"
    styles = [line.style for line in screen([View("/x", snapshot(channels=rows))], 132)]
    assert styles[-4:] == [Style.HEADER, Style.PLAIN, Style.PLAIN, Style.ALERT]


@pytest.mark.parametrize(
    "before",
    [
        None,
        snapshot(),  # asked twice in the same moment
        snapshot(uptime=1.0, began=1.0),  # mounted anew in between
        {"uptime": 1.0, "began": 1_700_000_000.5},  # that of an older daemon
    ],
)
def test_nothing_is_made_up_where_there_is_nothing_to_compare(before: dict[str, Any] | None) -> None:
    view = View("/mnt/photos", snapshot(), before)
    assert "operations -/s" in "\n".join(texts(view))
    (row,) = table(view)
    assert (row["IN/s"], row["OUT/s"]) == ("-", "-")


def test_another_connection_under_the_same_number_has_no_rate_yet() -> None:
    before = snapshot(channels=[channel(connection="the one that was lost")])
    (row,) = table(View("/mnt/photos", later(channels=[channel(received=1 << 40)]), before))
    assert row["IN/s"] == "-"


def test_columns_go_one_by_one_as_it_gets_narrow() -> None:
    view, shown = View("/mnt/photos", snapshot()), []
    for columns in range(140, 0, -1):
        lines = screen([view], columns)
        assert all(width(line.text) <= columns for line in lines)
        (header,) = (line.text for line in lines if line.style is Style.HEADER)
        if header.split() not in shown:
            shown.append(header.split())
    order = [column.title for column in sorted(COLUMNS, key=lambda column: column.order)]
    assert shown[0] == [column.title for column in COLUMNS]
    # What is left at each width is the most important of all.
    assert all(set(titles) == set(order[: len(titles)]) for titles in shown if titles[0] in order)
    assert {len(titles) for titles in shown} >= set(range(2, len(COLUMNS) + 1))


def test_80_columns_have_all_but_the_near_addresses_for_ipv4() -> None:
    known = {"class": "plain", "speed": 10**10, "local": "192.168.100.100", "remote": "192.168.100.200"}
    rows = [channel(state="standby", **known)]
    view = View("/mnt/photos", later(channels=rows), snapshot(channels=rows))
    (row,) = table(view, columns=80)
    assert set(row) >= {column.title for column in COLUMNS} - {"LOCAL", "BACK"}


def test_several_mounts_and_one_that_does_not_answer() -> None:
    complaint = "the daemon of /b did not answer in 2 seconds"
    views = [View("/a", snapshot(mountpoint="/a")), View("/b", complaint=complaint)]
    shown = texts(*views)
    assert shown[0] == "//nas/photos on /a"
    assert shown[-2:] == ["/b", f"  {complaint}"]
    assert texts() == ["nothing is mounted"]


def test_what_is_too_long_for_the_screen_is_counted() -> None:
    view = View("/mnt/photos", snapshot(channels=[channel(number) for number in range(30)]))
    every = texts(view)
    shown = texts(view, rows=10)
    assert len(shown) == 10
    assert shown[:9] == every[:9]
    assert shown[9] == f"... and {len(every) - 9} lines more"


@pytest.mark.parametrize(
    "values", [{}, {"channels": [{}]}, {"error": "the daemon could not describe itself"}, {"state": "reconnecting"}]
)
def test_whatever_is_missing(values: dict[str, Any]) -> None:
    assert texts(View("/x", values, values))
    assert all(word in "\n".join(texts(View("/x", values))) for word in (values.get("error", ""), "//?/? on /x"))


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202egpj.exe\n\r\udcff"


@pytest.mark.parametrize("columns", [132, 20])
def test_no_control_character_reaches_the_terminal(columns: int) -> None:
    strange = snapshot(
        **dict.fromkeys(("server", "share", "mountpoint", "state", "dialect", "signing"), HOSTILE),
        channels=[channel(state=HOSTILE, local=HOSTILE, remote=HOSTILE)],
        leases={HOSTILE: 1},
        caches={HOSTILE: {"hits": 1, "misses": 0}},
        events=[{"time": 1, "text": HOSTILE}],
    )
    views = [View(HOSTILE, strange, strange), View(HOSTILE, complaint=HOSTILE)]
    shown = texts(*views, columns=columns)
    assert all(line.isprintable() for line in shown)
    assert columns < 132 or any(r"\x1b]0;owned\x07\x9b31m\u202egpj.exe\n\r\udcff" in line for line in shown)
    "".join(shown).encode()


@given(st.text(), st.integers(0, 30))
def test_printable_text_is_cut_by_its_width(text: str, columns: int) -> None:
    plain = printable(text)
    assert plain.isprintable()
    assert printable(plain) == plain
    assert plain.startswith(cut(plain, columns))
    assert width(cut(plain, columns)) <= columns


def test_wide_and_combining_characters_count_as_the_terminal_counts_them() -> None:
    assert [width(text) for text in ("abc", "日本", "e\u0301", "ü")] == [3, 4, 1, 1]
    assert cut("日本語", 5) == "日本"


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, None), (0, "0"), (999, "999"), (999.6, "1.0K"), (1536, "1.5K"), (10 << 20, "10M"), (9e99, "huge")],
)
def test_short_numbers(value: float | None, told: str | None) -> None:
    assert short(value) == told
