"""Chains for a server that grants few credits: one request at a time, where the chain as a whole could never be paid.

They mean the same. Each acts on the file of the first one, and where that could not be opened all of them fail alike
([MS-SMB2] 3.3.5.2.7.2); what is lost is the round trips that a chain saves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from smb3fs.connection import Answer
from smb3fs.errors import Status
from smb3fs.wire.create import RELATED_FILE_ID, CreateResponse, FileId
from smb3fs.wire.header import Command, Request
from smb3fs.wire.io import CloseRequest


async def call_apart(
    call: Callable[[Request], Awaitable[Answer]], post: Callable[[Request], None], requests: Sequence[Request]
) -> list[Answer]:
    """Send the requests of a chain by `call`, one after the other, and return their answers, whatever their status.

    A file that was opened for a caller who then stops waiting is closed by `post`.
    """
    first = requests[0]
    answers = [await call(first)]
    opened: FileId | None = None
    if first.command == Command.CREATE:
        if answers[0].status != Status.SUCCESS:
            return [_same_failure(answers[0], request) for request in requests]
        opened = CreateResponse.parse(answers[0].pdu).file_id
    file_id: FileId = getattr(first, "file_id", RELATED_FILE_ID) if opened is None else opened
    try:
        for request in requests[1:]:
            answers.append(await call(_on(request, file_id)))
            if request.command == Command.CLOSE:
                opened = None
    except BaseException:
        if opened is not None:
            post(CloseRequest(opened))
        raise
    return answers


def _on(request: Any, file_id: FileId) -> Request:
    """Return a request of a chain with the file that it is about in the place of "that of the one before"."""
    related: bool = getattr(request, "file_id", None) == RELATED_FILE_ID
    made: Request = replace(request, file_id=file_id) if related else request
    return made


def _same_failure(answer: Answer, request: Request) -> Answer:
    """Return the answer to a request that needed a file that could not be opened."""
    return Answer(replace(answer.header, command=request.command), answer.pdu, answer.protected)
