"""Changes of this machine's links and addresses, as the kernel tells them: that there was one, not which."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

import trio

# Who listens to these groups is told of links that come, go, or change their state, and of addresses: RTMGRP_LINK,
# RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of linux/rtnetlink.h.
GROUPS: Final = 0x1 | 0x10 | 0x100
ROOM: Final = 65536
# Seconds for which changes are gathered that come one after the other, as those of one link do.
TOGETHER: Final = 0.05


def open_kernel() -> socket.socket:
    """Return a socket from which the kernel's messages about links and addresses can be read; raises OSError."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        kernel.bind((0, GROUPS))
    except OSError:
        kernel.close()
        raise
    return kernel


async def tell_changes(tell: Callable[[], None]) -> None:
    """Call `tell` after each change, for as long as there may be any; at once returns where the kernel does not say.

    What has changed is for whoever is told to find out where he reads the rest: no message is looked into.
    """
    try:
        kernel = open_kernel()
    except OSError:
        return
    with trio.socket.from_stdlib_socket(kernel) as told:
        while True:
            await _next(told)
            with trio.move_on_after(TOGETHER):
                while True:
                    await _next(told)
            tell()


async def _next(told: trio.socket.SocketType) -> None:
    """Wait for a message, or for so many that some of them were lost."""
    try:
        await told.recv(ROOM)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
