"""How each kind of fault is done to a private server, and what ends it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from lab.commands import run
from lab.network import Link, Network
from lab.server import Samba

from faultlib.plan import Fault
from faultlib.proxy import Proxy, Way, somewhere

# How long a connection may wait for the byte that it is cut at.
CUT_SECONDS = 1.0
# What befalls one link of several as well as all of them, and how often the one.
OF_A_LINK: Final = frozenset({"link", "drop", "reset", "frame", "unanswered"})
ONE_LINK: Final = 0.6


class Breaker:
    """Does faults; each returns when what was broken is whole again."""

    def __init__(self, server: Samba, proxy: Proxy) -> None:
        self._server, self._proxy = server, proxy
        # Of a server with several links those that the fault is about.
        self._links: Sequence[Link | Network] = ()
        self.kinds: Mapping[str, Callable[[Fault, random.Random], str]] = {
            "link": self.link,
            "drop": self.drop,
            "reset": self.reset,
            "frame": self.frame,
            "unanswered": self.unanswered,
            "late": self.late,
            "kill": self.kill,
            "restart": self.restart,
            "crash": self.crash,
        }

    def do(self, fault: Fault) -> str:
        """Do one, from its beginning to its end; what was done, in words."""
        chance = random.Random(fault.seed)
        if fault.kind in OF_A_LINK and self._server is not None and self._server.network.links:
            return self._of_some(fault, chance)
        return self.kinds[fault.kind](fault, chance)

    def _of_some(self, fault: Fault, chance: random.Random) -> str:
        """Do it to one of several links, or to all of them."""
        links = self._server.network.all_links()
        number = chance.randrange(len(links)) if chance.random() < ONE_LINK else None
        self._links = links if number is None else [links[number]]
        self._proxy.aim([link.server_address for link in self._links])
        try:
            words = self.kinds[fault.kind](fault, chance)
        finally:
            self._links = ()
            self._proxy.aim(())
        return f"{words}, {'all links' if number is None else f'link {number + 1} alone'}"

    def link(self, fault: Fault, chance: random.Random) -> str:
        """The links are down for a while, and the carrier with them."""
        del chance
        links = self._links or [self._server.network]
        for link in links:
            self._server.network.cut(link)
        time.sleep(fault.seconds)
        for link in links:
            self._server.network.connect(link)
        return f"link down for {fault.seconds:.2f} s"

    def drop(self, fault: Fault, chance: random.Random) -> str:
        """Every packet vanishes for a while, and nobody is told."""
        del chance
        links = self._links or [None]
        for link in links:
            self._server.network.drop(link)
        time.sleep(fault.seconds)
        for link in links:
            self._server.network.pass_again(link)
        return f"packets dropped for {fault.seconds:.2f} s"

    def reset(self, fault: Fault, chance: random.Random) -> str:
        """Every connection is reset at the client's end."""
        del fault, chance
        for link in self._links or [self._server.network]:
            run("ss", "-K", "dst", link.server_address, check=False)
        return "connections reset"

    def frame(self, fault: Fault, chance: random.Random) -> str:
        """The connections through the proxy end in the middle of a frame."""
        way, count, hard = chance.choice(list(Way)), somewhere(chance), chance.random() < 0.5
        del fault
        self._proxy.cut_after(way, count, reset=hard)
        limit = time.monotonic() + CUT_SECONDS
        while self._proxy.to_be_cut() and time.monotonic() < limit:
            time.sleep(0.005)
        self._proxy.cut_what_waits()
        return f"cut after {count} bytes {way.value}, {'with a reset' if hard else 'in order'}"

    def unanswered(self, fault: Fault, chance: random.Random) -> str:
        """The server hears everything for a while, the client nothing; then the connections are reset."""
        seconds = min(fault.seconds, chance.uniform(0.02, 0.4))
        self._proxy.hold(Way.TO_CLIENT)
        time.sleep(seconds)
        self._proxy.cut()
        return f"no answers for {seconds:.2f} s, then cut"

    def late(self, fault: Fault, chance: random.Random) -> str:
        """The client's requests are held back, its connection is cut; the server hears them when all seems over."""
        seconds, later = min(fault.seconds, chance.uniform(0.02, 0.3)), chance.uniform(0, 1.5)
        self._proxy.hold(Way.TO_SERVER)
        time.sleep(seconds)
        self._proxy.cut_clients(later)
        # What the network still holds is part of the fault: until the server has heard it, it serves that connection.
        while self._proxy.holds_back():
            time.sleep(0.005)
        return f"requests of {seconds:.2f} s delivered {later:.2f} s after the cut"

    def kill(self, fault: Fault, chance: random.Random) -> str:
        """The processes that serve the clients, or one of them, are killed."""
        del fault
        pids = self._server.session_processes()
        if len(pids) > 1 and chance.random() < 0.6:
            pids = [chance.choice(pids)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"{len(pids)} of the server's session processes killed"

    def restart(self, fault: Fault, chance: random.Random) -> str:
        """The server is stopped in good order, and started again."""
        del chance
        self._server.stop()
        time.sleep(fault.seconds)
        self._server.start()
        return f"server stopped for {fault.seconds:.2f} s"

    def crash(self, fault: Fault, chance: random.Random) -> str:
        """All of the server's processes are killed, and it is started again."""
        del chance
        self._server.kill()
        time.sleep(fault.seconds)
        self._server.start()
        return f"server killed, away for {fault.seconds:.2f} s"
