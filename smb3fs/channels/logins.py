"""The logins that a mount may try: what it has, what a file has come to say, and which of two passwords worked last."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

import trio

from smb3fs.channels.mechanisms import KERBEROS, NTLM, Login
from smb3fs.credentials import Credentials, LoginSource
from smb3fs.errors import AuthenticationError, Smb3fsError, Status, StatusError

log = logging.getLogger(__name__)

# By these a server says that another password might do; the others say something about the account.
OTHER_PASSWORD: Final = frozenset(
    {Status.LOGON_FAILURE, Status.WRONG_PASSWORD, Status.PASSWORD_EXPIRED, Status.PASSWORD_MUST_CHANGE}
)


class Logins:
    """Two passwords at most are tried for one session, and one more where the file has changed meanwhile.

    Whoever tries often locks the account: the pauses between attempts are `recovery`'s, and only a file that changed
    shortens them.
    """

    def __init__(self, login: Login, password2: str | None = None, source: LoginSource | None = None) -> None:
        """`login` is what to begin with; `source` makes another one when its file has changed."""
        self._login = login
        self._other = password2
        self._source = source or LoginSource()
        self._stamp = self._source.stamp()
        self.version = 0
        """Counts how often the file was read."""

    @property
    def rotates(self) -> bool:
        """Whether passwords count here at all: tickets are looked up anew for each login anyway."""
        return self._login.security == NTLM or (self._login.security == KERBEROS and bool(self._login.password))

    async def candidates(self) -> AsyncGenerator[Login, None]:
        """What to log in with, one after the other as long as the server says that another password might do."""
        if await self.changed():
            await self.read()
        yield self._login
        if not self.rotates:
            return
        if self._other is not None and self._other != self._login.password:
            yield replace(self._login, password=self._other)
        if await self.changed():
            tried = {self._login.password, self._other}
            await self.read()
            if self._login.password not in tried:
                yield self._login

    def worked(self, login: Login) -> None:
        """Begin with this one the next time."""
        if login.password != self._login.password:
            log.info("the second password of %s is the one that the server takes", login.principal)
            self._login, self._other = login, self._login.password

    async def changed(self) -> bool:
        """Whether the file is another one than was read."""
        if self._source.path is None:
            return False
        stamp = await trio.to_thread.run_sync(self._source.stamp)
        return stamp is not None and stamp != self._stamp

    async def newer_than(self, version: int) -> bool:
        """Whether there is a login that somebody who knows that version has not seen; reads the file if need be."""
        if await self.changed():
            await self.read()
        return self.version > version

    async def read(self) -> None:
        """Read the file again; where that fails, what was known before stays."""
        if self._source.path is None:
            return
        # Taken before the file is read: one that changes meanwhile is read again, one that is wrong is told of once.
        self._stamp = await trio.to_thread.run_sync(self._source.stamp) or self._stamp
        try:
            found, notes = await trio.to_thread.run_sync(self._source.read)
        except (Smb3fsError, OSError) as error:
            log.error("the login stays as it was: %s", error)
            return
        for note in notes:
            log.warning("%s", note)
        self.version += 1
        self._take(found)

    def _take(self, found: Credentials) -> None:
        """Go on with what the file says, beginning with the password that worked where it is still there."""
        first, second = found.password, found.password2
        if second == self._login.password:
            first, second = second, first
        self._login = replace(self._login, username=found.username, domain=found.domain, password=first)
        self._other = second


def asks_for_another(error: BaseException) -> bool:
    """Whether a login failed because of its password."""
    match error:
        case StatusError(command="SESSION_SETUP"):
            return error.status in OTHER_PASSWORD
        case AuthenticationError():
            return error.refused
        case _:
            return False
