"""The status of a mount as a person reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from smb3fs.cli.printable import printable
from smb3fs.cli.units import delay, in_bits, in_bytes, share_of, span

# As many events and errors as fit on a screen beside the rest; the JSON has them all.
SHOWN: Final = 5
# What is shown of a connection as it is; what most have none of only where there is some.
CHANNEL: Final = ("in_flight", "given_up", "credits", "errors", "reconnects", "repeated")
SELDOM: Final = ("given_up", "repeated")
# What people call the causes of breaks: what another client has done.
CAUSES: Final[Mapping[str, str]] = {
    "opened": "opened",
    "changed": "changed",
    "in_the_way": "removed, renamed or wanted alone",
    "directory": "changed in a directory",
}


def status_text(snapshot: Mapping[str, Any]) -> str:
    """Return the lines for a snapshot; what it lacks is left out."""
    return "\n".join(map(printable, _lines(snapshot)))


def snapshots_text(answer: Mapping[str, Any]) -> str:
    """Return one line for each previous version, its token and the time here; the mounted one is marked."""
    tokens = answer.get("snapshots") or []
    if not tokens:
        return "the server has no previous versions of this share"
    lines = (_snapshot_line(str(token), mounted=token == answer.get("mounted")) for token in tokens)
    return "\n".join(map(printable, lines))


def _snapshot_line(token: str, *, mounted: bool) -> str:
    """Return the line of one previous version; of a time that is none, what the server calls it."""
    try:
        moment = datetime.strptime(token, "@GMT-%Y.%m.%d-%H.%M.%S").replace(tzinfo=UTC).astimezone()
    except (ValueError, OverflowError):
        return token
    return f"{token}  {moment:%Y-%m-%d %H:%M:%S %Z}" + ("  (mounted)" if mounted else "")


def _lines(snapshot: Mapping[str, Any]) -> Iterator[str]:
    """Make the lines one after the other."""
    yield f"//{snapshot.get('server', '?')}/{snapshot.get('share', '?')} on {snapshot.get('mountpoint', '?')}"
    known: list[tuple[str, Any]] = [
        ("state", snapshot.get("state")),
        ("place", snapshot.get("place")),
        ("mounted for", span(snapshot.get("uptime"))),
        ("login", snapshot.get("login")),
        ("dialect", snapshot.get("dialect")),
        ("signing", snapshot.get("signing")),
        ("encryption", (snapshot["encryption"] or "none") if "encryption" in snapshot else None),
        ("reconnects", snapshot.get("reconnects")),
        ("recovery", _recovery(snapshot.get("recovery") or {})),
        ("left before", _inherited((snapshot.get("recovery") or {}).get("inherited") or {})),
        ("open handles", _handles(snapshot.get("open_handles"), snapshot.get("handles") or {})),
        ("deferred close", snapshot.get("deferred_handles")),
        ("gathered", _gathered(snapshot.get("writes"))),
        ("opens", _counts(snapshot.get("opens"))),
        ("locks", _locks(snapshot.get("locks"))),
        ("leases", leases_told(snapshot)),
        ("breaks", _counts(snapshot.get("breaks"))),
        ("others have", _causes(snapshot.get("break_causes"))),
        ("slowest answer", delay(snapshot.get("slowest_acknowledgement"))),
        ("answered late", snapshot.get("overdue_breaks") or None),
        ("mistakes", snapshot.get("mistakes") or None),
        ("cache hits", hits_told(snapshot.get("caches") or {})),
        ("directories", _counts(snapshot.get("directories"))),
        ("memory", memory_told(snapshot)),
        ("operations", snapshot.get("operations")),
        ("round trips", snapshot.get("round_trips")),
        ("not waited for", snapshot.get("unwaited")),
        ("read", in_bytes((snapshot.get("bytes") or {}).get("read"))),
        ("read ahead", _read_ahead(snapshot.get("read_ahead") or {})),
        ("written", in_bytes((snapshot.get("bytes") or {}).get("written"))),
        ("copied there", in_bytes((snapshot.get("bytes") or {}).get("copied"))),
        ("shared of that", in_bytes((snapshot.get("bytes") or {}).get("shared"))),
        ("error", snapshot.get("error")),
    ]
    for name, value in known:
        if value is not None:
            yield f"  {name:<15}{value}"
    for position, channel in enumerate(snapshot.get("channels") or []):
        yield f"  channel {channel.get('number', position):<7}{_channel(channel)}"
    for path, place in (snapshot.get("links") or {}).items():
        yield f"  link           {path} leads to {place or 'nothing at present'}"
    requests = snapshot.get("requests") or {}
    if requests:
        yield "  requests"
        for name, count in sorted(requests.items(), key=lambda item: -item[1]):
            yield f"    {name:<17}{count:>12,}"
    for title, key in (("events", "events"), ("last errors", "last_errors")):
        rows = (snapshot.get(key) or [])[-SHOWN:]
        if rows:
            yield f"  {title}"
        for row in rows:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.get("time", 0)))
            yield f"    {when}  {row.get('text', '?')}"


def _channel(channel: Mapping[str, Any]) -> str:
    """Return what is to be said of a connection."""
    details = [
        f"{name.replace('_', ' ')} {channel[name]}"
        for name in CHANNEL
        if name in channel and (channel[name] or name not in SELDOM)
    ]
    if "received" in channel:
        details.append(f"{in_bytes(channel['received'])} in, {in_bytes(channel.get('sent'))} out")
    details += [part for part in (delay(channel.get("link_round_trip")), in_bits(channel.get("speed"))) if part]
    details += [str(channel[name]) for name in ("class", "state") if name in channel]
    if "bytes" in channel:
        details.append(f"carried {in_bytes(channel['bytes'])}")
    return f"{channel.get('connection', '?')} ({', '.join([str(channel.get('transport', '?')), *details])})"


def leases_told(snapshot: Mapping[str, Any]) -> str | None:
    """Return how many leases there are of each kind; None for none."""
    directories = snapshot.get("directory_leases")
    return _counts({**(snapshot.get("leases") or {}), **({"directory": directories} if directories else {})})


def hits_told(caches: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return of what was looked for in each cache which share was there; None if nothing was looked for."""
    shares = {name: share_of(counts.get("hits", 0), counts.get("misses", 0)) for name, counts in caches.items()}
    return ", ".join(f"{name} {share}" for name, share in shares.items() if share) or None


