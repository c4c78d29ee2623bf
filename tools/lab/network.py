"""A network namespace with one link to this machine, and ways to break the link.

The namespace holds the server, the near end of the link is the client's. The far end is cut, never the near one, and a
route of last resort forbids the subnet, so that no packet for a lab's address ever leaves through the default route.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from lab.commands import CommandError, run

# 10.64.0.0/10 in subnets of four addresses: 2**20 of them, chosen by process id.
POOL = ipaddress.IPv4Network("10.64.0.0/10")
# Worse than any route that a person or a DHCP client sets.
LAST_RESORT_METRIC = "4294967295"
# What stays within the server's machine passes.
DROP_RULES = """
table inet lab {
  chain input { type filter hook input priority 0; policy drop; iif lo accept; }
  chain output { type filter hook output priority 0; policy drop; oif lo accept; }
}
"""
PATH_RULES = """
table inet {link} {{
  chain input {{ type filter hook input priority 0; iifname {link} meta l4proto tcp {verdict}; }}
}}
"""


# Both ways, whatever it is.
LINK_RULES = """
table inet {link} {{
  chain input {{ type filter hook input priority 0; iifname {link} drop; }}
  chain output {{ type filter hook output priority 0; oifname {link} drop; }}
}}
"""


class Link:
    """A further link into a namespace; it goes with that."""

    def __init__(self, namespace: str, near: str, far: str, subnet: ipaddress.IPv4Network) -> None:
        self.namespace = namespace
        self.near = near
        self.far = far
        self.subnet = subnet
        self.client_address, self.server_address = (str(host) for host in subnet.hosts())

    def up(self) -> None:
        """Make it."""
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.namespace)
        run("ip", "addr", "add", f"{self.client_address}/{self.subnet.prefixlen}", "dev", self.near)
        run("ip", "link", "set", self.near, "up")
        address = f"{self.server_address}/{self.subnet.prefixlen}"
        run("ip", "-n", self.namespace, "addr", "add", address, "dev", self.far)
        run("ip", "-n", self.namespace, "link", "set", self.far, "up")


class Network:
    """One namespace, its link, the two addresses."""

    def __init__(self, name: str, ordinal: int, subnet: str | None = None) -> None:
        """`name` names the namespace; `ordinal` picks link names and, unless one is given, the subnet."""
        self.namespace = name
        self.near = f"s3n{ordinal}"
        self.far = f"s3f{ordinal}"
        self.subnet = ipaddress.IPv4Network(subnet) if subnet else _free_subnet(ordinal)
        self.links: list[Link] = []
        hosts = list(self.subnet.hosts())
        self.client_address = str(hosts[0])
        self.server_address = str(hosts[1])

    def add_links(self, count: int) -> None:
        """Have so many further links, beside the first one, when the network comes up."""
        start = int(self.subnet.network_address) - int(POOL.network_address)
        for number in range(count):
            subnet = _free_subnet(start // 4 + 1 + number, [link.subnet for link in self.links])
            self.links.append(Link(self.namespace, f"{self.near}x{number}", f"{self.far}x{number}", subnet))

    def up(self) -> None:
        """Make the namespace and the link."""
        prefix = self.subnet.prefixlen
        run("ip", "route", "add", "unreachable", str(self.subnet), "metric", LAST_RESORT_METRIC)
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.namespace)
        run("ip", "addr", "add", f"{self.client_address}/{prefix}", "dev", self.near)
        run("ip", "link", "set", self.near, "up")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.namespace, "addr", "add", f"{self.server_address}/{prefix}", "dev", self.far)
        self.connect()
        for link in self.links:
            link.up()

    def down(self) -> None:
        """Remove all of it, whatever of it exists."""
        end_processes(self.namespace)
        run("ip", "netns", "del", self.namespace, check=False)
        run("ip", "link", "del", self.near, check=False)
        run("ip", "route", "del", "unreachable", str(self.subnet), "metric", LAST_RESORT_METRIC, check=False)

    def all_links(self) -> list[Link | Network]:
        """The links, the first one first."""
        return [self, *self.links]

    def cut(self, link: Link | Network | None = None) -> None:
        """Pull the plug of a link, the first one unless it is said, at the server's end: this machine sees it go."""
        run("ip", "-n", self.namespace, "link", "set", (link or self).far, "down")

    def connect(self, link: Link | Network | None = None) -> None:
        """Plug in again, and wait for the carrier."""
        link = link or self
        run("ip", "-n", self.namespace, "link", "set", link.far, "up")
        limit = time.monotonic() + 5
        while "LOWER_UP" not in run("ip", "-o", "link", "show", link.near).stdout:
            if time.monotonic() > limit:
                raise CommandError(f"the link {link.near} has no carrier after 5 s")
            time.sleep(0.01)

    def drop(self, link: Link | Network | None = None) -> None:
        """Let every packet vanish in silence, as behind a firewall; or those of one link."""
        self.inside("nft", "-f", "-", stdin=LINK_RULES.format(link=link.far) if link else DROP_RULES)

    def pass_again(self, link: Link | Network | None = None) -> None:
        """End what `drop` began."""
        self.inside("nft", "delete", "table", "inet", link.far if link else "lab")

    def break_path(self, link: Link | Network, verdict: str) -> None:
        """Let what comes over one link end so: `drop` has it vanish, `reject with tcp reset` has it refused."""
        self.inside("nft", "-f", "-", stdin=PATH_RULES.format(link=link.far, verdict=verdict))

    def mend_path(self, link: Link | Network) -> None:
        """End what `break_path` began."""
        self.inside("nft", "delete", "table", "inet", link.far)

    def shape(self, link: Link | Network, rate: str) -> None:
        """Let a link carry so much and no more in each direction, as tc(8) writes it: 100mbit; what queues waits."""
        bucket = ("root", "tbf", "rate", rate, "burst", "64kb", "limit", "16mb")
        run("tc", "qdisc", "replace", "dev", link.near, *bucket)
        self.inside("tc", "qdisc", "replace", "dev", link.far, *bucket)

    def unshape(self, link: Link | Network) -> None:
        """Let a link carry what it can."""
        run("tc", "qdisc", "del", "dev", link.near, "root")
        self.inside("tc", "qdisc", "del", "dev", link.far, "root")

    def carried(self, link: Link | Network) -> tuple[int, int]:
        """How many bytes each end of a link says that it has received: this machine's, and the server's."""
        here = run("ip", "-s", "-j", "link", "show", "dev", link.near).stdout
        there = self.inside("ip", "-s", "-j", "link", "show", "dev", link.far)
        near, far = (int(json.loads(told)[0]["stats64"]["rx"]["bytes"]) for told in (here, there))
        return near, far

    def inside(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in the namespace; its output."""
        return run(*self.prefix(), *command, stdin=stdin).stdout

    def prefix(self) -> list[str]:
        """What to put before a command: nsenter, because `ip netns exec` would hide mounts made by it."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]


def processes(namespace: str) -> list[int]:
    """Ids of the processes that live in the namespace."""
    done = run("ip", "netns", "pids", namespace, check=False)
    return [int(word) for word in done.stdout.split()]


def end_processes(namespace: str, grace: float = 5) -> None:
    """End what runs in the namespace: politely, then not."""
    for number in (signal.SIGCONT, signal.SIGTERM):
        signal_processes(namespace, number)
    limit = time.monotonic() + grace
    while processes(namespace):
        if time.monotonic() > limit:
            signal_processes(namespace, signal.SIGKILL)
        if time.monotonic() > limit + grace:
            raise CommandError(f"processes in {namespace} outlive SIGKILL: {processes(namespace)}")
        time.sleep(0.02)


def signal_processes(namespace: str, number: int) -> None:
    """Send a signal to each process of the namespace, by id."""
    for pid in processes(namespace):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_subnet(ordinal: int, taken: Sequence[ipaddress.IPv4Network] = ()) -> ipaddress.IPv4Network:
    """The first subnet of the pool, from `ordinal` on, that no address and no route of this machine touches.

    Nor is it one of those that are `taken`.

    Routes wider than the pool (a VPN that takes all of 10.0.0.0/8) do not count: ours is more specific.
    """
    routes = json.loads(run("ip", "-4", "-j", "route", "show", "table", "all").stdout or "[]")
    networks = [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    taken = [*taken, *(network for network in networks if network.prefixlen >= POOL.prefixlen)]
    size = 2 ** (30 - POOL.prefixlen)
    for step in range(size):
        first = int(POOL.network_address) + 4 * ((ordinal + step) % size)
        candidate = ipaddress.IPv4Network((first, 30))
        if not any(network.overlaps(candidate) for network in taken):
            return candidate
    raise CommandError(f"no free subnet in {POOL}: this machine routes all of it")
