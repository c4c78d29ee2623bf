"""What `smb3fs status`, `top` and `metrics` tell of a mount: everything that it counts, in values that JSON has.

Whoever compares two snapshots finds `uptime` in both, the seconds since the mount began, so that rates need no clock of
their own. What only grows is a count since then; the traffic of a channel is one since its connection was made.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final, Protocol

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.mechanisms import KERBEROS
from smb3fs.channels.session import Session
from smb3fs.handles.claim_results import Tally
from smb3fs.handles.lease import lease_name
from smb3fs.handles.opens import Durability
from smb3fs.line import Line
from smb3fs.options import MountOptions
from smb3fs.share.branches import Branches
from smb3fs.trace import Trace
from smb3fs.vfs.operations import Vfs
from smb3fs.wire.negotiate import Cipher, SigningAlgorithm

# What proc_pid_status(5) calls the memory that a process has at present, and the most that it ever had.
MEMORY: Final = (("resident", "VmRSS:"), ("most", "VmHWM:"))


class Described(Protocol):
    """A mount, as far as it is described: its parts."""

    options: MountOptions
    target: str
    began: float
    trace: Trace
    line: Line
    vfs: Vfs
    branches: Branches | None

    def lines(self) -> list[Line]:
        """Return the line to the source, and those to what links lead to."""


class Snapshots:
    """Describes one mount, as often as somebody asks."""

    def __init__(self, mount: Described) -> None:
        self._mount = mount
        # By number the channels that the last snapshot had.
        self._numbers: dict[int, Channel] = {}

    def take(self) -> dict[str, Any]:
        """Return what there is to tell at this moment."""
        mount = self._mount
        session, trace, options = mount.line.pool.session, mount.trace, mount.options
        state, lines = mount.vfs.state, mount.lines()
        kept = mount.vfs.cached.counts()
        return {
            "server": options.server,
            "share": options.share,
            "place": str(session.place) if session is not None else None,
            "mountpoint": mount.target,
            "began": mount.began,
            "uptime": time.time() - mount.began,
            "state": _state(mount.line),
            "login": _login_told(options, session),
            **_agreed(session),
            "posix": mount.line.share.posix,
            "channels": self._channels(lines),
            "links": self._links(),
            "operations": trace.operations,
            "requests": dict(trace.requests),
            "round_trips": trace.round_trips,
            "unwaited": trace.unwaited,
            "bytes": {
                "read": trace.bytes_read,
                "written": trace.bytes_written,
                "copied": trace.bytes_copied,
                "shared": trace.bytes_shared,
            },
            "read_ahead": {"used": state.ahead.used, "wasted": state.ahead.wasted, "held": state.ahead.held},
            "caches": self._caches(),
            "open_handles": sum(len(line.opens) for line in lines) - len(state.deferred) - kept["directories"],
            "deferred_handles": len(state.deferred),
            "opens": {
                "reused": state.deferred.reused,
                "not_reused": state.deferred.missed,
                "pages_kept": state.pages.kept,
                "ahead": mount.vfs.opens_ahead.asked,
                "ahead_used": mount.vfs.opens_ahead.used,
            },
            "handles": _handles(lines),
            "writes": self._writes(),
            "inodes": len(state.inodes),
            "memory": memory(),
            "locks": state.locks.counts(),
            "leases": _leases(lines),
            "directory_leases": sum(line.opens.leases.directories() for line in lines),
            "directories": {
                **kept,
                "ahead": mount.vfs.listings_ahead.asked,
                "ahead_used": mount.vfs.listings_ahead.used,
            },
            "breaks": dict(trace.breaks),
            "break_causes": dict(trace.break_causes),
            "slowest_acknowledgement": trace.slowest_acknowledgement,
            "overdue_breaks": trace.overdue_breaks,
            "reconnects": trace.reconnects,
            "recovery": self._recovery(lines),
            "dropped_names": trace.dropped_names,
            "errors": trace.failures,
            "mistakes": trace.mistakes,
            "events": [{"time": event.time, "text": event.text} for event in trace.events],
            "last_errors": [{"time": event.time, "text": event.text} for event in trace.errors],
        }

    def _caches(self) -> dict[str, dict[str, int]]:
        """Return of what was looked for in each cache how much was there."""
        trace, deferred = self._mount.trace, self._mount.vfs.state.deferred
        return {
            "data": trace.data.counts(),
            "attributes": trace.attributes.counts(),
            "names": trace.names.counts(),
            "listings": trace.listings.counts(),
            "handles": {"hits": deferred.reused, "misses": deferred.missed},
        }

    def _writes(self) -> dict[str, Any]:
        """Return what is gathered, and how that was sent: bytes, the most there were and may be; writes, and runs."""
        writes = self._mount.vfs.state.writes
        return {
            "dirty": writes.dirty,
            "most": writes.most,
            "limit": writes.limit,
            "gathered": writes.taken,
            "failed": writes.failed,
            "sent": {cause.value: count for cause, count in writes.runs.items()},
        }

    def _links(self) -> dict[str, str | None]:
        """Return the links that have been followed, and where each leads at present."""
        branches = self._mount.branches
        sessions = {} if branches is None else {way.path: way.branch.pool.session for way in branches.ways}
        return {path: str(session.place) if session is not None else None for path, session in sessions.items()}

    def _recovery(self, lines: list[Line]) -> dict[str, Any]:
        """Return what the losses have come to; times are in seconds."""
        total, home = Tally(), self._mount.line
        for line in lines:
            total.add(line.recovery.tally)
        return {
            "generation": home.pool.generation,
            "claimed": total.claimed,
            "reopened": total.reopened,
            "lost": total.lost,
            "robbed": total.robbed,
            "lost_files": [
                {"time": lost.time, "path": lost.path, "inode": lost.file_id, "why": lost.why}
                for lost in sorted(lost for line in lines for lost in line.opens.lost)
            ],
            "failures": sum(line.recovery.failures for line in lines),
            "latest": home.recovery.latest,
            "longest": max(line.recovery.longest for line in lines),
            "inherited": {kind: sum(line.inherited[kind] for line in lines) for kind in ("closed", "gone", "left")},
        }

    def _channels(self, lines: list[Line]) -> list[dict[str, Any]]:
        """Return what is to say about each channel that lives; of one of several also what the policy knows of it."""
        found = [
            (line, session, channel)
            for line in lines
            if (session := line.pool.session) is not None
            for channel in session.channels
        ]
        self._number([channel for _, _, channel in found])
        numbers = {channel: number for number, channel in self._numbers.items()}
        return [{"number": numbers[channel], **_channel(line, session, channel)} for line, session, channel in found]

    def _number(self, channels: list[Channel]) -> None:
        """Give each channel the smallest number that is free, which it keeps for as long as it lives."""
        self._numbers = {number: one for number, one in self._numbers.items() if one in channels}
        known = set(self._numbers.values())
        free = (number for number in range(len(known) + len(channels)) if number not in self._numbers)
        self._numbers |= dict(zip(list(free), [one for one in channels if one not in known], strict=False))


def _channel(line: Line, session: Session, channel: Channel) -> dict[str, Any]:
    """Return what is to say about one channel of a line's session."""
    local, remote = channel.transport.ends
    traffic = channel.transport.traffic()
    lane = session.lanes.get(channel)
    row: dict[str, Any] = {
        "connection": channel.transport.description,
        "local": local,
        "remote": remote,
        "transport": "tcp",
        "state": "silent" if channel.silent else "standby" if lane is not None and lane.standby else "in use",
        "in_flight": channel.in_flight,
        "bytes_in_flight": channel.bytes_in_flight,
        "given_up": channel.given_up,
        "credits": channel.connection.credits.available,
        "received": traffic.received,
        "sent": traffic.sent,
        "repeated": traffic.repeated,
        "link_round_trip": traffic.round_trip,
        "errors": line.recovery.failures,
        "reconnects": line.recovery.returns,
    }
    if lane is not None and line.siblings is not None:
        path, failures, returns = line.siblings.told(channel)
        if path is not None:
            row |= {"class": "RSS" if path.rss else "plain", "speed": path.speed, "interface": path.interface}
        row["errors"] += failures
        row["reconnects"] += returns
        row |= {"bytes": lane.moved, "rate": lane.rate(trio.current_time()), "round_trip": lane.delay}
    return row


