"""The composition root: the one place that knows every part, wires them, and takes them down in order."""

from __future__ import annotations

import gc
import logging
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import trio

from smb3fs.channels.connector import Connector, Target
from smb3fs.channels.kerberos import Tickets
from smb3fs.channels.logins import Logins
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import DIALECTS, Policy
from smb3fs.channels.places import Place
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.errors import DeadlineExceeded, Smb3fsError
from smb3fs.fuse.drivers import Driver, driver_named
from smb3fs.handles.opens import OpenTable
from smb3fs.options import MountOptions
from smb3fs.recovery import Recovery
from smb3fs.share.share import Share
from smb3fs.share.versions import check_chosen, chosen_time
from smb3fs.status import serve_status, socket_path
from smb3fs.trace import Trace
from smb3fs.vfs.names import NameMapping, Names
from smb3fs.vfs.operations import Vfs
from smb3fs.wire.negotiate import Cipher, SigningAlgorithm
from smb3fs.wire.snapshots import time_token

log = logging.getLogger(__name__)

# How long the server may take to hear our farewell; what it did not hear it forgets with the connection.
FAREWELL: Final = 5.0


class Mount:
    """One mount: its parts, and what `smb3fs status` tells of them."""

    def __init__(self, options: MountOptions, target: str, nursery: trio.Nursery) -> None:
        self.options = options
        self.target = target
        self.began = time.time()
        self.trace = Trace()
        self.pool = Pool(options.retrans)
        self.opens = OpenTable()
        self.logins = _logins(options)
        self.recovery = Recovery(self.pool, self._connect, self._renew, self.logins.changed, self.trace)
        self._snapshot = chosen_time(options.snapshot) if options.snapshot is not None else None
        self.share = Share(
            self.pool,
            self.opens,
            self.trace,
            prefix=Names(NameMapping(options.name_mapping), self.trace).path_to_server(options.prefix_path),
            rsize=options.rsize,
            wsize=options.wsize,
            snapshot=self._snapshot,
            mfsymlinks=options.mfsymlinks,
        )
        self.vfs = Vfs(self.share, options, self.trace)
        self._connector = Connector(
            nursery,
            Target(
                options.address or options.server,
                options.port,
                Place(options.server, options.share, options.prefix_path),
                options.timeout,
                options.echo_interval,
                options.follow_links,
                options.source_address,
                options.max_credits,
            ),
            Policy(
                options.server,
                uuid.uuid4().bytes_le,
                tuple(dialect for dialect in DIALECTS if options.version_min <= dialect <= options.version_max),
                options.ciphers,
                options.seal,
            ),
            self.logins,
            self.trace,
            self.recovery.lost,
        )

    async def _connect(self, previous_session_id: int) -> Session:
        """Make a session; for Recovery, which exists before the connector does."""
        return await self._connector.connect(previous_session_id)

    async def _renew(self, session: Session) -> None:
        """Renew a session; for Recovery likewise."""
        await self._connector.renew(session)

    async def reload(self) -> None:
        """Read the credentials file again, and try at once if it is a login that the mount waits for."""
        await self.logins.read()
        self.recovery.hurry()

    async def start(self) -> None:
        """Connect, and see that the root of the mount is a directory."""
        await self.recovery.start()
        try:
            with trio.fail_after(self.options.timeout):
                if self._snapshot is not None:
                    check_chosen(self._snapshot, await self.share.snapshots())
                root, volume = await self.share.root()
            self.vfs.set_root(root)
            self.vfs.state.learn(volume)
        except trio.TooSlowError as error:  # the connection was lost right after it was made
            raise DeadlineExceeded("the server did not answer in time") from error

    async def snapshots(self) -> dict[str, Any]:
        """Return what `smb3fs snapshots` shows."""
        with trio.fail_after(self.options.timeout):
            tokens = await self.share.snapshots()
        return {
            "mountpoint": self.target,
            "mounted": None if self._snapshot is None else time_token(self._snapshot),
            "snapshots": tokens,
        }

    async def end(self) -> None:
        """Take leave of the server, so that nothing of us is left there."""
        session = self.pool.session
        self.pool.close()
        if session is not None:
            with trio.move_on_after(FAREWELL):
                try:
                    await session.end()
                except (Smb3fsError, OSError) as error:
                    log.info("the server did not hear the farewell: %s", error)

    def snapshot(self) -> dict[str, Any]:
        """Return what `smb3fs status` shows, in values that JSON has."""
        session, trace, options = self.pool.session, self.trace, self.options
        agreed = session.agreed if session is not None else None
        sealed = session is not None and (session.security.seal_everything or session.tree.seal)
        return {
            "server": options.server,
            "share": options.share,
            "place": str(session.place) if session is not None else None,
            "mountpoint": self.target,
            "uptime": time.time() - self.began,
            "state": "connected" if session is not None else "reconnecting",
            "dialect": _dialect(agreed.dialect) if agreed is not None else None,
            "signing": SigningAlgorithm(agreed.signing).name if agreed is not None and not sealed else None,
            "encryption": Cipher(agreed.cipher).name if agreed is not None and agreed.cipher and sealed else None,
            "channels": [self._channel(session)] if session is not None else [],
            "requests": dict(trace.requests),
            "round_trips": trace.round_trips,
            "unwaited": trace.unwaited,
            "bytes": {"read": trace.bytes_read, "written": trace.bytes_written},
            "open_handles": len(self.opens),
            "reconnects": trace.reconnects,
            "dropped_names": trace.dropped_names,
            "events": [{"time": event.time, "text": event.text} for event in trace.events],
            "last_errors": [{"time": event.time, "text": event.text} for event in trace.errors],
        }

    @staticmethod
    def _channel(session: Session) -> dict[str, Any]:
        """Return what is to say about the session's channel."""
        channel = session.channel
        return {
            "connection": channel.transport.description,
            "transport": "tcp",
            "in_flight": channel.in_flight,
            "credits": channel.connection.credits.available,
        }


