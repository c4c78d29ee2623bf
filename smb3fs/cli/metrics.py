"""`smb3fs metrics`: the counters of mounts in Prometheus' text format, version 0.0.4.

A family of metrics has one HELP and one TYPE, whatever the number of mounts, so all of them come in one text; the label
`mountpoint` tells them apart. Counts are those of the daemon, so they begin again with every mount, which Prometheus
sees. A connection's label is its number among those that live, with the addresses but without ports: what comes back
continues the series of what was lost.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from smb3fs.cli.printable import printable
from smb3fs.errors import MountError
from smb3fs.status import StatusUnavailableError, mounted_shares, query_status

Snapshot = Mapping[str, Any]
Labels = Mapping[str, object]
Sample = tuple[Labels, float]
# What a file for others to read has for its mode.
READABLE: Final = 0o644


class Family(NamedTuple):
    """Metrics of one name: what they are, and those of one mount."""

    name: str
    kind: str
    help: str
    samples: Callable[[Snapshot], Iterable[Sample]]


def collect(mountpoints: Sequence[str]) -> tuple[str, list[str]]:
    """Return the metrics of mounts, of all there are if none is named, and a sentence for each that does not answer."""
    answers: dict[str, Snapshot | None] = {}
    complaints = []
    for place in mountpoints or [mount.mountpoint for mount in mounted_shares()]:
        try:
            answers[place] = query_status(place)
        except StatusUnavailableError as error:
            answers[place] = None
            complaints.append(str(error))
    return metrics_text(answers), complaints


def metrics_text(answers: Mapping[str, Snapshot | None]) -> str:
    """Return the metrics of mounts by their mountpoints; None is one that does not answer."""
    lines = []
    for family in FAMILIES:
        samples = [
            (place if snapshot is None else snapshot.get("mountpoint", place), sample)
            for place, snapshot in answers.items()
            if snapshot is not None or family is FAMILIES[0]
            for sample in family.samples(snapshot or {})
        ]
        if samples:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            lines += [_sample(family.name, {"mountpoint": place, **told}, value) for place, (told, value) in samples]
    return "".join(f"{line}\n" for line in lines)


def write(text: str, path: str) -> None:
    """Have a file say this, all of it or what it said before: whoever reads it meanwhile sees no half."""
    try:
        number, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".smb3fs-metrics-")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(number, READABLE)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise MountError(f"{path} cannot be written: {error.strerror}") from error


def show(mountpoints: Sequence[str], output: str | None) -> bool:
    """Print the metrics, or write them into a file; False says that a mount does not answer, and stderr which."""
    text, complaints = collect(mountpoints)
    if output is None:
        sys.stdout.write(text)
    else:
        write(text, output)
    for complaint in complaints:
        print(f"smb3fs: {complaint}", file=sys.stderr)
    return not complaints


def _sample(name: str, labels: Labels, value: float) -> str:
    """Return the line of one sample."""
    told = ",".join(f'{label}="{_escaped(printable(text))}"' for label, text in labels.items())
    return f"{name}{{{told}}} {value!r}"


def _escaped(text: str) -> str:
    """Return a label's value as it stands between quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _found(told: Any, keys: Sequence[str]) -> Any:
    """Return what is under keys below each other; None if there is no such thing."""
    for key in keys:
        told = told.get(key) if isinstance(told, Mapping) else None
    return told


def _is_number(value: object) -> bool:
    """Whether a value can be that of a metric."""
    return isinstance(value, int | float)


def _one(*keys: str) -> Callable[[Snapshot], Iterator[Sample]]:
    """Return what tells one number of a mount, which is under keys below each other."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        value = _found(snapshot, keys)
        if _is_number(value):
            yield {}, value

    return samples


def _each(label: str, *keys: str) -> Callable[[Snapshot], Iterator[Sample]]:
    """Return what tells each of a mount's counts, with what it counts for a label."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        counts = _found(snapshot, keys)
        for name, value in counts.items() if isinstance(counts, Mapping) else ():
            if _is_number(value):
                yield {label: name}, value

    return samples


def _of_channels(key: str, unit: float = 1) -> Callable[[Snapshot], Iterator[Sample]]:
    """Return what tells a number of each of a mount's connections, in units of which one is `unit` metrics' ones."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for channel in snapshot.get("channels") or ():
            if _is_number(channel.get(key)):
                yield _channel(channel), channel[key] * unit

    return samples


def _channel(channel: Snapshot) -> Labels:
    """Return the labels of a connection."""
    return {"channel": channel.get("number", ""), "local": channel.get("local"), "remote": channel.get("remote")}


def _channel_states(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell what each connection is at present."""
    for channel in snapshot.get("channels") or ():
        for state in ("in use", "standby", "silent"):
            yield {**_channel(channel), "state": state}, int(channel.get("state") == state)


