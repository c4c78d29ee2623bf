"""What a small file costs without a mount: the least that any client on this machine could take.

`tools/bench floor`: the requests of a small file, sent one after the other by a loop that does nothing else, over a
connection that the mount's own code has made; and what a request of the kernel costs that is answered from memory. A
mount takes the sum of these at least, as each waits for the one before. On Debian's Samba, and on the later one of
tools/lab/samba.py if that is there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trio
from lab.root import found
from lab.server import Samba

from benchlib import machine
from benchlib.cli import in_memory, say, stop
from benchlib.drivers import OPERATIONS, Server
from benchlib.sections import FLOOR, put_section
from benchlib.stats import table
from smb3fs.channels.channel import Channel
from smb3fs.channels.tcp import TcpTransport
from smb3fs.connection import Answer, Exchange
from smb3fs.mount import Mount
from smb3fs.options import parse_mount_options
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateContext,
    CreateRequest,
    CreateResponse,
    Disposition,
    OplockLevel,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID
from smb3fs.wire.durable import DURABLE_HANDLE_V2, DurableHandleRequestV2
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import FileAllInformation
from smb3fs.wire.io import CloseRequest, ReadRequest, WriteRequest
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseContextV2, LeaseState
from smb3fs.wire.query import InfoType, QueryInfoRequest

SIZE: Final = 4096
FOLDER: Final = "floor"
READ: Final = AccessMask.READ_DATA | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE
WRITE: Final = READ | AccessMask.WRITE_DATA | AccessMask.WRITE_ATTRIBUTES
IN_MEMORY: Final = "open, read 4 KiB, close"


class Sample(NamedTuple):
    """Microseconds for one file: by the clock, and of processor time here and in the server."""

    wall: float
    client: float
    server: float


class Line:
    """A connection on which one message at a time is sent and its answer waited for, without a task or a thread."""

    def __init__(self, channel: Channel, tree_id: int) -> None:
        """Take over what a mount has connected; the mount may not use it any more."""
        self._connection = channel.connection
        self._tree_id = tree_id
        transport = channel.transport
        assert isinstance(transport, TcpTransport)
        # The mount's transport stays the owner of its own descriptor.
        self._socket = transport._socket.dup()
        self._socket.setblocking(True)

    def call(self, *requests: Request) -> list[Answer]:
        """Send requests in one message; return the answers, all of which must be of success."""
        exchange = Exchange(requests, self._tree_id, self._connection.session)
        buffers = self._connection.prepare(exchange)
        if buffers is None:
            raise RuntimeError("the server grants too few credits for this")
        self._socket.sendmsg([struct.pack(">I", sum(map(len, buffers))), *buffers])
        while exchange.missing:
            self._connection.receive(self._receive(struct.unpack(">I", self._receive(4))[0]))
        answers = [answer for answer in exchange.answers if answer is not None]
        if any(answer.status for answer in answers):
            raise RuntimeError(f"the server refuses: {[hex(answer.status) for answer in answers]}")
        return answers

    def _receive(self, size: int) -> memoryview:
        view = memoryview(bytearray(size))
        done = 0
        while done < size:
            count = self._socket.recv_into(view[done:])
            if not count:
                raise ConnectionError("the server has closed the connection")
            done += count
        return view

    def close(self) -> None:
        """Give the connection back."""
        self._socket.setblocking(False)
        self._socket.close()


def opened(name: str, access: int, disposition: int, lease: int) -> CreateRequest:
    """A CREATE with what a mount asks for: the file's number, and a lease and a durable handle, or neither for 0."""
    contexts = [CreateContext(QUERY_ON_DISK_ID)]
    if lease:
        contexts.append(CreateContext(LEASE_CONTEXT, LeaseContextV2(os.urandom(16), lease).encode()))
        contexts.append(CreateContext(DURABLE_HANDLE_V2, DurableHandleRequestV2(0, 0, os.urandom(16)).encode()))
    level = OplockLevel.LEASE if lease else OplockLevel.NONE
    return CreateRequest(f"{FOLDER}\\{name}", access, disposition, oplock_level=level, contexts=contexts)


def create(line: Line, name: str, lease: int) -> None:
    """Create, write and close, each of which a program waits for with its call of that name."""
    (answer,) = line.call(opened(name, WRITE, Disposition.CREATE, lease))
    file_id = CreateResponse.parse(answer.pdu).file_id
    line.call(WriteRequest(file_id, 0, bytes(SIZE)))
    line.call(CloseRequest(file_id))


