"""Samples to figures: medians, spans, ratios, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What several rounds of one measurement came to."""

    median: float
    least: float
    most: float
    rounds: int


def summarise(samples: Iterable[float]) -> Summary | None:
    """Median and span; None when no round succeeded."""
    found = list(samples)
    return Summary(statistics.median(found), min(found), max(found), len(found)) if found else None


def ratio(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """How many times `other` `one` is: the median over the rounds that both have; None without such a round.

    Figures of one round were taken within seconds of each other, so that what else the machine did touches both.
    """
    times = [rate / other[at] for at, rate in one.items() if other.get(at)]
    return statistics.median(times) if times else None


def number(value: float) -> str:
    """Three significant digits, in thousands above 10,000: 0.0412, 4.12, 41.2, 412, 4,123, 41.2 k."""
    if value >= 10_000:
        return f"{number(value / 1000)} k"
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1 or value == 0:
        return f"{value:.2f}"
    return f"{value:.3g}"


def cell(summary: Summary | None, times: float | None, failures: Sequence[str] = ()) -> str:
    """One cell of the table: the median, its span, and its ratio to the client compared with."""
    if summary is None:
        return "failed" if failures else "–"
    span = f" [{number(summary.least)}..{number(summary.most)}]" if summary.rounds > 1 else ""
    comparison = f" **{times:.2f}×**" if times is not None else ""
    lost = f" ({len(failures)} failed)" if failures else ""
    return f"{number(summary.median)}{span}{comparison}{lost}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source can be read too: columns padded to their width."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
