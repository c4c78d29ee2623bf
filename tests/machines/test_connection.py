"""What the connection makes of requests, and of answers that are as they should be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from connected import FILE, Wire, answers, finished
from peer import SESSION_ID, TREE_ID, Reply, created, make_keys

from smb3fs.connection import Exchange, Unsolicited
from smb3fs.crypto import PreauthHash
from smb3fs.errors import SecurityError, Status
from smb3fs.wire.control import EchoRequest, EchoResponse
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest
from smb3fs.wire.header import (
    FLAG_ASYNC,
    FLAG_RELATED,
    FLAG_RESPONSE,
    FLAG_SIGNED,
    UNSOLICITED_MESSAGE_ID,
    Command,
    Header,
)
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, WriteRequest
from smb3fs.wire.negotiate import SIGNING_ENABLED, Cipher, Dialect, NegotiateRequest, SigningAlgorithm
from smb3fs.wire.query import QueryDirectoryRequest, QueryInfoRequest
from smb3fs.wire.session import SessionSetupRequest

# Names of one to eight letters, so that each remainder of the padding occurs.
NAMES = ["n" * length for length in range(1, 9)]

signings = pytest.mark.parametrize("signing", list(SigningAlgorithm), ids=lambda value: value.name)
ciphers = pytest.mark.parametrize("cipher", list(Cipher), ids=lambda value: value.name)


class TestEncoding:
    def test_a_request_without_a_session_is_plain(self) -> None:
        wire = Wire()
        element = wire.send(Exchange([EchoRequest()], session_id=9)).elements[0]
        header = element.header
        assert (header.command, header.message_id, header.status, header.flags) == (Command.ECHO, 0, 0, 0)
        assert (header.session_id, header.tree_id, header.signature) == (9, 0, bytes(16))
        assert header.credits >= header.credit_charge == 1

    @signings
    def test_a_chain_is_related_padded_and_signed_element_by_element(self, signing: int) -> None:
        for name in NAMES:
            wire = Wire(make_keys(signing))
            chain = [CreateRequest(name, 1, 1), QueryInfoRequest(RELATED_FILE_ID, 1, 18, 99), CloseRequest(FILE)]
            first, second, third = wire.send(wire.exchange(*chain)).elements  # the peer has checked the signatures
            assert (first.header.session_id, first.header.tree_id) == (SESSION_ID, TREE_ID)
            for related in (second, third):
                assert related.header.flags == FLAG_RELATED | FLAG_SIGNED
                assert (related.header.session_id, related.header.tree_id) == (SESSION_ID, TREE_ID)
            assert first.request == CreateRequest(name, 1, 1, contexts=[])
            assert second.request == chain[1]
            assert third.request == chain[2]
            assert [len(element.pdu) % 8 for element in (first, second)] == [0, 0]
            assert len(third.pdu) == 64 + 24  # nothing behind the last one

    def test_the_data_of_a_write_are_sent_from_where_they_lie(self) -> None:
        wire = Wire(make_keys())
        data = bytearray(b"payload" * 11)
        buffers = wire.connection.prepare(wire.exchange(WriteRequest(FILE, 5, data)))
        assert buffers is not None
        assert any(buffer is data for buffer in buffers)
        assert data == b"payload" * 11
        assert wire.arrive(buffers).elements[0].request.data == data

    def test_a_write_may_stand_inside_of_a_chain(self) -> None:
        wire = Wire(make_keys())
        chain = [CreateRequest("f", 1, 1), WriteRequest(RELATED_FILE_ID, 0, b"abc"), CloseRequest(RELATED_FILE_ID)]
        message = wire.send(wire.exchange(*chain))
        assert message.commands == ["CREATE", "WRITE", "CLOSE"]
        assert bytes(message.elements[1].request.data) == b"abc"

    @ciphers
    def test_a_chain_is_sealed_as_a_whole_and_not_signed(self, cipher: int) -> None:
        wire = Wire(make_keys(cipher=cipher))
        data = bytes(range(256)) * 400
        chain = [CreateRequest("f", 1, 1), WriteRequest(RELATED_FILE_ID, 0, data), CloseRequest(RELATED_FILE_ID)]
        message = wire.send(wire.exchange(*chain, seal=True))
        assert message.sealed
        assert not any(element.header.flags & FLAG_SIGNED for element in message.elements)
        assert bytes(message.elements[1].request.data) == data

    def test_a_session_that_seals_everything_needs_no_word_from_the_exchange(self) -> None:
        wire = Wire(make_keys(seal_everything=True))
        assert wire.send(wire.exchange(EchoRequest())).sealed

    def test_nothing_goes_out_in_clear_for_want_of_a_key(self) -> None:
        wire = Wire(make_keys())
        assert wire.session is not None
        wire.session.sealer = None
        with pytest.raises(SecurityError):
            wire.connection.prepare(wire.exchange(EchoRequest(), seal=True))
        with pytest.raises(SecurityError):
            wire.connection.prepare(Exchange([EchoRequest()], seal=True))


class TestCredits:
    @pytest.mark.parametrize(
        ("size", "charge"), [(0, 1), (1, 1), (65536, 1), (65537, 2), (131072, 2), (131073, 3), (8 << 20, 128)]
    )
    def test_what_a_request_costs(self, size: int, charge: int) -> None:
        wire = Wire(make_keys())
        requests = (ReadRequest(FILE, 0, size), WriteRequest(FILE, 0, bytes(size)))
        for request in (*requests, QueryDirectoryRequest(FILE, 38, size)):
            element = wire.send(wire.exchange(request)).elements[0]
            assert element.header.credit_charge == charge
            assert wire.connection.charge(request) == charge

    def test_ids_follow_the_charges(self) -> None:
        wire = Wire(make_keys())
        wire.send(wire.exchange(ReadRequest(FILE, 0, 3 * 65536), EchoRequest(), ReadRequest(FILE, 0, 2 * 65536)))
        following = wire.send(wire.exchange(EchoRequest()))
        assert following.elements[0].header.message_id == 3 + 1 + 2

    def test_without_large_mtu_nothing_is_charged(self) -> None:
        wire = Wire(make_keys(), large_mtu=False)
        assert wire.send(wire.exchange(ReadRequest(FILE, 0, 65536))).elements[0].header.credit_charge == 0
        assert wire.connection.charge(ReadRequest(FILE, 0, 1 << 20)) == 1

    def test_a_chain_waits_until_all_of_it_is_affordable(self) -> None:
        wire = Wire(make_keys(), credits=3)
        chain = wire.exchange(ReadRequest(FILE, 0, 3 * 65536), EchoRequest())
        assert wire.connection.prepare(chain) is None
        assert not chain.sent
        assert wire.connection.pending == 0
        wire.connection.credits.grant(1, settled=0)
        wire.peer.credits += 1
        wire.send(chain)
        assert chain.sent
        assert wire.connection.pending == 2

    def test_answers_grant_and_interim_answers_too(self) -> None:
        wire = Wire(make_keys(), credits=4)
        exchange = wire.exchange(FlushRequest(FILE))
        element = wire.send(exchange).elements[0]
        wire.back(wire.peer.pending(element, 1, credits=10))
        assert wire.connection.credits.available == 13
        wire.back(wire.peer.reply(element, EchoResponse().encode(), credits=0))
        assert wire.connection.credits.available == 13
        assert wire.connection.credits.in_flight == 0

    def test_grants_without_measure_do_no_harm(self) -> None:
        wire = Wire(make_keys())
        for _ in range(3):
            _, reply = wire.ask()
            reply.header.credits = 65535
            wire.peer.credits += 65535
            wire.back(reply)
        assert wire.connection.credits.window <= 65535


class TestCancel:
    @signings
    def test_before_an_interim_answer_the_message_id_names_the_request(self, signing: int) -> None:
        wire = Wire(make_keys(signing))
        wire.send(wire.exchange(EchoRequest()))
        exchange, _ = wire.ask()
        (message,) = wire.connection.cancel(exchange)
        wire.peer.transport.send_now(message)  # which verifies a CANCEL's signature: of GMAC it has a nonce of its own
        (cancel,) = wire.peer.cancels
        assert cancel.header.flags == FLAG_SIGNED
        assert (cancel.header.message_id, cancel.header.session_id) == (1, SESSION_ID)
        assert not wire.peer.violations

    @signings
    def test_after_it_the_async_id_does(self, signing: int) -> None:
        wire = Wire(make_keys(signing))
        exchange = wire.exchange(FlushRequest(FILE))
        element = wire.send(exchange).elements[0]
        wire.back(wire.peer.pending(element, 0x1234_5678_9ABC_DEF0))
        (message,) = wire.connection.cancel(exchange)
        wire.peer.transport.send_now(message)
        (cancel,) = wire.peer.cancels
        assert cancel.header.flags == FLAG_SIGNED | FLAG_ASYNC
        assert cancel.header.async_id == 0x1234_5678_9ABC_DEF0
        assert not wire.peer.violations

    def test_it_is_sealed_where_the_request_was(self) -> None:
        wire = Wire(make_keys())
        exchange, _ = wire.ask(seal=True)
        (message,) = wire.connection.cancel(exchange)
        wire.peer.transport.send_now(message)
        (cancel,) = wire.peer.cancels
        assert cancel.message.sealed

    def test_without_a_session_it_is_plain(self) -> None:
        wire = Wire()
        exchange = Exchange([EchoRequest()], session_id=3)
        wire.send(exchange)
        wire.peer.transport.send_now(wire.connection.cancel(exchange)[0])
        assert (wire.peer.cancels[0].header.flags, wire.peer.cancels[0].header.session_id) == (0, 3)

    def test_only_what_is_unanswered_is_cancelled_and_it_costs_nothing(self) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID))
        message = wire.send(exchange)
        wire.back(wire.peer.reply(message.elements[0], created(FILE)))
        before = wire.connection.credits.available
        for cancel in wire.connection.cancel(exchange):
            wire.peer.transport.send_now(cancel)
        assert [cancel.header.message_id for cancel in wire.peer.cancels] == [1, 2]
        assert wire.connection.credits.available == before
        assert wire.send(wire.exchange(EchoRequest())).elements[0].header.message_id == 3

    def test_the_cancelled_request_still_waits_for_its_answer(self) -> None:
        wire = Wire(make_keys())
        exchange, reply = wire.ask()
        wire.connection.cancel(exchange)
        reply.header.status = Status.CANCELLED
        assert finished(wire.back(reply)) == [exchange]


class TestAnswers:
    def test_a_chain_is_complete_with_its_last_answer_in_one_frame(self) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID))
        replies = [wire.peer.reply(element, bytes(4)) for element in wire.send(exchange).elements]
        assert finished(wire.back(*replies)) == [exchange]
        assert [answer.header.command for answer in answers(exchange)] == [5, 7, 6]
        assert all(answer.protected for answer in answers(exchange))
        assert wire.connection.pending == 0

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_or_in_a_frame_for_each_in_any_order(self, order: Sequence[int]) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID))
        replies = [wire.peer.reply(element, bytes(4)) for element in wire.send(exchange).elements]
        done = [finished(wire.back(replies[index])) for index in order]
        assert done == [[], [], [exchange]]
        assert [answer.header.message_id for answer in answers(exchange)] == [0, 1, 2]

    def test_one_frame_may_answer_several_exchanges(self) -> None:
        wire = Wire(make_keys())
        (one, first), (two, second) = wire.ask(), wire.ask()
        assert finished(wire.back(second, first)) == [two, one]

    def test_an_interim_answer_leaves_it_waiting(self) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(FlushRequest(FILE))
        element = wire.send(exchange).elements[0]
        assert wire.back(wire.peer.pending(element, 5)) == []
        assert wire.connection.exchanges() == [exchange]
        reply = wire.peer.reply(element, bytes(4))
        reply.header.flags |= FLAG_ASYNC
        reply.header.async_id = 5
        assert finished(wire.back(reply)) == [exchange]

    def test_an_interim_answer_may_stand_in_a_compound(self) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(CreateRequest("f", 1, 1), CloseRequest(RELATED_FILE_ID))
        first, second = wire.send(exchange).elements
        assert wire.back(wire.peer.pending(first, 5), wire.peer.reply(second, bytes(4))) == []
        assert finished(wire.back(wire.peer.reply(first, bytes(4)))) == [exchange]

    def test_without_the_flag_async_a_status_pending_is_no_interim_answer(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        reply.header.status = Status.PENDING
        with pytest.raises(SecurityError):
            wire.back(reply)  # which the peer does not sign

    def test_a_break_is_an_event(self) -> None:
        wire = Wire(make_keys())
        header = Header(Command.OPLOCK_BREAK, UNSOLICITED_MESSAGE_ID, flags=FLAG_RESPONSE)
        (event,) = wire.back(Reply(header, bytes(24)))
        assert isinstance(event, Unsolicited)

    def test_exchanges_are_told_once_each_in_the_order_of_sending(self) -> None:
        wire = Wire(make_keys())
        chain = wire.exchange(CreateRequest("f", 1, 1), CloseRequest(RELATED_FILE_ID))
        wire.send(chain)
        single, _ = wire.ask()
        assert wire.connection.exchanges() == [chain, single]


class TestPreauthHash:
    def test_of_a_negotiation_and_a_login(self) -> None:
        # [MS-SMB2] 3.2.5.2, 3.2.5.3: all but the server's last word, which is signed with what comes out of it.
        wire = Wire()
        expected = bytes(64)

        def chained(data: bytes) -> bytes:
            return hashlib.sha512(expected + data).digest()

        negotiate = NegotiateRequest([Dialect.SMB_3_0], SIGNING_ENABLED, 0, bytes(16))
        exchange = Exchange([negotiate], preauth=wire.connection.preauth)
        element = wire.send(exchange).elements[0]
        expected = chained(element.pdu)
        frame = wire.peer.frame(wire.peer.reply(element, b"negotiated"))
        wire.receive(frame)
        expected = chained(frame)
        assert wire.connection.preauth.value == expected

        hash_ = wire.connection.preauth.copy()
        for status in (Status.MORE_PROCESSING_REQUIRED, Status.SUCCESS):
            element = wire.send(Exchange([SessionSetupRequest(b"token")], preauth=hash_)).elements[0]
            expected = chained(element.pdu)
            frame = wire.peer.frame(wire.peer.reply(element, b"answer", status))
            wire.receive(frame)
            if status != Status.SUCCESS:
                expected = chained(frame)
        assert hash_.value == expected
        assert wire.connection.preauth.value != expected

    def test_an_echo_in_between_changes_nothing(self) -> None:
        wire = Wire()
        hash_ = PreauthHash()
        wire.send(Exchange([SessionSetupRequest(b"token")], preauth=hash_))
        before = hash_.value
        echo = wire.send(Exchange([EchoRequest()]))
        wire.back(wire.peer.reply(echo.elements[0], bytes(4)))
        assert hash_.value == before
