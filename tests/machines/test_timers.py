"""When a server will look whether the time of an open is over, after losses that it has outlived."""

from __future__ import annotations

import math

import pytest

from smb3fs.handles.opens import kept_for
from smb3fs.handles.timers import Timers
from smb3fs.wire.durable import DURABLE_HANDLE, DURABLE_HANDLE_V2, DurableHandleResponseV2


@pytest.mark.parametrize(
    ("absences", "told"),
    [
        ([], {1000.0: math.inf}),
        # In danger from a minute after its loss to a minute after it was given back.
        ([(100.0, 103.0)], {103.0: 56.0, 158.0: 1.0, 160.0: 0.0, 163.9: 0.0, 164.1: math.inf}),
        ([(100.0, 100.5), (110.0, 110.1)], {150.0: 9.0, 162.0: 7.0, 172.0: math.inf}),
        ([(100.0, 100.5), (100.0, 105.0)], {163.0: 0.0, 166.5: math.inf}),
    ],
    ids=["never lost", "one loss", "each loss leaves another", "attempts that come to nothing belong to one loss"],
)
def test_when_it_is_in_danger(absences: list[tuple[float, float]], told: dict[float, float]) -> None:
    timers = Timers()
    for lost, given_back in absences:
        timers.note(lost, given_back)
    assert {now: timers.next(now) for now in told} == told


def test_the_server_says_how_long_it_keeps_an_open() -> None:
    timers = Timers()
    timers.kept_for = kept_for({DURABLE_HANDLE_V2: DurableHandleResponseV2(300_000, 2).encode()})
    timers.note(100.0, 100.5)
    assert timers.next(161.0) == 238.0
    assert kept_for({DURABLE_HANDLE: bytes(8)}) == 0.0


def test_what_is_long_over_is_not_kept_in_mind() -> None:
    timers = Timers()
    for number in range(1000):
        timers.note(10.0 * number, 10.0 * number + 1)
    assert len(timers._absences) < 10