def _up(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell whether the daemon has described itself."""
    yield {}, int("mountpoint" in snapshot)


def _connected(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell whether there is a session."""
    yield {}, int(snapshot.get("state") == "connected")


def _info(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell what is not a number."""
    names = ("server", "share", "place", "dialect", "signing", "encryption")
    yield {name: snapshot.get(name) or "" for name in names}, 1


def _caches(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell what each cache was good for."""
    for cache, counts in (snapshot.get("caches") or {}).items():
        for result, key in (("hit", "hits"), ("miss", "misses")):
            if _is_number(counts.get(key)):
                yield {"cache": cache, "result": result}, counts[key]


def _leases(snapshot: Snapshot) -> Iterator[Sample]:
    """Tell how many leases of each kind there are; kinds of which there are none as well, so that they fall to 0."""
    files = snapshot.get("leases") or {}
    for kind in ("R", "RH", "RW", "RWH", "none"):
        yield {"kind": kind}, files.get(kind, 0)
    yield {"kind": "directory"}, snapshot.get("directory_leases") or 0


def _families(kind: str, *rows: tuple[str, str, Callable[[Snapshot], Iterable[Sample]]]) -> list[Family]:
    """Return families of one kind, each given by the rest of its name, its help, and what tells it."""
    return [Family(f"smb3fs_{name}", kind, told, samples) for name, told, samples in rows]


# The first one is told of mounts that do not answer, too.
FAMILIES: Final[Sequence[Family]] = (
    *_families(
        "gauge",
        ("up", "Whether the daemon of the mount answers.", _up),
        ("mount_info", "What is mounted, and what was agreed with its server; always 1.", _info),
        ("connected", "Whether there is a session that calls can use.", _connected),
        ("start_time_seconds", "When it was mounted, in seconds since 1970.", _one("began")),
        ("open_handles", "Files that programs have open.", _one("open_handles")),
        ("deferred_handles", "Closed files that are still open on the server.", _one("deferred_handles")),
        ("dirty_bytes", "Bytes written by programs that are not at the server yet.", _one("writes", "dirty")),
        ("dirty_limit_bytes", "How many of these there may be.", _one("writes", "limit")),
        ("read_ahead_held_bytes", "Bytes fetched ahead that were not read yet.", _one("read_ahead", "held")),
        ("leases", "Leases held, by kind.", _leases),
        ("lease_break_longest_seconds", "The longest wait of a server.", _one("slowest_acknowledgement")),
        ("known_inodes", "Files and directories that the kernel knows.", _one("inodes")),
        ("resident_memory_bytes", "Memory of the daemon.", _one("memory", "resident")),
        ("locked_ranges", "Ranges of files that are locked here.", _one("locks", "ranges")),
        ("reconnect_longest_seconds", "The longest time without a session.", _one("recovery", "longest")),
    ),
    *_families(
        "counter",
        ("operations_total", "Requests of the kernel.", _one("operations")),
        ("requests_total", "SMB2 requests sent, by command.", _each("command", "requests")),
        ("lease_breaks_overdue_total", "Breaks acknowledged because their time was over.", _one("overdue_breaks")),
        ("round_trips_total", "Exchanges with the server that somebody waited for.", _one("round_trips")),
        ("unwaited_total", "Exchanges with the server that nobody waited for.", _one("unwaited")),
        ("read_bytes_total", "File data read from the server.", _one("bytes", "read")),
        ("written_bytes_total", "File data written to the server.", _one("bytes", "written")),
        ("copied_bytes_total", "File data that the server copied by itself.", _one("bytes", "copied")),
        ("shared_bytes_total", "What of that takes no space on its disk.", _one("bytes", "shared")),
        ("cache_lookups_total", "What was looked for in each cache, and whether it was there.", _caches),
        ("pages_kept_total", "Opens at which the kernel kept the pages of a file.", _one("opens", "pages_kept")),
        ("opened_ahead_total", "Small files opened ahead of a program.", _one("opens", "ahead")),
        ("opened_ahead_used_total", "How many of these it has come to.", _one("opens", "ahead_used")),
        ("listed_ahead_total", "Directories listed ahead of a program.", _one("directories", "ahead")),
        ("listed_ahead_used_total", "How many of these it has come to.", _one("directories", "ahead_used")),
        ("read_ahead_used_bytes_total", "Bytes fetched ahead and read.", _one("read_ahead", "used")),
        ("read_ahead_wasted_bytes_total", "Bytes fetched ahead in vain.", _one("read_ahead", "wasted")),
        ("gathered_writes_total", "Writes that were gathered.", _one("writes", "gathered")),
        ("gathered_failures_total", "Gathered writes that failed at the server.", _one("writes", "failed")),
        ("gathered_requests_total", "Requests with gathered writes, by cause.", _each("cause", "writes", "sent")),
        ("lease_breaks_total", "Leases taken back, by what others have done.", _each("cause", "break_causes")),
        ("reconnects_total", "Sessions that were lost and replaced.", _one("reconnects")),
        ("reconnect_failures_total", "Attempts at that which failed.", _one("recovery", "failures")),
        ("handles_claimed_total", "Open files given back by the server after a loss.", _one("recovery", "claimed")),
        ("handles_reopened_total", "Open files opened anew after a loss.", _one("recovery", "reopened")),
        ("handles_lost_total", "Open files that did not outlive a loss.", _one("recovery", "lost")),
        ("errors_total", "Errors that the log has.", _one("errors")),
        ("mistakes_total", "How many of these are defects of smb3fs.", _one("mistakes")),
        ("channel_receive_bytes_total", "Bytes received on a connection.", _of_channels("received")),
        ("channel_transmit_bytes_total", "Bytes sent on it that have arrived.", _of_channels("sent")),
        ("channel_retransmits_total", "TCP segments sent again on it.", _of_channels("repeated")),
        ("channel_errors_total", "Attempts at the connection that failed.", _of_channels("errors")),
        ("channel_reconnects_total", "How often it came back.", _of_channels("reconnects")),
    ),
    *_families(
        "gauge",
        ("channel_state", "What a connection is at present: 1 for that, 0 for the others.", _channel_states),
        ("channel_requests_in_flight", "Requests under way on it.", _of_channels("in_flight")),
        ("channel_in_flight_bytes", "Bytes that these move.", _of_channels("bytes_in_flight")),
        ("channel_credits", "Credits that are left on it.", _of_channels("credits")),
        ("channel_round_trip_seconds", "Round trip of its link.", _of_channels("link_round_trip")),
        ("channel_speed_bytes", "Speed of its link, in bytes a second.", _of_channels("speed", 1 / 8)),
    ),
)
