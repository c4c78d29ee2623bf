"""One sentence for every way in which a mount can fail: the cause, and the option that changes it."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from typing import Final

import trio

from smb3fs.cli.explain_login import name_of_user, sentence_for
from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    LinkError,
    MountError,
    OptionError,
    SecurityError,
    Smb3fsError,
    Status,
    StatusError,
    WireError,
    status_name,
)
from smb3fs.options import MountOptions, parse_source

NEGOTIATION: Final[dict[int, str]] = {
    Status.NOT_SUPPORTED: "{server} speaks none of the dialects that are allowed here; vers= changes which are "
    "(an old box may need vers=2.1 or vers=2.0, which sign but cannot encrypt)",
    Status.SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP: "{server} and this client have no hash for the negotiation "
    "in common; vers=3.0.2 does without",
    Status.SMB_NO_SIGNING_ALGORITHM_OVERLAP: "{server} and this client have no way of signing in common; "
    "vers=3.0.2 has only one, which every server has",
    Status.INVALID_PARAMETER: "{server} does not understand our way of negotiating; try vers=3.0.2",
}
TREE: Final[dict[int, str]] = {
    Status.BAD_NETWORK_NAME: "{server} has no share {share}; check its name (smbclient -L lists the shares)",
    Status.OBJECT_NAME_NOT_FOUND: "{server} has no share {share}; check its name",
    Status.OBJECT_PATH_NOT_FOUND: "{server} has no share {share}; check its name",
    Status.ACCESS_DENIED: "{user} may not use the share {share} on {server}: use another username=, or seal where "
    "the share demands encryption",
    Status.NETWORK_ACCESS_DENIED: "{user} may not use the share {share} on {server} over the network; "
    "use another username=",
    Status.PATH_NOT_COVERED: "{share} on {server} is a DFS namespace, and {server} does not say where it leads; "
    "mount the target share itself",
    Status.REQUEST_NOT_ACCEPTED: "the share {share} has as many users as {server} allows; try again later",
    Status.INSUFFICIENT_RESOURCES: "{server} has no resources for another connection to {share}; try again later",
}
NO_DIRECTORY: Final = "the share {share} on {server} has no directory {prefix}; check what follows the share's name"
ROOT: Final[dict[int, str]] = {
    Status.OBJECT_NAME_NOT_FOUND: NO_DIRECTORY,
    Status.OBJECT_PATH_NOT_FOUND: NO_DIRECTORY,
    Status.OBJECT_NAME_INVALID: NO_DIRECTORY,
    Status.OBJECT_PATH_SYNTAX_BAD: NO_DIRECTORY,
    Status.NO_SUCH_FILE: NO_DIRECTORY,
    Status.NOT_A_DIRECTORY: "{prefix} in the share {share} is a file; only a directory can be mounted",
    Status.ACCESS_DENIED: "{user} may not look into {prefix} of the share {share}; use another username= or directory",
    Status.STOPPED_ON_SYMLINK: "{prefix} in the share {share} goes through a symbolic link; name its target instead",
    Status.PATH_NOT_COVERED: "{prefix} on {share} is a DFS link, and {server} does not say where it leads; "
    "mount its target",
}
VALIDATION: Final[dict[int, str]] = {
    Status.ACCESS_DENIED: "{server} denies the negotiation that it took part in: somebody in between may have "
    "changed it; vers=3.1.1 protects itself against that",
}
BY_COMMAND: Final = {
    "NEGOTIATE": NEGOTIATION,
    "TREE_CONNECT": TREE,
    "FSCTL_VALIDATE_NEGOTIATE_INFO": VALIDATION,
}


def explain(error: BaseException, options: MountOptions) -> str:
    """Return the sentence about a mount that failed with `error`."""
    error = cause_of(error)
    match error:
        case StatusError():
            return _refusal(error, options)
        case LinkError():
            reasons = "; ".join(f"{target}: {_of_target(target, why, options)}" for target, why in error.failures)
            return f"the DFS link {error.link} cannot be followed: {reasons}"
        case OptionError() | MountError():
            return str(error)
        case SecurityError():
            return f"not mounted, for safety: {error}{_hint(str(error))}"
        case AuthenticationError():
            return str(error)
        case DeadlineExceeded() | trio.TooSlowError():
            return (
                f"{options.server} did not answer within {options.timeout:g} s: it is down or busy, or a firewall "
                "drops the packets; timeout= changes how long to wait"
            )
        case ConnectionLost():
            return (
                f"{options.server} ended the connection during the login ({error}); "
                "it may speak only SMB 1, refuse this machine, or understand another vers="
            )
        case WireError():
            return (
                f"what answers at port {options.port} of {options.server} does not speak SMB 3 ({error}); "
                "check the server's name, ip= and port="
            )
        case OSError():
            return _connecting(error, options)
        case _:
            return f"an unexpected error, which is a bug of smb3fs: {type(error).__name__}: {error}; -v shows more"


def _of_target(target: str, error: Exception, options: MountOptions) -> str:
    """Explain why a target of a DFS link cannot be mounted."""
    place = parse_source(target)
    there = replace(
        options, server=place.server, share=place.share, prefix_path=place.prefix_path, address=None, fsname=target
    )
    return explain(error, there)


def cause_of(error: BaseException) -> BaseException:
    """Return what is behind a group of exceptions: the first that `is_foreseen`, else the first."""
    while isinstance(error, BaseExceptionGroup):
        error = next(filter(is_foreseen, error.exceptions), error.exceptions[0])
    return error


def is_foreseen(error: BaseException) -> bool:
    """Tell what happens to mounts from what is a mistake in this program."""
    return isinstance(error, Smb3fsError | OSError | trio.TooSlowError)


def _refusal(error: StatusError, options: MountOptions) -> str:
    """Explain an NTSTATUS by the request that it answers."""
    # Whatever is asked behind the tree connect concerns the root of the mount.
    if error.command == "SESSION_SETUP":
        sentence = sentence_for(error.status, options)
    else:
        sentence = BY_COMMAND.get(error.command, ROOT).get(error.status)
    if sentence is None:
        sentence = "{server} refuses " + error.command
    filled = sentence.format(
        server=options.server,
        share=options.share,
        user=name_of_user(options),
        prefix=options.prefix_path.replace("\\", "/") or "the root",
    )
    return f"{filled} ({status_name(error.status)})"


def _hint(text: str) -> str:
    """Name the option that changes a refusal for safety's sake, where there is one."""
    if "guest" in text:
        return (
            "; check the user name and the password in the credentials file (a server that maps bad ones to its guest "
            "tells them so), or use the option guest if a guest is what you want to be"
        )
    if "cipher" in text or "encrypt" in text:
        return "; cipher= and vers= change what is offered, seal is what demands it"
    if "dialect" in text:
        return "; vers= changes what is offered"
    return ""


