"""The status socket: how a running mount tells what it knows, without going through the mount.

The daemon listens on a Unix socket whose name follows from the mountpoint's path. A client names what it wants to know
in one line, `status` or the name of another question, and is sent one JSON object and then the end of the stream. The
client finds the socket without looking at the mountpoint itself, since a look at a mount that hangs would hang too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import trio

from smb3fs.errors import Smb3fsError

log = logging.getLogger(__name__)

# A client that does not ask, or take its answer, in this many seconds is dropped; so many may be served at one time.
SEND_TIMEOUT: Final = 2.0
MAX_CLIENTS: Final = 16
# The answer has counters, some events and some channels in it: tens of kilobytes. More comes from somebody else.
MAX_ANSWER: Final = 4 << 20
FILESYSTEM_TYPE: Final = "fuse.smb3fs"

# What is asked when nothing is; no question is longer than this.
STATUS: Final = "status"
MAX_QUESTION: Final = 64

Snapshot = Callable[[], Mapping[str, Any]]
# The answer to another question, which may take a while.
Answer = Callable[[], Awaitable[Mapping[str, Any]]]


class StatusUnavailableError(Smb3fsError):
    """The status of a mount cannot be had; the text is one sentence for a person."""


class MountedShare(NamedTuple):
    """One line of mountinfo that is a mount of ours: where, and the user who made it."""

    mountpoint: str
    owner: int


def socket_directory(uid: int, environment: Mapping[str, str]) -> str:
    """Return the directory of a user's sockets; nobody else may write to it."""
    if uid == 0:
        return "/run/smb3fs"
    runtime = environment.get("XDG_RUNTIME_DIR") if uid == os.getuid() else None
    if not runtime:
        runtime = f"/run/user/{uid}"
        if not os.path.isdir(runtime):
            return f"/tmp/smb3fs-{uid}"  # noqa: S108 (whose it is gets checked before use)
    return os.path.join(runtime, "smb3fs")


def socket_name(mountpoint: str) -> str:
    """Return the name of a mountpoint's socket: paths may be longer than the 107 bytes of a socket's address."""
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:32] + ".sock"


def resolve_mountpoint(path: str, mounts: list[MountedShare]) -> str:
    """Return the absolute path of the mountpoint that `path` is, or lies beneath, without a look at the mount.

    Only a parent directory that is not on one of our mounts is resolved through its symbolic links.
    """
    path = os.path.abspath(path)
    for mount in sorted(mounts, key=lambda mount: len(mount.mountpoint), reverse=True):
        if path == mount.mountpoint or path.startswith(mount.mountpoint.rstrip("/") + "/"):
            return mount.mountpoint
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name)


def mounted_shares(mountinfo: str = "/proc/self/mountinfo") -> list[MountedShare]:
    """Return the mounts of ours that this process sees, as proc(5) lists them."""
    mounts = []
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place, _, kind = line.partition(" - ")
            filesystem, *rest = kind.split()
            if filesystem != FILESYSTEM_TYPE:
                continue
            words = dict(word.partition("=")[::2] for word in rest[-1].split(","))
            mounts.append(MountedShare(_unescape(place.split()[4]), int(words.get("user_id", "0"))))
    return mounts


