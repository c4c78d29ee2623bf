"""One sentence for every way in which a mount can fail: the cause, and the option that changes it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    MountError,
    OptionError,
    SecurityError,
    Status,
    StatusError,
    WireError,
    status_name,
)
from smb3fs.options import MountOptions

# What a refused SESSION_SETUP means. {user} and {server} are filled in.
LOGIN: Final[dict[int, str]] = {
    Status.LOGON_FAILURE: "{server} refuses the login of {user}: the user name or the password is wrong; "
    "check username=, domain= and the credentials file",
    Status.WRONG_PASSWORD: "{server} refuses the password of {user}; check the credentials file",
    Status.NO_SUCH_USER: "{server} knows no user {user}; check username= and domain=",
    Status.ACCOUNT_RESTRICTION: "{server} restricts the account {user} (an empty password, a time, a group); "
    "its administrator can tell",
    Status.ACCOUNT_DISABLED: "the account {user} is disabled on {server}",
    Status.ACCOUNT_LOCKED_OUT: "the account {user} is locked on {server} after too many failed logins",
    Status.PASSWORD_EXPIRED: "the password of {user} has expired; change it on {server} and in the credentials file",
    Status.PASSWORD_MUST_CHANGE: "{user} has to change the password on {server} before the first login",
    Status.INVALID_LOGON_HOURS: "{server} does not let {user} in at this hour",
    Status.INVALID_WORKSTATION: "{server} does not let {user} in from this machine",
    Status.LOGON_TYPE_NOT_GRANTED: "{user} may not log in to {server} over the network",
    Status.NO_LOGON_SERVERS: "{server} cannot reach a domain controller to check the login of {user}",
    Status.TRUSTED_RELATIONSHIP_FAILURE: "{server} has lost the trust of its domain and cannot check logins",
    Status.TIME_DIFFERENCE_AT_DC: "the clocks of {server} and of its domain controller differ too much",
    Status.NOT_SUPPORTED: "{server} does not accept NTLM, the only kind of login that this version has",
    Status.NTLM_BLOCKED: "{server} does not accept NTLM, the only kind of login that this version has",
    Status.ACCESS_DENIED: "{server} refuses the session of {user}: the account may not log in over the network, or the "
    "server demands encryption; try the option seal",
    Status.REQUEST_NOT_ACCEPTED: "{server} accepts no more sessions at present",
    Status.INSUFFICIENT_RESOURCES: "{server} has no resources for another session at present",
}
NEGOTIATION: Final[dict[int, str]] = {
    Status.NOT_SUPPORTED: "{server} speaks none of the dialects that are allowed here; vers= changes which are "
    "(this version speaks 3.0, 3.0.2 and 3.1.1)",
    Status.SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP: "{server} and this client have no hash for the negotiation in common",
    Status.INVALID_PARAMETER: "{server} does not understand our way of negotiating; try vers=3.0.2",
}
TREE: Final[dict[int, str]] = {
    Status.BAD_NETWORK_NAME: "{server} has no share {share}; check its name (smbclient -L lists the shares)",
    Status.OBJECT_NAME_NOT_FOUND: "{server} has no share {share}; check its name",
    Status.OBJECT_PATH_NOT_FOUND: "{server} has no share {share}; check its name",
    Status.ACCESS_DENIED: "{user} may not use the share {share} on {server}, or the share demands encryption and an "
    "option (vers=, cipher=) prevents it",
    Status.NETWORK_ACCESS_DENIED: "{user} may not use the share {share} on {server} over the network",
    Status.PATH_NOT_COVERED: "{share} on {server} is a DFS namespace, which this version does not follow; "
    "mount the target share itself",
    Status.REQUEST_NOT_ACCEPTED: "the share {share} has as many users as {server} allows",
    Status.INSUFFICIENT_RESOURCES: "{server} has no resources for another connection to {share}",
}
ROOT: Final[dict[int, str]] = {
    Status.OBJECT_NAME_NOT_FOUND: "the share {share} has no directory {prefix}; check what follows the share's name",
    Status.OBJECT_PATH_NOT_FOUND: "the share {share} has no directory {prefix}; check what follows the share's name",
    Status.ACCESS_DENIED: "{user} may not look into the root of the mount on {server}",
    Status.PATH_NOT_COVERED: "{prefix} on {share} is a DFS link, which this version does not follow; mount its target",
}
BY_COMMAND: Final = {"NEGOTIATE": NEGOTIATION, "SESSION_SETUP": LOGIN, "TREE_CONNECT": TREE, "CREATE": ROOT}


def explain(error: BaseException, options: MountOptions) -> str:
    """Return the sentence about a mount that failed with `error`."""
    match error:
        case StatusError():
            return _refusal(error, options)
        case OptionError() | MountError():
            return str(error)
        case SecurityError():
            return f"not mounted, for safety: {error}{_hint(str(error))}"
        case AuthenticationError():
            return f"{error}; check username=, domain= and the credentials file"
        case DeadlineExceeded():
            return f"{options.server} did not answer within {options.timeout:g} s; timeout= changes how long to wait"
        case ConnectionLost():
            return (
                f"{options.server} ended the connection during the login ({error}); "
                "it may speak only SMB1 or refuse this machine"
            )
        case WireError():
            return f"what answers at port {options.port} of {options.server} does not speak SMB3: {error}"
        case OSError():
            return _connecting(error, options)
        case _:
            return f"an unexpected error, which is a bug of smb3fs: {type(error).__name__}: {error}"


def _refusal(error: StatusError, options: MountOptions) -> str:
    """Explain an NTSTATUS by the request that it answers."""
    sentence = BY_COMMAND.get(error.command, {}).get(error.status)
    if sentence is None:
        sentence = "{server} refuses " + error.command
    login = options.credentials
    filled = sentence.format(
        server=options.server,
        share=options.share,
        user=f"{login.domain}\\{login.username}" if login.domain else login.username,
        prefix=options.prefix_path.replace("\\", "/") or "root",
    )
    return f"{filled} ({status_name(error.status)})"


def _hint(text: str) -> str:
    """Name the option that changes a refusal for safety's sake, where there is one."""
    if "cipher" in text or "encrypt" in text:
        return "; cipher= and vers= change what is offered, seal is what demands it"
    if "dialect" in text:
        return "; vers= changes what is offered"
    return ""


def _connecting(error: OSError, options: MountOptions) -> str:
    """Explain why there is no connection."""
    place = options.address or options.server
    if isinstance(error, socket.gaierror):
        return f"the name {place} does not resolve ({error.strerror}); ip= names the address instead"
    match error.errno:
        case errno.ECONNREFUSED:
            return f"nothing listens on port {options.port} of {place}; port= names another one"
        case errno.ETIMEDOUT:
            return f"{place} does not answer on port {options.port}: it is down, or a firewall drops the packets"
        case errno.EHOSTUNREACH | errno.ENETUNREACH | errno.ENETDOWN | errno.EHOSTDOWN:
            return f"there is no way to {place}: {error.strerror}"
        case errno.ECONNRESET | errno.EPIPE:
            return f"{place} reset the connection; it may refuse this machine"
        case errno.ENOTDIR:
            return f"{options.fsname} names a file; only a directory can be mounted"
        case None:
            return str(error)
        case number:
            return f"{place}: {os.strerror(number)}"
