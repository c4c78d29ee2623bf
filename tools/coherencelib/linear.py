"""Whether what several have seen at the same time can have been, one after the other, within a bound.

Who has changed something was told so at some moment; who asks later than that and the bound must not see it as it was
before. What two do at the same time may come in either order. Nothing that could have been is called wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coherencelib.racer import LOG, MOVES, NAMES, RECORD

FINE: Final[Mapping[str, frozenset[str]]] = {
    "make": frozenset({"EEXIST"}),
    "remove": frozenset({"ENOENT"}),
    "look": frozenset({"ENOENT"}),
    "move": frozenset({"ENOENT"}),
}
"""Errors that are an answer."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that one has done: from when to when, by the machine's monotonic clock, and what came of it."""

    who: str
    what: str
    key: str
    value: Any
    began: float
    ended: float
    error: str = ""

    def __str__(self) -> str:
        said = self.error or (self.value if self.what != "log" else f"{len(self.value) // RECORD} records")
        return f"{self.began:.4f} to {self.ended:.4f} {self.who:7s} {self.what} {self.key}: {said}"


@dataclass
class Wrong:
    """What cannot have been, and the events that say so."""

    words: str
    events: list[Event]


@dataclass
class Verdict:
    """What a judge has found."""

    wrong: list[Wrong] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """For how many seconds something was over that was still seen."""


def judge(events: Sequence[Event], final: Mapping[str, Any], bound: float) -> Verdict:
    """Judge all; `final` is what the server has in the end: blocks by their key, the log, and the names of tokens."""
    verdict = Verdict()
    by_key: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_key[event.key].append(event)
        if event.error and event.error not in FINE.get(event.what, frozenset()):
            verdict.wrong.append(Wrong(f"{event.what} {event.key}: {event.error}", [event]))
    for key, found in by_key.items():
        if key == LOG:
            verdict.wrong += log(found, final[LOG], bound)
        elif key.startswith(f"{NAMES}/"):
            verdict.wrong += names(found, bound)
        elif any(event.what == "write" for event in found):
            block(found, final.get(key, []), bound, verdict)
    verdict.wrong += moves([event for event in events if event.what == "move"], final[MOVES])
    return verdict


# -- a block is a register


def block(events: Sequence[Event], final: Sequence[int], bound: float, verdict: Verdict) -> None:
    """What is read was the last that had been written, or was being written."""
    start = Event("nobody", "write", events[0].key, 0, float("-inf"), float("-inf"))
    writes = {event.value: event for event in events if event.what == "write" and not event.error}
    writes[0] = start
    end = max(event.ended for event in events) + 1.0
    reads = [event for event in events if event.what == "read" and not event.error]
    reads.append(Event("server", "read", start.key, list(final), end, end))
    for read in reads:
        if not read.value:
            verdict.wrong.append(Wrong(f"{read.key}: what nobody has written", [read]))
        for number in read.value:
            if number not in writes or writes[number].began > read.ended:
                words = f"{read.key}: {number}, which was {'written later' if number in writes else 'never written'}"
                verdict.wrong.append(Wrong(words, [read]))
                continue
            seen = writes[number]
            newer = [one for one in writes.values() if one.began > seen.ended and one.ended < read.began]
            if not newer:
                continue
            first = min(newer, key=lambda one: one.ended)
            late = read.began - first.ended
            verdict.late.append(late)
            if late > (bound if read.who != "server" else 0.0):
                words = f"{read.key}: {number} is read {late:.3f} s after {first.value} had taken its place"
                verdict.wrong.append(Wrong(words, [seen, first, read]))


# -- the log