def _unescape(word: str) -> str:
    """Undo the octal escapes of mountinfo for space, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def socket_path(mountpoint: str) -> str:
    """Return the socket by which the daemon of `mountpoint` answers, in the directory of the calling user."""
    directory = socket_directory(os.getuid(), os.environ)
    return os.path.join(directory, socket_name(resolve_mountpoint(mountpoint, [])))


def state_path(mountpoint: str, source: str) -> str:
    """Return the file in which the daemon of `mountpoint` keeps what one after it must know of `source`."""
    directory = os.path.join(socket_directory(os.getuid(), os.environ), "state")
    place = os.fsencode(resolve_mountpoint(mountpoint, [])) + b"\0" + source.casefold().encode("utf-8", "surrogatepass")
    return os.path.join(directory, hashlib.sha256(place).hexdigest()[:32])


# The daemon's side.


async def serve_status(path: str, snapshot: Snapshot, questions: Mapping[str, Answer] | None = None) -> None:
    """Answer on the socket `path` until cancelled; a socket that cannot be made costs the status, not the mount."""
    try:
        with _listening(path) as listener:
            answerer = _Answerer(snapshot, questions or {})
            await trio.serve_listeners(answerer.answer, [trio.SocketListener(listener)])
    except* OSError as group:
        log.warning("there is no status of this mount: socket %s: %s", path, group.exceptions[0])


class _Answerer:
    """Answers clients, a bounded number at a time and each in bounded time."""

    def __init__(self, snapshot: Snapshot, questions: Mapping[str, Answer]) -> None:
        self._snapshot = snapshot
        self._questions = questions
        self._clients = 0

    async def answer(self, stream: trio.SocketStream) -> None:
        """Answer one question and close."""
        async with stream:
            if self._clients >= MAX_CLIENTS:
                return
            self._clients += 1
            try:
                with suppress(trio.BrokenResourceError):
                    question = None
                    with trio.move_on_after(SEND_TIMEOUT):
                        question = await _read_question(stream)
                    if question is not None:
                        text = await self._text(question)
                        with trio.move_on_after(SEND_TIMEOUT):
                            await stream.send_all(text)
            finally:
                self._clients -= 1

    async def _text(self, question: str) -> bytes:
        """Return the answer as JSON; a mistake in it must not end the mount that it is about."""
        try:
            if question == STATUS:
                found = self._snapshot()
            elif question in self._questions:
                found = await self._questions[question]()
            else:
                found = {"error": "the daemon does not know this question; it may be older than this command"}
            return json.dumps(found, default=str).encode() + b"\n"
        except (Smb3fsError, OSError, trio.TooSlowError) as error:
            said = str(error) or "the server did not answer in time"
            return json.dumps({"error": said}).encode() + b"\n"
        except Exception:
            log.exception("the %s for a client of the status socket failed", question)
            return b'{"error": "the daemon could not describe itself; its log says why"}\n'


async def _read_question(stream: trio.SocketStream) -> str:
    """Return what a client asks for, the status if it asks for nothing."""
    line = b""
    while b"\n" not in line and len(line) <= MAX_QUESTION:
        part = await stream.receive_some(MAX_QUESTION)
        if not part:
            break
        line += part
    return line.partition(b"\n")[0].decode("ascii", "replace").strip() or STATUS


@contextmanager
def _listening(path: str) -> Iterator[trio.socket.SocketType]:
    """Listen on `path` in place of whatever was there, and take away at the end what is still ours.

    The socket is bound under a name of its own and then renamed: a stale one is replaced, a daemon that is still busy
    with its unmount does not stand in the way, and it does not remove its successor's socket either.
    """
    directory = os.path.dirname(path)
    make_directory(directory, 0o755 if os.getuid() == 0 else 0o700)
    temporary = os.path.join(directory, f".{os.getpid()}.{os.path.basename(path)[:8]}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        plain.bind(temporary)
        try:
            # Nobody can connect before listen(), so there is no moment at which others could.
            os.chmod(temporary, 0o600)
            plain.listen(MAX_CLIENTS)
            made = os.lstat(temporary)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        try:
            yield trio.socket.from_stdlib_socket(plain)
        finally:
            with suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                    os.unlink(path)


def make_state_directory(directory: str) -> None:
    """Make the directory that a `state_path` is in, which nobody else may look into; raises OSError."""
    make_directory(os.path.dirname(directory), 0o755 if os.getuid() == 0 else 0o700)
    make_directory(directory, 0o700)


def make_directory(directory: str, mode: int) -> None:
    """Make a directory, or check that the one found belongs to us alone."""
    with suppress(FileExistsError):
        os.mkdir(directory, mode)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "the directory belongs to somebody else", directory)


# The client's side.


def query_status(mountpoint: str, timeout: float = 5.0, question: str = STATUS) -> dict[str, Any]:
    """Return what the daemon that serves `mountpoint` answers, or raise the sentence that says why not."""
    mounts = mounted_shares()
    place = resolve_mountpoint(mountpoint, mounts)
    owners = [mount.owner for mount in mounts if mount.mountpoint == place]
    # The kernel knows who mounted; for what it does not list (another namespace), try our own and root's sockets.
    refused = False
    for uid in dict.fromkeys([*owners, os.getuid(), 0]):
        path = os.path.join(socket_directory(uid, os.environ), socket_name(place))
        try:
            return _ask(path, place, timeout, question)
        except PermissionError:
            refused = True
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            continue
        except OSError as error:
            raise StatusUnavailableError(f"the daemon of {place} cannot be asked at {path}: {error}") from None
    if refused:
        raise StatusUnavailableError(f"{place} was mounted by another user; ask as that user or as root")
    if owners:
        raise StatusUnavailableError(f"the daemon of {place} is gone; unmount it (umount {place}) and mount it again")
    raise StatusUnavailableError(f"{place} is not an smb3fs mount; findmnt -t fuse.smb3fs lists those that are")


def _ask(path: str, place: str, timeout: float, question: str) -> dict[str, Any]:
    """Have one question answered on a socket, all of it within `timeout` seconds."""
    limit = time.monotonic() + timeout
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.settimeout(timeout)
            client.connect(path)
            with suppress(BrokenPipeError):  # it may have answered already, or sent us away
                client.sendall(question.encode() + b"\n")
            while chunk := client.recv(65536):
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    break
                client.settimeout(max(limit - time.monotonic(), 0.001))
        except (TimeoutError, BlockingIOError):  # the latter when too many clients wait to be accepted
            raise StatusUnavailableError(f"the daemon of {place} did not answer in {timeout:g} seconds") from None
        except ConnectionResetError:
            pass  # what came before it may be all of the answer
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StatusUnavailableError(
            f"the daemon of {place} gave no answer that makes sense; it may be busy: ask again"
        )
    return found
