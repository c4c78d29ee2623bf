"""Bytes of all kinds, and courses of events of all kinds."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from connected import FILE, Wire, finished
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import Keys, Reply, make_keys

from smb3fs.connection import Exchange
from smb3fs.errors import SecurityError, Status, WireError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest
from smb3fs.wire.header import Request
from smb3fs.wire.io import FlushRequest, ReadRequest


def waiting_wire(keys: Keys | None, *, sealed: bool = False) -> tuple[Wire, list[bytes]]:
    """A connection with all sorts of requests on their way, and frames that would answer them."""
    wire = Wire(keys)
    peer = wire.peer
    frames = []
    chain = wire.exchange(CreateRequest("f", 1, 1), ReadRequest(RELATED_FILE_ID, 0, 10), seal=sealed)
    replies = [peer.reply(element, bytes(100)) for element in wire.send(chain).elements]
    frames.append(peer.frame(*replies, sealed=sealed))
    for _ in range(2):
        single = wire.send(wire.exchange(FlushRequest(FILE), seal=sealed)).elements[0]
        frames.append(peer.frame(peer.pending(single, 77), sealed=sealed))
        frames.append(peer.frame(peer.reply(single, bytes(9), Status.ACCESS_DENIED), sealed=sealed))
    return wire, frames


def feed(wire: Wire, frame: bytes) -> None:
    """Only the two errors that end a connection in an orderly way may come out."""
    with suppress(WireError, SecurityError):
        wire.receive(frame)


kinds = st.sampled_from(["open", "signed", "sealed"])


def wire_of(kind: str) -> tuple[Wire, list[bytes]]:
    """A connection of one of three kinds."""
    return waiting_wire(None if kind == "open" else make_keys(), sealed=kind == "sealed")


@settings(deadline=None)
@given(kinds, st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(kind: str, frame: bytes) -> None:
    wire, _ = wire_of(kind)
    feed(wire, frame)
    feed(wire, b"\xfeSMB" + frame)
    feed(wire, b"\xfdSMB" + frame)


@settings(max_examples=300, deadline=None)
@given(kinds, st.integers(0, 4), st.integers(0, 1 << 32), st.integers(1, 6))
def test_damaged_answers_raise_nothing_else(kind: str, which: int, seed: int, damages: int) -> None:
    rnd = random.Random(seed)
    wire, frames = wire_of(kind)
    frame = bytearray(frames[which])
    for _ in range(damages):
        position = rnd.randrange(len(frame) + 1)
        match rnd.randrange(5):
            case 0 if frame:
                frame[position % len(frame)] = rnd.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 1:
                del frame[position:]
            case 2:
                frame[position:position] = rnd.randbytes(rnd.randrange(1, 12))
            case 3:
                frame[position : position + 8] = rnd.choice([b"\xff" * 8, bytes(8)])
            case 4:
                frame += bytes(frame)
                del frame[4096:]
    feed(wire, bytes(frame))


@pytest.mark.parametrize("kind", ["open", "signed", "sealed"])
def test_every_cut_of_an_answer_raises_nothing_else(kind: str) -> None:
    _, frames = wire_of(kind)
    for which in range(len(frames)):
        for end in range(len(frames[which])):
            wire, fresh = wire_of(kind)
            feed(wire, fresh[which][:end])


# -- the connection and a model of it


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_any_course_of_events_completes_each_exchange_once_and_loses_no_credit(seed: int, seal: bool) -> None:
    """Chains go out as credits allow; answers come in any order, in any framing, with interim ones in between."""
    rnd = random.Random(seed)
    wire = Wire(make_keys(), credits=rnd.randint(6, 40))
    open_replies: list[Reply] = []
    interim: list[Reply] = []
    done: list[Exchange] = []
    sent: list[Exchange] = []
    for _ in range(60):
        if rnd.random() < 0.5:
            requests: list[Request] = [
                rnd.choice([EchoRequest(), ReadRequest(FILE, 0, rnd.randrange(1, 4 * 65536)), FlushRequest(FILE)])
                for _ in range(rnd.randint(1, 3))
            ]
            exchange = wire.exchange(*requests, seal=seal)
            buffers = wire.connection.prepare(exchange)
            if buffers is not None:
                sent.append(exchange)
                for element in wire.arrive(buffers).elements:
                    reply = wire.peer.reply(element, bytes(8), credits=max(element.header.credit_charge, 1))
                    if rnd.random() < 0.3:
                        interim.append(wire.peer.pending(element, rnd.randrange(1, 1 << 64)))
                        wire.receive(wire.peer.frame(interim[-1], sealed=seal))
                    open_replies.append(reply)
        elif open_replies:
            rnd.shuffle(open_replies)
            count = rnd.randint(1, min(4, len(open_replies)))
            batch, open_replies = open_replies[:count], open_replies[count:]
            wire.peer.credits += sum(reply.header.credits for reply in batch)
            done += finished(wire.back(*batch, sealed=seal))
        assert wire.connection.pending == len(open_replies)
        assert wire.connection.credits.available == wire.peer.credits
    for reply in open_replies:
        wire.peer.credits += reply.header.credits
        done += finished(wire.back(reply, sealed=seal))
    assert sorted(map(id, done)) == sorted(map(id, sent))
    assert wire.connection.pending == 0
    assert wire.connection.credits.in_flight == 0
    assert not wire.peer.violations
