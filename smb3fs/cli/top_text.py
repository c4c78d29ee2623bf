"""What `smb3fs top` shows of mounts: a few lines for each, and a row for each of its connections.

All that is shown comes from snapshots (`smb3fs.snapshot`); a rate is what a count grew by between two of them, divided
by the time between them as the daemon measured it. A snapshot may be that of an older daemon: what it lacks is a dash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from smb3fs.cli.printable import cut, printable, width
from smb3fs.cli.status_text import leases_told
from smb3fs.cli.units import in_bytes, share_of, span

Snapshot = Mapping[str, Any]
NOTHING: Final = "-"
INDENT: Final = "  "
BYTES: Final = " KMGTP"


class Style(Enum):
    """How a line stands out on a terminal."""

    PLAIN = ""
    TITLE = "\x1b[1m"
    HEADER = "\x1b[7m"
    ALERT = "\x1b[1;31m"


class Line(NamedTuple):
    """A line that is printable and short enough."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class View:
    """One mount: what its daemon says now, and said at the look before; or the sentence that says why it does not."""

    mountpoint: str
    now: Snapshot | None = None
    before: Snapshot | None = None
    complaint: str = ""

    @property
    def seconds(self) -> float:
        """The time between both; 0 if there is nothing to compare."""
        if self.now is None or self.before is None or self.now.get("began") != self.before.get("began"):
            return 0.0
        return max(0.0, float(self.now.get("uptime") or 0) - float(self.before.get("uptime") or 0))

    def growth(self, *keys: str) -> int | None:
        """Return by how much a count has grown since the look before; None if that is not known."""
        return _grown(_found(self.now, keys), _found(self.before, keys)) if self.seconds else None

    def rate(self, *keys: str) -> float | None:
        """Return by how much a count grows in a second; None if that is not known."""
        grown = self.growth(*keys)
        return None if grown is None else grown / self.seconds


class Column(NamedTuple):
    """A column of the connections: what it says of one, and how soon it is left out where there is little room."""

    title: str
    told: Callable[[View, Snapshot], object]
    order: int
    left: bool = False


def screen(views: Sequence[View], columns: int, rows: int | None = None) -> list[Line]:
    """Return what to show of mounts on so many columns and rows; the last row says if there was more."""
    if not views:
        return [Line(cut("nothing is mounted", columns))]
    lines = [line for view in views for line in (*_mount(view, columns), Line(""))][:-1]
    if rows is not None and len(lines) > rows:
        lines = [*lines[: rows - 1], Line(cut(f"... and {len(lines) - rows + 1} lines more", columns), Style.TITLE)]
    return lines


def _mount(view: View, columns: int) -> Iterator[Line]:
    """Make the lines of one mount."""
    if view.now is None:
        yield Line(cut(printable(view.mountpoint), columns), Style.TITLE)
        yield from _flow([view.complaint], columns, Style.ALERT)
        return
    now = view.now
    title = f"//{now.get('server', '?')}/{now.get('share', '?')} on {now.get('mountpoint', view.mountpoint)}"
    yield Line(cut(printable(title), columns), Style.TITLE)
    connected = now.get("state") == "connected"
    yield from _flow(_state(now), columns, Style.PLAIN if connected else Style.ALERT)
    yield from _flow(_work(view), columns)
    yield from _flow(_kept(view), columns)
    yield from _flow(_latest(now), columns, Style.PLAIN if connected else Style.ALERT)
    yield from _table(view, columns)


def _state(now: Snapshot) -> Iterator[str]:
    """Say how the mount is."""
    yield str(now.get("state", "?"))
    if now.get("error"):
        yield str(now["error"])
    yield f"up {span(now.get('uptime')) or NOTHING}"
    protection = now.get("encryption") or now.get("signing")
    yield " ".join(str(word) for word in ("SMB", now.get("dialect") or "?", protection) if word)
    yield f"reconnects {now.get('reconnects', NOTHING)}"
    recovery = now.get("recovery") or {}
    if recovery.get("longest"):
        told = ", ".join(f"{recovery.get(name, NOTHING)} {name}" for name in ("claimed", "reopened", "lost"))
        yield f"handles {told}, in {recovery.get('latest', 0):.1f} s, at most {recovery['longest']:.1f} s"
    yield f"errors {now.get('errors', NOTHING)}"


def _work(view: View) -> Iterator[str]:
    """Say what goes on."""
    yield f"operations {_count(view.rate('operations'))}/s"
    yield f"round trips {_count(view.rate('round_trips'))}/s"
    for name, key in (("read", "read"), ("written", "written")):
        rate = view.rate("bytes", key)
        yield f"{name} {NOTHING if rate is None else in_bytes(rate)}/s"
    hits = []
    for cache in _found(view.now, ("caches",)) or {}:
        found, missed = (view.growth("caches", cache, what) for what in ("hits", "misses"))
        hits.append(f"{cache} {share_of(found or 0, missed or 0) or NOTHING}")
    if hits:
        yield f"cache hits {', '.join(hits)}"


def _kept(view: View) -> Iterator[str]:
    """Say what is held."""
    now = view.now or {}
    yield f"open {now.get('open_handles', NOTHING)}, deferred {now.get('deferred_handles', NOTHING)}"
    yield f"dirty {in_bytes(_found(now, ('writes', 'dirty'))) or NOTHING}"
    yield f"leases {leases_told(now) or 0}"
    yield f"memory {in_bytes(_found(now, ('memory', 'resident'))) or NOTHING}"