def memory_told(snapshot: Mapping[str, Any]) -> str | None:
    """Return the daemon's memory, and what takes some of it."""
    told = snapshot.get("memory") or {}
    if told.get("resident") is None:
        return None
    most = f", at most {in_bytes(told['most'])}" if told.get("most") else ""
    return f"{in_bytes(told['resident'])}{most}; {snapshot.get('inodes', 0):,} inodes"


def _causes(counts: Mapping[str, int] | None) -> str | None:
    """Return what other clients have done for leases to be broken."""
    return _counts({CAUSES.get(name, name): count for name, count in (counts or {}).items()})


def _locks(counts: Mapping[str, int] | None) -> str | None:
    """Return the counts of locks; None where there is nothing to tell."""
    if not counts or not any(counts.values()):
        return None
    waiting = counts.get("waiting_at_server", 0)
    return (
        f"{counts.get('ranges', 0)} ranges of {counts.get('files', 0)} files,"
        f" {counts.get('on_server', 0)} on the server" + (f", {waiting} waited for there" if waiting else "")
    )


def _gathered(told: Mapping[str, Any] | None) -> str | None:
    """Return what was written and has not arrived, and how the rest was sent; nothing where nothing was gathered."""
    if not told or not told.get("gathered"):
        return None
    here, most, limit = (in_bytes(told.get(name)) for name in ("dirty", "most", "limit"))
    sent = _counts(told.get("sent"))
    failed = f"; {told['failed']:,} failed" if told.get("failed") else ""
    return (
        f"{here} of {limit}, at most {most}; {told['gathered']:,} writes" + (f", sent {sent}" if sent else "") + failed
    )


def _recovery(told: Mapping[str, Any]) -> str | None:
    """Return what became of the handles that were open at losses; nothing as long as there was no loss."""
    if not told or not told.get("longest"):
        return None
    counts = ", ".join(f"{told.get(name, '?')} {name}" for name in ("claimed", "reopened", "lost"))
    return (
        f"handles: {counts}; took {told.get('latest', 0):.1f} s, at most {told['longest']:.1f} s; "
        f"generation {told.get('generation', '?')}"
    )


def _inherited(told: Mapping[str, int]) -> str | None:
    """Return what became of what a killed daemon had left open; nothing where there was none."""
    if not any(told.values()):
        return None
    return f"handles of a killed daemon: {', '.join(f'{count} {kind}' for kind, count in told.items())}"


def _handles(count: int | None, by_durability: Mapping[str, int]) -> str | None:
    """Return how many handles are open, and how many of them outlive their connection."""
    if count is None:
        return None
    durable = ", ".join(f"{number} {name}" for name, number in by_durability.items() if number and name != "none")
    return f"{count} ({durable.replace('_', ' ')})" if durable else str(count)


def _counts(counts: Mapping[str, int] | None) -> str | None:
    """Return counts in one line, None for nothing to count."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) if counts else None


def _read_ahead(told: Mapping[str, int]) -> str | None:
    """Return what became of the bytes that were fetched ahead of programs; None where there were none."""
    if not any(told.values()):
        return None
    return ", ".join(f"{in_bytes(told.get(name))} {name}" for name in ("used", "wasted", "held"))
