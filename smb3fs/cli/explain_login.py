"""What a refused login means, by the kind of login: the cause, and the option that changes it."""

from __future__ import annotations

from typing import Final

from smb3fs.errors import Status
from smb3fs.options import MountOptions

# What a refused SESSION_SETUP means. {user} and {server} are filled in.
BY_PASSWORD: Final[dict[int, str]] = {
    Status.LOGON_FAILURE: "{server} refuses the login of {user}: the user name or the password is wrong; "
    "check username=, domain= and the credentials file",
    Status.WRONG_PASSWORD: "{server} refuses the password of {user}; check the credentials file",
    Status.NO_SUCH_USER: "{server} knows no user {user}; check username= and domain=",
    Status.ACCOUNT_RESTRICTION: "{server} restricts the account {user} (an empty password, a time, a group); "
    "its administrator can tell, or use another username=",
    Status.ACCOUNT_DISABLED: "the account {user} is disabled on {server}; its administrator can enable it, or use "
    "another username=",
    Status.ACCOUNT_LOCKED_OUT: "the account {user} is locked on {server} after too many failed logins; correct the "
    "credentials file and wait, or have it unlocked",
    Status.PASSWORD_EXPIRED: "the password of {user} has expired; change it on {server} and in the credentials file",
    Status.PASSWORD_MUST_CHANGE: "{user} has to change the password on {server} before the first login",
    Status.INVALID_LOGON_HOURS: "{server} does not let {user} in at this hour; use another username=",
    Status.INVALID_WORKSTATION: "{server} does not let {user} in from this machine; use another username=",
    Status.LOGON_TYPE_NOT_GRANTED: "{user} may not log in to {server} over the network; use another username=",
    Status.NO_LOGON_SERVERS: "{server} cannot reach a domain controller to check the login of {user}; "
    "try again later, or use a local account with domain=",
    Status.TRUSTED_RELATIONSHIP_FAILURE: "{server} has lost the trust of its domain and cannot check logins; "
    "its administrator must join it again, or use a local account with domain=",
    Status.TIME_DIFFERENCE_AT_DC: "the clocks of {server} and of its domain controller differ too much; set them right",
    Status.NOT_SUPPORTED: "{server} does not accept NTLM for {user}; use sec=krb5, or have NTLM allowed there",
    Status.NTLM_BLOCKED: "{server} does not accept NTLM for {user}; use sec=krb5, or have NTLM allowed there",
    Status.ACCESS_DENIED: "{server} refuses the session of {user}: the account may not log in over the network, or the "
    "server demands encryption; try the option seal",
    Status.REQUEST_NOT_ACCEPTED: "{server} accepts no more sessions at present; try again later",
    Status.INSUFFICIENT_RESOURCES: "{server} has no resources for another session at present; try again later",
    Status.INVALID_PARAMETER: "{server} finds fault with the login of {user}; check username=, domain= and vers=",
}
# With a ticket: the KDC has vouched for the user, so it is the server that has something against it.
BY_TICKET: Final[dict[int, str]] = {
    Status.LOGON_FAILURE: "{server} does not take the ticket of {user}: it is for another server or an older key of "
    "this one; name the server as the domain does, and get new tickets with kdestroy and kinit",
    Status.NOT_SUPPORTED: "{server} does not accept Kerberos; use sec=ntlmssp with credentials=FILE",
    Status.TIME_DIFFERENCE_AT_DC: "the clocks of {server} and of this machine differ by more than a few minutes; set "
    "them right (timedatectl), no option changes this",
    Status.MORE_PROCESSING_REQUIRED: "{server} wants another ticket; get new ones with kdestroy and kinit",
}
AS_GUEST: Final[dict[int, str]] = {
    Status.LOGON_FAILURE: "{server} lets in no guest called {user} (Samba's setting map to guest, Windows' account "
    "Guest); use credentials=FILE, or sec=none to come without a name",
    Status.ACCOUNT_DISABLED: "the account {user} is disabled on {server}, so that it has no guests; use "
    "credentials=FILE, or sec=none to come without a name",
    Status.ACCESS_DENIED: "{server} lets in no guests; use credentials=FILE",
}
AS_NOBODY: Final[dict[int, str]] = {
    Status.LOGON_FAILURE: "{server} lets in nobody without a name (Samba's setting restrict anonymous); use "
    "credentials=FILE, or guest",
    Status.ACCESS_DENIED: "{server} lets in nobody without a name; use credentials=FILE, or guest",
}


def sentence_for(status: int, options: MountOptions) -> str | None:
    """Return the sentence about a login that was refused with `status`."""
    if options.security == "none":
        special = AS_NOBODY
    elif options.guest:
        special = AS_GUEST
    elif options.security == "krb5":
        special = BY_TICKET
    else:
        special = {}
    return special.get(status) or BY_PASSWORD.get(status)


def name_of_user(options: MountOptions) -> str:
    """Return who logs in, in a person's words."""
    login = options.credentials
    if options.security == "none":
        return "nobody in particular"
    if not login.username:
        return "the owner of the tickets"
    return f"{login.domain}\\{login.username}" if login.domain else login.username
