"""The composition root: the one place that knows every part, wires them, and takes them down in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, cast

import trio

from smb3fs.cache.directories import DirectoryCache
from smb3fs.channels.connector import Connector, Target
from smb3fs.channels.interfaces import own_addresses
from smb3fs.channels.kerberos import Tickets
from smb3fs.channels.logins import Logins
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import DIALECTS, Policy
from smb3fs.channels.pairing import Choice
from smb3fs.channels.places import Place
from smb3fs.channels.pool import Pool
from smb3fs.channels.siblings import Siblings
from smb3fs.errors import DeadlineExceeded, MountError, Smb3fsError
from smb3fs.fuse.drivers import Driver, driver_named
from smb3fs.handles.journal import Journal
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import OpenTable
from smb3fs.line import Line
from smb3fs.options import MountOptions
from smb3fs.share.branches import Branches
from smb3fs.share.share import Share
from smb3fs.share.versions import check_chosen, chosen_time
from smb3fs.snapshot import Snapshots
from smb3fs.status import make_state_directory, serve_status, socket_path, state_path
from smb3fs.trace import Trace
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.names import NameMapping, Names
from smb3fs.vfs.operations import Vfs
from smb3fs.wire.snapshots import time_token
from smb3fs.wire.tree import ShareFlag

log = logging.getLogger(__name__)

# As an int: arithmetic with enum's flags costs microseconds.
ENUMERATES_BY_ACCESS: Final = int(ShareFlag.ACCESS_BASED_DIRECTORY_ENUM)


class Mount:
    """One mount: its parts; what `smb3fs status` tells of them is `smb3fs.snapshot`'s to say."""

    def __init__(self, options: MountOptions, target: str, nursery: trio.Nursery) -> None:
        self.options = options
        self.target = target
        self.began = time.time()
        self.trace = Trace()
        self.logins = _logins(options)
        self.snapshot_time = chosen_time(options.snapshot) if options.snapshot is not None else None
        self._nursery = nursery
        # Names of ours that nobody is to see, whichever line has made them.
        self._unlisted: set[str] = set()
        self._path = Names(NameMapping(options.name_mapping), self.trace).path_to_server(options.prefix_path)
        self.line = self._line(Place(options.server, options.share, self._path))
        self.branches: Branches | None = None
        self.vfs = Vfs(self.line.share, options, self.trace)
        self.snapshot = Snapshots(self).take

    def _line(self, place: Place) -> Line:
        """Make the parts that carry requests to one place."""
        options = self.options
        path = state_path(self.target, f"{place.unc}\\{place.path}")
        journal = Journal(path, lambda: make_state_directory(os.path.dirname(path)))
        pool, opens = Pool(options.retrans, options.timeout), OpenTable(LeaseTable(wanted=options.leases), journal)
        share = Share(
            pool,
            opens,
            self.trace,
            prefix=place.path,
            rsize=options.rsize,
            wsize=options.wsize,
            snapshot=self.snapshot_time,
            mfsymlinks=options.mfsymlinks,
            persistent=options.persistent is not False,
            handle_timeout=options.handle_timeout,
        )
        line = Line(
            pool,
            share,
            opens,
            journal,
            self.logins,
            options.timeout,
            self.trace,
            self._nursery,
            gathers=options.gathers,
            unlisted=self._unlisted,
        )
        line.connector = Connector(
            self._nursery,
            Target(
                options.address or options.server,
                options.port,
                place,
                options.timeout,
                options.echo_interval,
                options.follow_links,
                options.source_address,
                options.max_credits,
            ),
            Policy(
                options.server,
                line.client,
                tuple(dialect for dialect in DIALECTS if options.version_min <= dialect <= options.version_max),
                options.ciphers,
                options.seal,
                options.posix is not False,
                options.channels > 1 and not options.one_each,
            ),
            self.logins,
            self.trace,
            line.lost,
            line.broken,
        )
        if options.channels > 1:
            choice = Choice(
                ip_address(options.source_address) if options.source_address is not None else None,
                options.interfaces,
                options.excluded_interfaces,
                options.mixed_links,
                options.one_each,
            )
            line.siblings = Siblings(pool, line.connector.bind, own_addresses, options.channels, choice, self.trace)
        return line

    async def _branch(self, path: str) -> Line:
        """Make a line to what a DFS link in the mount leads to."""
        line = self._line(Place(self.options.server, self.options.share, self._path).below(path))
        await line.start()
        self.vfs.watch(line.opens.leases)
        self._nursery.start_soon(line.run)
        session = line.pool.session
        self.trace.event(time.time(), f"{path} leads to {session.place if session is not None else 'nowhere'}")
        return line

    def lines(self) -> list[Line]:
        """Return the line to the source, and those to what links lead to."""
        return [self.line, *(self.branches.branches if self.branches is not None else ())]

    async def reload(self) -> None:
        """Read the credentials file again, and try at once if it is a login that the mount waits for."""
        await self.logins.read()
        for line in self.lines():
            line.recovery.hurry()

    async def start(self) -> None:
        """Connect, and see that the root of the mount is a directory."""
        share, pool = self.line.share, self.line.pool
        await self.line.start()
        if pool.session is not None and pool.session.tree.namespace:
            self.branches = Branches(share, self._branch, self.trace)
            self.vfs = Vfs(cast(ShareVerbs, self.branches), self.options, self.trace)
        try:
            with trio.fail_after(self.options.timeout):
                if self.snapshot_time is not None:
                    check_chosen(self.snapshot_time, await share.snapshots())
                self._check_persistent()
                await self._use_posix()
                root, volume = await share.root()
            self._cache_directories()
            leases = self.line.opens.leases
            self.vfs.watch(leases)
            if self.vfs.state.deferred.wanted and not leases.guards_names:
                log.info("the server does not say when others remove a file: none stays open after its last close")
            self.vfs.leave_out(self._unlisted)
            self.vfs.set_root(root)
            self.vfs.state.learn(volume)
        except trio.TooSlowError as error:  # the connection was lost right after it was made
            raise DeadlineExceeded("the server did not answer in time") from error

    def _cache_directories(self) -> None:
        """Keep directories that are listed while their leases hold; not behind DFS links, nor if nothing is cached."""
        if not self.options.leases or self.options.cache == "none" or self.branches is not None:
            return
        cache = DirectoryCache[Contents](self.line.opens.leases, self.line.share.close)
        # A share's root is in no directory, and a change of its own attributes breaks its own lease (seen on Samba).
        self.vfs.cache_directories(cache, root_held=not self._path, tells_all=self._tells_all)

    def _tells_all(self) -> bool:
        """Whether the share lists all that can be opened: some leave out what the user may not read."""
        session = self.line.pool.session
        return session is not None and not session.tree.share_flags & ENUMERATES_BY_ACCESS

    def _check_persistent(self) -> None:
        """Raise MountError where `persistenthandles` asks for what the server or the share does not have."""
        session = self.line.pool.session
        if self.options.persistent and session is not None and not self.line.share.persists(session):
            raise MountError(
                "the server does not offer persistent handles on this share; leave option persistenthandles out, or "
                "make the share continuously available (Samba 4.25 and later: persistent handles = yes, continuous "
                "availability = yes)"
            )

    async def _use_posix(self) -> None:
        """Use the POSIX extensions where the server has them and the options let us."""
        options = self.options
        # A previous version's names, and those behind DFS links, are asked for in Windows' way.
        if options.posix is False or self.snapshot_time is not None or self.branches is not None:
            used = False
        else:
            used = await self.line.share.use_posix(options.prefix_path.replace("\\", "/"))
        if used:
            self.vfs.use_posix()
        elif options.posix:
            raise MountError(
                "the server does not offer the SMB3 POSIX extensions on this share; leave option posix out, or switch "
                "them on (Samba 4.20 and later: smb3 unix extensions = yes)"
            )

    async def snapshots(self) -> dict[str, Any]:
        """Return what `smb3fs snapshots` shows."""
        with trio.fail_after(self.options.timeout):
            tokens = await self.line.share.snapshots()
        return {
            "mountpoint": self.target,
            "mounted": None if self.snapshot_time is None else time_token(self.snapshot_time),
            "snapshots": tokens,
        }

    def announce(self) -> None:
        """Tell by which connection the share is there; what becomes of that is told when it happens."""
        session = self.line.pool.session
        if session is not None:
            self.trace.event(time.time(), f"mounted by connection {session.channel.transport.description}")

    async def end(self) -> None:
        """Take leave of the server, so that nothing of us is left there."""
        with trio.move_on_after(self.options.timeout):
            await self.vfs.state.writes.finish()
        self.vfs.state.deferred.drop_all()
        async with trio.open_nursery() as nursery:
            for line in self.lines():
                nursery.start_soon(line.end)


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
        options.servers_domain,
    )
    return Logins(login, known.password2, options.login_source)