def _latest(now: Snapshot) -> Iterator[str]:
    """Say what happened last."""
    rows = [row for key in ("events", "last_errors") for row in (now.get(key) or [])[-1:]]
    if rows:
        row = max(rows, key=lambda row: row.get("time", 0))
        yield f"{time.strftime('%H:%M:%S', time.localtime(row.get('time', 0)))} {row.get('text', '?')}"


def _flow(facts: Iterable[str], columns: int, style: Style = Style.PLAIN) -> Iterator[Line]:
    """Put facts side by side, on as many lines as they take; one that is too long for a line is broken."""
    line = ""
    for fact in map(printable, facts):
        if line and width(line) + len(INDENT) + width(fact) <= columns:
            line += INDENT + fact
            continue
        if line:
            yield Line(cut(line, columns), style)
        line = INDENT + fact
        while width(line) > columns and columns > len(INDENT):
            head = cut(line, columns)
            head = head[: head.rfind(" ")] if head.strip() and head.rfind(" ") > len(INDENT) else head
            if not head.strip():
                break
            yield Line(head, style)
            line = INDENT + line[len(head) :].lstrip()
    if line:
        yield Line(cut(line, columns), style)


def _table(view: View, columns: int) -> Iterator[Line]:
    """Make a row for each connection, with as many columns as there is room for."""
    channels: list[Snapshot] = (view.now or {}).get("channels") or []
    if not channels:
        return
    cells = {
        column: [column.title, *(printable(_shown(column.told(view, channel))) for channel in channels)]
        for column in COLUMNS
    }
    chosen = list(COLUMNS)
    wide = {column: max(map(width, texts)) for column, texts in cells.items()}
    while len(chosen) > 1 and sum(wide[column] + 1 for column in chosen) - 1 > columns:
        chosen.remove(max(chosen, key=lambda column: column.order))
    for row in range(len(channels) + 1):
        parts = []
        for column in chosen:
            text = cells[column][row]
            blank = " " * (wide[column] - width(text))
            parts.append(text + blank if column.left else blank + text)
        state = "" if row == 0 else channels[row - 1].get("state", "")
        style = Style.HEADER if row == 0 else Style.ALERT if state == "silent" else Style.PLAIN
        yield Line(cut(" ".join(parts).rstrip() if row else " ".join(parts), columns), style)


def _shown(value: object) -> object:
    """Return a cell; a dash for what is not known."""
    return NOTHING if value is None or value == "" else value


def _channel_rate(key: str) -> Callable[[View, Snapshot], object]:
    """Return what tells the rate of a count of one connection."""

    def told(view: View, channel: Snapshot) -> object:
        before = next((one for one in (view.before or {}).get("channels") or [] if _is_same(one, channel)), None)
        grown = _grown(channel.get(key), before.get(key)) if before is not None and view.seconds else None
        return None if grown is None else short(grown / view.seconds)

    return told


def _is_same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two rows are about one connection."""
    return (one.get("number"), one.get("connection")) == (other.get("number"), other.get("connection"))


def _round_trip(_: View, channel: Snapshot) -> object:
    """Return the round trip of a connection in milliseconds: the link's, without the server's work."""
    seconds = channel.get("link_round_trip")
    return f"{seconds * 1e3:.1f}ms" if seconds else None


def short(value: float | None) -> str | None:
    """Return a number in five characters: 17, 1.5K, 230M; the unit is 1024 of the one before."""
    if value is None:
        return None
    for unit in BYTES:
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 9.95 and unit != " " else f"{value:.0f}{unit}".strip()
        value /= 1024
    return "huge"


def _speed(_: View, channel: Snapshot) -> object:
    """Return the speed of a link, in bits a second by thousands."""
    value = channel.get("speed")
    if value is None:
        return None
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:g}{unit}"
        value /= 1000
    return f"{value:g}T"


def _plain(key: str) -> Callable[[View, Snapshot], object]:
    """Return what tells a value as it is."""
    return lambda _, channel: channel.get(key)


# As they stand side by side; the one with the highest `order` goes first where there is no room for all.
COLUMNS: Final = (
    Column("#", _plain("number"), 7),
    Column("LOCAL", _plain("local"), 12, left=True),
    Column("REMOTE", _plain("remote"), 1, left=True),
    Column("CLASS", _plain("class"), 10, left=True),
    Column("SPEED", _speed, 8),
    Column("STATE", _plain("state"), 0, left=True),
    Column("IN/s", _channel_rate("received"), 2),
    Column("OUT/s", _channel_rate("sent"), 3),
    Column("REQS", _plain("in_flight"), 4),
    Column("BYTES", lambda _, channel: short(channel.get("bytes_in_flight")), 6),
    Column("RTT", _round_trip, 5),
    Column("ERR", _plain("errors"), 9),
    Column("BACK", _plain("reconnects"), 11),
)


def _found(snapshot: Snapshot | None, keys: Sequence[str]) -> Any:
    """Return what a snapshot has under keys below each other; None if it has not."""
    found: Any = snapshot
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _grown(now: Any, before: Any) -> int | None:
    """Return by how much a count has grown; None for what is none, or was begun anew."""
    if not isinstance(now, int) or not isinstance(before, int) or now < before:
        return None
    return now - before


def _count(rate: float | None) -> str:
    """Return a rate of events."""
    return NOTHING if rate is None else f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"
