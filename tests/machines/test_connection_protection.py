"""Answers that are not protected as they must be, or answer nothing."""

from __future__ import annotations

import pytest
from connected import FILE, Wire, answers, finished
from peer import SESSION_ID, make_keys

from smb3fs.connection import UNSIGNED_STATUSES, Exchange
from smb3fs.errors import SecurityError, Status, WireError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import FLAG_RESPONSE, FLAG_SIGNED, Command, TransformHeader
from smb3fs.wire.io import FlushRequest, ReadRequest
from smb3fs.wire.negotiate import Cipher, SigningAlgorithm

signings = pytest.mark.parametrize("signing", list(SigningAlgorithm), ids=lambda value: value.name)
ciphers = pytest.mark.parametrize("cipher", list(Cipher), ids=lambda value: value.name)


class TestNonsense:
    def test_an_unknown_message_id(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        reply.header.message_id += 1
        with pytest.raises(WireError):
            wire.back(reply)

    def test_an_answer_that_comes_twice(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        wire.back(reply)
        with pytest.raises(WireError):
            wire.back(reply)

    def test_an_id_inside_of_a_charge_answers_nothing(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask(ReadRequest(FILE, 0, 5 * 65536))
        reply.header.message_id += 2
        with pytest.raises(WireError):
            wire.back(reply)

    def test_the_answer_to_another_command(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        reply.header.command = Command.CLOSE
        with pytest.raises(WireError):
            wire.back(reply)

    def test_a_request(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        reply.header.flags &= ~FLAG_RESPONSE
        with pytest.raises(WireError):
            wire.back(reply)


class TestProtection:
    def test_an_unsigned_answer_is_refused(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        with pytest.raises(SecurityError):
            wire.back(reply, protect=False)

    @signings
    def test_every_altered_byte_of_a_signed_answer_is_noticed(self, signing: int) -> None:
        wire = Wire(make_keys(signing))
        _, reply = wire.ask()
        frame = wire.peer.frame(reply)
        for position in range(len(frame)):
            altered = bytearray(frame)
            altered[position] ^= 0x40
            with pytest.raises((WireError, SecurityError)):
                wire.receive(bytes(altered))
        assert len(finished(wire.receive(frame))) == 1

    def test_an_answer_signed_with_another_key_is_refused(self) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask()
        wire.peer.keys = make_keys(SigningAlgorithm.AES_CMAC)
        with pytest.raises(SecurityError):
            wire.back(reply)

    @pytest.mark.parametrize("status", sorted(UNSIGNED_STATUSES), ids=lambda status: status.name)
    @pytest.mark.parametrize("sealed", [False, True], ids=["signed", "sealed"])
    @pytest.mark.parametrize("echoed", [False, True], ids=["plain", "signature echoed"])
    def test_what_a_server_says_before_it_can_protect_it_is_taken_but_marked(
        self, status: Status, sealed: bool, echoed: bool
    ) -> None:
        # Samba copies the request's flags and signature into such a refusal.
        wire = Wire(make_keys())
        exchange, reply = wire.ask(seal=sealed)
        reply.header.status = status
        if echoed:
            reply.header.flags |= FLAG_SIGNED
            reply.header.signature = bytes(range(16))
        assert finished(wire.back(reply, protect=False)) == [exchange]
        assert not answers(exchange)[0].protected

    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.ACCESS_DENIED, Status.OBJECT_NAME_NOT_FOUND])
    @pytest.mark.parametrize("protect", [False, True], ids=["plain", "signed"])
    def test_a_sealed_request_wants_a_sealed_answer(self, status: Status, protect: bool) -> None:
        wire = Wire(make_keys())
        _, reply = wire.ask(seal=True)
        reply.header.status = status
        with pytest.raises(SecurityError):
            wire.back(reply, protect=protect)

    @pytest.mark.parametrize("seal", [False, True], ids=["signed request", "sealed request"])
    def test_a_sealed_answer_is_good_for_any_request(self, seal: bool) -> None:
        wire = Wire(make_keys())
        exchange, reply = wire.ask(seal=seal)
        assert finished(wire.back(reply, sealed=True)) == [exchange]
        assert answers(exchange)[0].protected

    @ciphers
    def test_every_altered_byte_of_a_sealed_answer_is_noticed(self, cipher: int) -> None:
        wire = Wire(make_keys(cipher=cipher))
        wire.ask(seal=True)
        for position in range(TransformHeader.SIZE + 70):
            _, reply = wire.ask(seal=True)
            altered = bytearray(wire.peer.frame(reply, sealed=True))
            altered[position % len(altered)] ^= 0x40
            # The bytes of the nonce behind those that the cipher uses are authenticated too.
            with pytest.raises((WireError, SecurityError)):
                wire.receive(bytes(altered))

    def test_a_message_sealed_for_another_session_is_refused(self) -> None:
        wire = Wire(make_keys())
        wire.ask(seal=True)
        assert wire.peer.keys is not None
        frame = b"".join(wire.peer.keys.sealer.seal([bytes(80)], SESSION_ID + 1))
        with pytest.raises(SecurityError):
            wire.receive(frame)

    def test_a_sealed_message_before_the_login_is_refused(self) -> None:
        wire = Wire()
        wire.send(Exchange([EchoRequest()]))
        frame = b"".join(make_keys().sealer.seal([bytes(80)], SESSION_ID))
        with pytest.raises(SecurityError):
            wire.receive(frame)

    def test_an_answer_sealed_for_the_new_session_is_none_for_the_old(self) -> None:
        wire = Wire(make_keys())
        exchange, reply = wire.ask()
        assert exchange.session is not None
        exchange.session.session_id += 1  # as if it had been sent in a session before this one
        wire.connection.session = make_keys().client
        with pytest.raises(SecurityError):
            wire.back(reply, sealed=True)

    def test_an_interim_answer_needs_no_signature(self) -> None:
        wire = Wire(make_keys())
        exchange = wire.exchange(FlushRequest(FILE))
        element = wire.send(exchange).elements[0]
        interim = wire.peer.pending(element, 3)
        interim.header.flags |= FLAG_SIGNED
        interim.header.signature = bytes(range(16))
        assert wire.back(interim, protect=False) == []
        assert exchange.async_ids == {0: 3}

    def test_before_there_is_a_session_answers_are_taken_as_they_are(self) -> None:
        wire = Wire()
        exchange = Exchange([EchoRequest()])
        reply = wire.peer.reply(wire.send(exchange).elements[0], bytes(4))
        assert finished(wire.back(reply)) == [exchange]
        assert not answers(exchange)[0].protected