def _logins(options: MountOptions) -> Logins:
    """Return what the mount logs in with."""
    known = options.credentials
    login = Login(
        known.username,
        known.domain,
        known.password,
        options.security,
        options.guest,
        Tickets(options.keytab, options.cruid, options.sudo_uid),
    )
    return Logins(login, known.password2, options.login_source)


def _dialect(dialect: int) -> str:
    """Return a dialect as people write it: 3.1.1."""
    major, minor, patch = dialect >> 8, dialect >> 4 & 15, dialect & 15
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"


async def run_mount(options: MountOptions, target: str, *, ready: Callable[[], None]) -> None:
    """Mount a share at `target`, call `ready` once it answers, and return after it was unmounted.

    Before `ready` is called, whatever prevents the mount is raised: StatusError, MountError, SecurityError,
    AuthenticationError, ConnectionLost, DeadlineExceeded or OSError; nothing is mounted then. SIGTERM and SIGINT
    unmount, SIGHUP reads the login again.
    """
    failure: Smb3fsError | OSError | None = None
    driver = driver_named(options.fuse)
    async with trio.open_nursery() as nursery:
        mount = Mount(options, target, nursery)
        try:
            await mount.start()
            nursery.start_soon(mount.recovery.run)
            nursery.start_soon(serve_status, socket_path(target), mount.snapshot, {"snapshots": mount.snapshots})
            nursery.start_soon(_heed_signals, mount, driver)
            # What exists by now lives as long as the mount; the collector need not look at it ever again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            await driver.serve(mount.vfs, target, options, ready)
        except (Smb3fsError, OSError) as error:
            failure = error  # raised outside the nursery, which would wrap it into a group
        finally:
            with trio.CancelScope(shield=True):
                await mount.end()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _heed_signals(mount: Mount, driver: Driver) -> None:
    """Unmount when asked to end; read the login again when hung up on."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                log.info("SIGHUP: reading the login again")
                await mount.reload()
                continue
            log.info("%s: unmounting", signal.Signals(number).name)
            driver.terminate()
