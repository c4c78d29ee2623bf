"""What a daemon may say of its mount, for the tests of what shows it."""

from __future__ import annotations

from typing import Any


def channel(number: int = 0, **values: Any) -> dict[str, Any]:
    """One connection."""
    return {
        "number": number,
        "connection": f"10.0.{number}.2:5000{number} -> 10.0.{number}.1:445",
        "local": f"10.0.{number}.2",
        "remote": f"10.0.{number}.1",
        "transport": "tcp",
        "state": "in use",
        "in_flight": 0,
        "bytes_in_flight": 0,
        "given_up": 0,
        "credits": 512,
        "received": 0,
        "sent": 0,
        "repeated": 0,
        "link_round_trip": 0.00025,
        "errors": 0,
        "mistakes": 0,
        "reconnects": 0,
        **values,
    }


def snapshot(**values: Any) -> dict[str, Any]:
    """A mount that is well, an hour after it was made."""
    return {
        "server": "nas",
        "share": "photos",
        "place": "//nas/photos",
        "mountpoint": "/mnt/photos",
        "began": 1_700_000_000.5,
        "uptime": 3725.5,
        "state": "connected",
        "login": "NTLM, as alice",
        "dialect": "3.1.1",
        "signing": "AES_GMAC",
        "encryption": None,
        "channels": [channel()],
        "operations": 0,
        "requests": {"CREATE": 12, "READ": 1234567},
        "round_trips": 99,
        "unwaited": 7,
        "bytes": {"read": 5 << 30, "written": 100, "copied": 0, "shared": 0},
        "read_ahead": {"used": 0, "wasted": 0, "held": 0},
        "caches": {name: {"hits": 3, "misses": 1} for name in ("data", "attributes", "names", "listings", "handles")},
        "open_handles": 3,
        "deferred_handles": 2,
        "opens": {"reused": 3, "not_reused": 1, "pages_kept": 4, "ahead": 20, "ahead_used": 18},
        "writes": {"dirty": 1 << 20, "limit": 4 << 20, "gathered": 9, "failed": 1, "sent": {"full": 5}},
        "inodes": 17,
        "memory": {"resident": 64 << 20, "most": 65 << 20},
        "locks": {"ranges": 5, "files": 2, "on_server": 4, "waiting_at_server": 1},
        "leases": {"RWH": 1, "RH": 2},
        "directories": {"directories": 2, "entries": 40, "hits": 7, "breaks": 1, "ahead": 30, "ahead_used": 29},
        "directory_leases": 3,
        "breaks": {"RWH to RH": 2, "RH to none": 1},
        "break_causes": {"opened": 2, "changed": 1},
        "slowest_acknowledgement": 0.0125,
        "overdue_breaks": 1,
        "reconnects": 1,
        "recovery": {"claimed": 3, "reopened": 1, "lost": 0, "failures": 2, "latest": 0.5, "longest": 1.5},
        "errors": 2,
        "mistakes": 1,
        "events": [{"time": 0, "text": "reconnected"}],
        "last_errors": [{"time": 60, "text": "the link went away"}],
        **values,
    }