def log(events: Sequence[Event], final: str, bound: float) -> Iterator[Wrong]:
    """Each record once, in the order in which they were appended; and nobody has seen another log than this one."""
    records = [int(word) for word in final.split()]
    appended = {event.value: event for event in events if event.what == "append" and not event.error}
    perhaps = {event.value for event in events if event.what == "append" and event.error}
    places = {number: place for place, number in enumerate(records)}
    if len(places) != len(records):
        yield Wrong("records of the log are there twice", [])
    for number in appended.keys() - places.keys():
        yield Wrong(f"the log has lost {number}", [appended[number]])
    for number in places.keys() - appended.keys() - perhaps:
        yield Wrong(f"the log has {number}, which nobody has appended", [])
    there = sorted((event for number, event in appended.items() if number in places), key=lambda one: places[one.value])
    latest = None
    for event in there:
        if latest is not None and event.ended < latest.began:
            yield Wrong(f"the log has {event.value} behind {latest.value}", [event, latest])
        if latest is None or event.began > latest.began:
            latest = event
    for read in events:
        if read.what != "log" or read.error:
            continue
        if not final.startswith(read.value):
            yield Wrong("a log was seen that there never was", [read])
        for event in there:
            if event.ended + bound < read.began and places[event.value] >= len(read.value) // RECORD:
                yield Wrong(f"the log without {event.value} is read too late", [event, read])
                break


# -- a name is there or not


def names(events: Sequence[Event], bound: float) -> Iterator[Wrong]:
    """Who makes a name finds it missing, who removes it finds it there; and who looks sees what is so."""
    made = [event for event in events if event.what == "make" and not event.error]
    removed = [event for event in events if event.what == "remove" and not event.error]
    if bad := not_in_turns(made, removed):
        yield Wrong(f"{bad.key}: {bad.what} cannot have succeeded as well", sorted([*made, *removed], key=_order))
        return
    for event in events:
        says_there = (event.what, event.error) in {("make", "EEXIST"), ("look", "")}
        says_missing = (event.what, event.error) in {("remove", "ENOENT"), ("look", "ENOENT")}
        low, high = event.began - bound, event.ended
        if says_there and surely(low, high, removed, made, missing_at_first=True):
            yield Wrong(f"{event.key} is there for {event.what}", sorted([*made, *removed, event], key=_order))
        if says_missing and surely(low, high, made, removed):
            yield Wrong(f"{event.key} is missing for {event.what}", sorted([*made, *removed, event], key=_order))


def _order(event: Event) -> float:
    return event.began


def not_in_turns(made: Sequence[Event], removed: Sequence[Event]) -> Event | None:
    """The first that cannot have had its turn, if making and removing are to come in turns, beginning with making.

    Of those that may come next the one that ended first is taken: others can only be in its way later.
    """
    waiting = [sorted(made, key=lambda one: one.ended), sorted(removed, key=lambda one: one.ended)]
    turn = 0
    while waiting[0] or waiting[1]:
        rest = [*waiting[0], *waiting[1]]
        first_end = min(event.ended for event in rest)
        able = [event for event in waiting[turn] if event.began <= first_end]
        if not able:
            return min(rest, key=lambda one: one.ended)
        waiting[turn].remove(able[0])
        turn = 1 - turn
    return None


def surely(
    low: float, high: float, doing: Sequence[Event], undoing: Sequence[Event], *, missing_at_first: bool = False
) -> bool:
    """Whether something was done before a time and not undone until another, whatever the order of what was at once."""
    if missing_at_first and not any(event.began < high for event in undoing):
        return True
    return any(
        one.ended < low and not any(other.ended > one.began and other.began < high for other in undoing)
        for one in doing
    )


# -- a token is at one place


def moves(events: Sequence[Event], final: Sequence[str]) -> Iterator[Wrong]:
    """Each name, which was never there before, is left once; who finds it gone was late; and what is left is there."""
    done: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if not event.error:
            done[event.key].append(event)
    for name, leaving in done.items():
        if len(leaving) > 1:
            yield Wrong(f"{name} was moved {len(leaving)} times", leaving)
    for event in events:
        if event.error == "ENOENT" and not any(other.began < event.ended for other in done.get(event.key, [])):
            yield Wrong(f"{event.key} was gone, and nobody had moved it", [event])
    tokens = {event.key.partition("-")[0] for event in events}
    for token in sorted(tokens):
        name, steps = f"{token}-", 0
        while name in done and steps <= len(events):
            name, steps = done[name][0].value, steps + 1
        seen = [one for one in final if one.partition("-")[0] == token]
        if seen != [name]:
            yield Wrong(f"the server has {seen} where {name} should be", done.get(name, []))