def _connecting(error: OSError, options: MountOptions) -> str:
    """Explain an error of the system: as a rule there is no connection."""
    place = options.address or options.server
    if isinstance(error, socket.gaierror) and options.source_address is not None and options.address is not None:
        return f"{place} cannot be reached from {options.source_address}; ip= and srcaddr= must be of one kind"
    if isinstance(error, socket.gaierror):
        return f"the name {place} does not resolve ({error.strerror}); ip= names the address instead"
    match error.errno:
        case errno.ECONNREFUSED:
            return f"nothing listens on port {options.port} of {place}; port= names another one"
        case errno.EADDRNOTAVAIL:
            return f"{options.source_address} is no address of this machine; srcaddr= names one, or leave it out"
        case errno.ETIMEDOUT:
            return (
                f"{place} does not answer on port {options.port}: it is down, or a firewall drops the packets; "
                "ip= and port= name another place, timeout= changes how long to wait"
            )
        case errno.EHOSTUNREACH | errno.ENETUNREACH | errno.ENETDOWN | errno.EHOSTDOWN:
            return f"there is no way to {place} ({error.strerror}); check the network, or name an address with ip="
        case errno.ECONNRESET | errno.EPIPE:
            return f"{place} reset the connection; it may refuse this machine, or port= is not that of SMB"
        case errno.ENOTDIR:
            return f"{options.fsname} names a file; only a directory can be mounted"
        case errno.ENOENT if error.filename is not None and "fuse" in str(error.filename):
            return f"{error.filename} is missing; install the package fuse3 and load the kernel module fuse"
        case errno.EPERM | errno.EACCES:
            what = f" ({error.filename})" if error.filename else ""
            return f"this user or container may not mount{what}: be root, or install fuse3, or give it CAP_SYS_ADMIN"
        case None:
            return str(error)
        case number:
            return f"{place}: {os.strerror(number)}"
