"""Figures as people read them."""

from __future__ import annotations

from typing import Final

UNITS: Final = ("B", "KiB", "MiB", "GiB")


def in_bytes(count: float | None) -> str | None:
    """Return a number of bytes with a unit that keeps it short; None for None."""
    if count is None:
        return None
    value = float(count)
    for unit in UNITS:
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        value /= 1024
    return f"{value:.1f} TiB"


def in_bits(speed: float | None) -> str | None:
    """Return the speed of a link, given in bits a second; None for None."""
    return None if speed is None else f"{speed / 1e6:,.0f} Mbit/s"


def span(seconds: float | None) -> str | None:
    """Return a time span in hours, minutes and seconds; None for None."""
    if seconds is None:
        return None
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def share_of(hits: int, misses: int) -> str | None:
    """Return hits as a share of all that was looked for; None if nothing was."""
    return f"{100 * hits / (hits + misses):.0f} %" if hits + misses else None


def delay(seconds: float | None) -> str | None:
    """Return a short time in milliseconds; None for None or where it is not known."""
    return f"{seconds * 1e3:.1f} ms" if seconds else None