async def run_mount(
    options: MountOptions, target: str, *, ready: Callable[[], None], ending: Callable[[], None] = lambda: None
) -> None:
    """Mount a share at `target`, call `ready` once it answers, `ending` once it is unmounted, and return after that.

    Before `ready` is called, whatever prevents the mount is raised: StatusError, MountError, SecurityError,
    AuthenticationError, ConnectionLost, DeadlineExceeded or OSError; nothing is mounted then. SIGTERM and SIGINT
    unmount, SIGHUP reads the login again.
    """
    failure: Smb3fsError | OSError | None = None
    driver = driver_named(options.fuse)

    def is_live() -> None:
        ready()
        mount.announce()

    async with trio.open_nursery() as nursery:
        mount = Mount(options, target, nursery)
        with mount.trace.heeding_the_log():
            try:
                await mount.start()
                nursery.start_soon(mount.line.run)
                nursery.start_soon(mount.vfs.state.deferred.run)
                nursery.start_soon(mount.vfs.state.pages.run)
                nursery.start_soon(mount.vfs.state.writes.run)
                nursery.start_soon(mount.vfs.list_ahead)
                nursery.start_soon(serve_status, socket_path(target), mount.snapshot, {"snapshots": mount.snapshots})
                nursery.start_soon(_heed_signals, mount, driver)
                # What exists by now lives as long as the mount; the collector need not look at it ever again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(20_000, 20, 20)
                await driver.serve(mount.vfs, target, options, is_live)
                ending()
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
            mount.vfs.lose_patience()