def read(line: Line, name: str, lease: int) -> None:
    """Open and read in one message, and close; without a lease all in one."""
    query = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileAllInformation.information_class, 1024)
    chain = [opened(name, READ, Disposition.OPEN, lease), query, ReadRequest(RELATED_FILE_ID, 0, SIZE)]
    if lease:
        line.call(CloseRequest(CreateResponse.parse(line.call(*chain)[0].pdu).file_id))
    else:
        line.call(*chain, CloseRequest(RELATED_FILE_ID))


RWH: Final = int(LeaseState.READ | LeaseState.WRITE | LeaseState.HANDLE)
RH: Final = int(LeaseState.READ | LeaseState.HANDLE)
# What is done, to files of that letter, with which lease.
ROWS: Final[dict[str, tuple[Callable[[Line, str, int], None], str, int]]] = {
    "create, write, close; a lease and a durable handle": (create, "a", RWH),
    "create, write, close; neither": (create, "b", 0),
    "open and read, close; a lease and a durable handle": (read, "a", RH),
    "open, read and close in one message; neither": (read, "b", 0),
}


def processor_time(processes: Sequence[int]) -> float:
    """Seconds that these have computed; those that have ended count nothing."""
    total = 0
    for process in processes:
        for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
            total += int(task.read_text().split()[0])
    return total / 1e9


def sample(line: Line, row: str, files: int, round_number: int, server: Sequence[int]) -> Sample:
    """Do one thing to so many files."""
    deed, letter, lease = ROWS[row]
    before = time.process_time(), processor_time(server)
    began = time.perf_counter()
    for number in range(files):
        deed(line, f"{letter}{round_number}-{number:05}", lease)
    elapsed = time.perf_counter() - began
    each = 1e6 / files
    client, served = time.process_time() - before[0], processor_time(server) - before[1]
    return Sample(elapsed * each, client * each, served * each)


async def _measure(server: Samba, files: int, rounds: int) -> list[tuple[str, Sample]]:
    """Connect as a mount does, and measure each row in each round, in a directory that is empty then."""
    credentials = f"credentials={server.credentials}"
    options = parse_mount_options(server.source(), credentials, environment={}, cwd="/", is_root=True, uid=0, gid=0)
    samples: list[tuple[str, Sample]] = []
    async with trio.open_nursery() as nursery:
        mount = Mount(options, "/", nursery)
        await mount.start()
        session = mount.line.pool.session
        assert session is not None
        line = Line(session.channel, session.tree.tree_id)
        folder = server.directory() / FOLDER
        try:
            for round_number in range(rounds):
                folder.mkdir()
                os.chown(folder, folder.parent.stat().st_uid, folder.parent.stat().st_gid)
                processes = server.session_processes()
                samples += [(row, sample(line, row, files, round_number, processes)) for row in ROWS]
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
        finally:
            line.close()
            nursery.cancel_scope.cancel()
    return samples


def answered_from_memory(rounds: int) -> list[float]:
    """Microseconds that a request of one caller takes which the daemon answers from memory, once a round."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server("native", Path(folder))
        try:
            return [1e6 / server.measure(OPERATIONS[IN_MEMORY], 1.0, callers=1).rate for _ in range(rounds)]
        finally:
            server.end()


def as_markdown(lines: Sequence[Sequence[str]], kernel: Sequence[float], files: int, command: str) -> str:
    """The section of the report."""
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    heads = ["server", "what", "µs a file", "of the client's processor", "of the server's"]
    return f"""{FLOOR}

Written by `{command}` on {when}, load {machine.load()}: the requests of {files:,} files of 4 KiB,
sent one after the other by a loop that does nothing else, to a share in memory; medians of {len(kernel)} rounds
[least..most].

{table(heads, lines)}

A request of the kernel that the daemon answers from memory takes its caller {spread(kernel)} µs; a file that is
created, written and closed makes six or seven of them, one that is opened, read and closed three to five."""


def spread(values: Sequence[float]) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}..{max(values):,.0f}]"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the section, and put it where it belongs if asked."""
    parser = argparse.ArgumentParser(prog="tools/bench floor", description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the section into this document")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/bench)")
    if warning := machine.busy():
        say(f"==> {warning}")
    lines = []
    for root in dict.fromkeys(("", found() or "")):
        with Samba(root=root) as server, in_memory(server.directory()):
            server.restart()
            say(f"==> {given.files:,} files on {server.version()}")
            name = "Samba " + server.version().removeprefix("Version ").split("-")[0]
            samples = trio.run(_measure, server, given.files, given.rounds)
            for row in ROWS:
                columns = zip(*(one for which, one in samples if which == row), strict=True)
                lines.append([name, row, *map(spread, columns)])
    command = f"tools/bench floor --files {given.files} --rounds {given.rounds}"
    section = as_markdown(lines, answered_from_memory(given.rounds), given.files, command)
    if given.markdown:
        put_section(given.markdown, section)
    print(section)
    return 0
