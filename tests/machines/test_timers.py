"""When a server will look whether the time of an open is over, after losses that it has outlived."""

from __future__ import annotations

import math

from smb3fs.handles.opens import kept_for
from smb3fs.handles.timers import Timers
from smb3fs.wire.durable import DURABLE_HANDLE, DURABLE_HANDLE_V2, DurableHandleResponseV2


def test_one_that_was_never_lost_has_none() -> None:
    assert Timers().next(1000.0) == math.inf


def test_one_that_was_is_in_danger_from_a_minute_after_its_loss_to_a_minute_after_it_was_given_back() -> None:
    timers = Timers()
    timers.note(100.0, 103.0)
    assert [timers.next(now) for now in (103.0, 158.0, 160.0, 163.9)] == [56.0, 1.0, 0.0, 0.0]
    assert timers.next(164.1) == math.inf


def test_each_loss_leaves_another() -> None:
    timers = Timers()
    timers.note(100.0, 100.5)
    timers.note(110.0, 110.1)
    assert timers.next(150.0) == 9.0
    assert timers.next(162.0) == 7.0
    assert timers.next(172.0) == math.inf


def test_attempts_that_come_to_nothing_belong_to_one_loss() -> None:
    timers = Timers()
    timers.note(100.0, 100.5)
    timers.note(100.0, 105.0)
    assert timers.next(163.0) == 0.0
    assert timers.next(166.5) == math.inf


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
