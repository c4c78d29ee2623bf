"""The one wall between the program and the kernel: a deadline around every verb, an errno for every exception.

A verb comes in one of three kinds, by the decorator: `answers` (at once, always), `waits` (always a coroutine) and
`may_wait` (its result where it has one, a coroutine where it does not). A fourth, `patient`, is a coroutine without a
deadline, for what waits for other people rather than for the server. To the driver all are `Answer`s, so a verb may
change its kind. What leaves any of them is a result or an OSError with an errno; only cancellation passes, which is the
end of the mount.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, cast

import trio

from smb3fs.errors import Smb3fsError, describe, errno_of
from smb3fs.trace import Trace

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V", bound="Walled")
# What a verb returns: its result, or something to wait for.
Answer: TypeAlias = T | Awaitable[T]

# The same failure of the same verb is told once in this many seconds: a server that is gone fails thousands of calls.
TELL_AGAIN: Final = 30.0


class Walled:
    """What verbs stand on: the time that each may take, and where failures are told."""

    def __init__(self, timeout: float, trace: Trace, *, hard: bool = False) -> None:
        """With `hard` the time is not bounded, until `lose_patience`."""
        self._timeout = timeout
        self._patient: set[trio.CancelScope] | None = set() if hard else None
        self._trace = trace
        self._told: dict[tuple[str, int], float] = {}

    def _as_os_error(self, verb: str, error: Exception) -> OSError:
        """Return the OSError by which the kernel learns of `error`; tell a person what the errno does not say.

        It is always another one: an error that is its own cause, or is in the group that is, keeps what its frames
        hold, buffers of a mebibyte among it, until the collector comes by.
        """
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, trio.TooSlowError):
            number = errno.ETIMEDOUT
            self._tell(verb, number, f"{verb}: no answer within {self._timeout:g} seconds")
        elif isinstance(error, OSError) and error.errno is not None:
            return OSError(error.errno, error.strerror)
        elif isinstance(error, Smb3fsError):
            number = errno_of(error)
            if number == errno.EIO:
                self._tell(verb, number, f"{verb}: {describe(error)}")
        else:
            number = errno_of(error)
            log.error("%s failed for a reason that nobody foresaw", verb, exc_info=error)
        return OSError(number, os.strerror(number))

    def _tell(self, verb: str, number: int, text: str) -> None:
        """Remember a failure and log it, unless the like was told just now."""
        now = time.monotonic()
        if now - self._told.get((verb, number), -TELL_AGAIN) >= TELL_AGAIN:
            self._told[verb, number] = now
            self._trace.error(time.time(), text)

    async def _bounded(self, verb: str, answer: Awaitable[T]) -> T:
        """Wait for a verb's answer as long as the mount allows."""
        try:
            if self._patient is not None:
                return await self._patiently(answer, self._patient)
            # What trio.fail_after does, at half the price.
            with trio.CancelScope(deadline=trio.current_time() + self._timeout):
                return await answer
            raise trio.TooSlowError
        except Exception as error:
            raise self._as_os_error(verb, error) from error

    async def _patiently(self, answer: Awaitable[T], patient: set[trio.CancelScope]) -> T:
        """Wait for a verb's answer for as long as it takes."""
        with trio.CancelScope() as scope:
            patient.add(scope)
            try:
                return await answer
            finally:
                patient.discard(scope)
        raise trio.TooSlowError

    def lose_patience(self) -> None:
        """Bound what runs, and what will, by the time that verbs have without `hard`: the mount is to end."""
        patient, self._patient = self._patient or set(), None
        for scope in patient:
            scope.deadline = trio.current_time() + self._timeout


def waits(
    verb: Callable[Concatenate[V, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[V, P], Answer[T]]:
    """Make a verb of a coroutine function."""
    name = verb.__name__

    @functools.wraps(verb)
    def walled(self: V, /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        self._trace.operations += 1
        return self._bounded(name, verb(self, *args, **kwargs))

    return walled


def patient(
    verb: Callable[Concatenate[V, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[V, P], Answer[T]]:
    """Make a verb of a coroutine function that takes as long as it takes."""
    name = verb.__name__

    async def unbounded(self: V, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except Exception as error:
            raise self._as_os_error(name, error) from error

    @functools.wraps(verb)
    def walled(self: V, /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        self._trace.operations += 1
        return unbounded(self, verb(self, *args, **kwargs))

    return walled


def answers(verb: Callable[Concatenate[V, P], T]) -> Callable[Concatenate[V, P], Answer[T]]:
    """Make a verb of a function that never waits."""
    name = verb.__name__

    @functools.wraps(verb)
    def walled(self: V, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._trace.operations += 1
        try:
            return verb(self, *args, **kwargs)
        except Exception as error:
            raise self._as_os_error(name, error) from error

    return walled


def may_wait(verb: F) -> F:
    """Make a verb of a function that returns its result or a coroutine."""
    name = verb.__name__

    @functools.wraps(verb)
    def walled(self: Walled, /, *args: Any, **kwargs: Any) -> Any:
        self._trace.operations += 1
        try:
            answer = verb(self, *args, **kwargs)
        except Exception as error:
            raise self._as_os_error(name, error) from error
        if isinstance(answer, CoroutineType):
            return self._bounded(name, answer)
        return answer

    return cast(F, walled)


async def settle(answer: Answer[T]) -> T:
    """Return a verb's result, waiting for it if need be."""
    if isinstance(answer, CoroutineType):
        return cast(T, await answer)
    return cast(T, answer)
