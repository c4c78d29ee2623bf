"""Telling systemd how the mount is doing, where it asks for that: sd_notify(3), for units of Type=notify."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


def notify(environment: Mapping[str, str], **fields: str) -> None:
    """Send fields such as READY="1" to whoever waits for them; without NOTIFY_SOCKET nobody does."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A line ends a field, and a name in the abstract namespace begins with NUL.
    text = "\n".join(f"{name}={value.replace(chr(10), ' ')}" for name, value in fields.items())
    place = os.fsencode(address)
    if place.startswith(b"@"):
        place = b"\0" + place[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(text.encode(errors="replace"), place)
    except OSError as error:
        log.warning("NOTIFY_SOCKET in the environment is %s, where nobody listens: %s", address, error.strerror)