def _state(line: Line) -> str:
    """Return in one word or two how the connection to the source is."""
    if line.pool.session is None:
        return "reconnecting"
    return "login expired" if line.pool.expired else "connected"


def _agreed(session: Session | None) -> dict[str, str | None]:
    """Return what was agreed on with the server; what protects nothing is left out."""
    if session is None:
        return {"dialect": None, "signing": None, "encryption": None}
    agreed = session.agreed
    sealed = session.security.seal_everything or session.tree.seal
    signed = session.security.signer is not None and not sealed
    return {
        "dialect": _dialect(agreed.dialect),
        "signing": SigningAlgorithm(agreed.signing).name if signed else None,
        "encryption": Cipher(agreed.cipher).name if agreed.cipher and sealed else None,
    }


def _leases(lines: list[Line]) -> dict[str, int]:
    """Return how many files have which lease; "none" are those whose lease was taken back or not granted."""
    counts: Counter[int] = Counter()
    for line in lines:
        counts += line.opens.leases.counts()
    return {lease_name(state): counts[state] for state in sorted(counts, reverse=True)}


def _handles(lines: list[Line]) -> dict[str, int]:
    """Return how many handles there are of each durability."""
    counts = sum((line.opens.durabilities() for line in lines), Counter[Durability]())
    return {durability.name.lower(): counts[durability] for durability in Durability}


def memory(status: str = "/proc/self/status") -> dict[str, int | None]:
    """Return how many bytes of memory this process has, and the most it had; None if the kernel does not say."""
    told: dict[str, int] = {}
    with suppress(OSError), open(status, encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) == 3 and words[2] == "kB" and words[1].isdigit():
                told[words[0]] = int(words[1]) * 1024
    return {name: told.get(key) for name, key in MEMORY}


def _login_told(options: MountOptions, session: Session | None) -> str:
    """Return how the mount logs in, and whether it got a key by it."""
    known = options.credentials
    if session is not None and session.security.signer is None:
        return "guest or anonymous: nothing is signed"
    kind = "Kerberos" if options.security == KERBEROS else "NTLM"
    return f"{kind}, as {known.username}" if known.username else kind


def _dialect(dialect: int) -> str:
    """Return a dialect as people write it: 3.1.1."""
    major, minor, patch = dialect >> 8, dialect >> 4 & 15, dialect & 15
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"
