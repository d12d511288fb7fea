"""Limits the memory that a process spends on its clients: one budget for all that it holds for them.

A limit per request does not bound a hundred concurrent requests. So code that is about to hold bytes for a client
counts them first; if they do not fit, the request is refused with 503 `overloaded`. At its end all are given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from sys import getsizeof
from types import TracebackType
from typing import Self

from servicekit.wire.errors import Overloaded, TooLarge

MIB = 1024 * 1024
#: Only requests for at most this many bytes may use the last part of a budget: large ones do not shut them out.
SMALL = 64 * 1024
_FOR_SMALL = 8  # an eighth


class Budget:
    """At most `limit` bytes at a time. Thread-safe.

    `add`, for a budget of several processes, adds to what this one has taken and returns the sum of all.
    """

    def __init__(self, limit: int, add: Callable[[int], int] | None = None) -> None:
        self.limit = limit
        #: The most that one request may take in total.
        self.largest = limit - limit // _FOR_SMALL
        self._taken = 0
        self._add = add or self._add_alone
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        with self._lock:
            return self._add(0)

    def account(self) -> Account:
        """An account for one request."""
        return Account(self)

    def _take(self, size: int, so_far: int, *, refusing: bool) -> None:
        whole = so_far + size
        if refusing and whole > self.largest:
            raise TooLarge("The request needs more memory than one may have: ask or send in smaller parts.")
        limit = self.limit if whole <= SMALL else self.largest
        with self._lock:
            if self._add(size) > limit and refusing:
                self._add(-size)
                raise Overloaded("There is no memory for a request of this size at the moment; try again.")

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._add(-size)

    def _add_alone(self, size: int) -> int:
        self._taken += size
        return self._taken


class Account:
    """What one request has taken of a budget. A context manager that gives all of it back."""

    __slots__ = ("_budget", "_refusing", "taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._refusing = True
        self.taken = 0

    def take(self, size: int) -> None:
        """Count bytes about to be held; raises `Overloaded` when others hold too many, `TooLarge` when this request
        alone would."""
        self._budget._take(size, self.taken, refusing=self._refusing)
        self.taken += size

    def refuse_nothing(self) -> None:
        """From now on only count: the request was processed, and its client must learn the outcome."""
        self._refusing = False

    def give_back(self, size: int) -> None:
        """Give back some of what was taken."""
        self.taken -= size
        self._budget._give_back(size)

    def close(self) -> None:
        """Give back everything taken; idempotent."""
        size, self.taken = self.taken, 0
        if size:
            self._budget._give_back(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


_present: ContextVar[Account | None] = ContextVar("memory", default=None)


class counted_in:
    """Make `take` count in the account of the request handled in the `with` body. A class, as in `request_id`."""

    __slots__ = ("_account", "_token")

    def __init__(self, account: Account) -> None:
        self._account = account

    def __enter__(self) -> Account:
        self._token: Token[Account | None] = _present.set(self._account)
        return self._account

    def __exit__(self, *_: object) -> None:
        _present.reset(self._token)


def taken() -> int:
    """Bytes counted so far for the current request."""
    account = _present.get()
    return 0 if account is None else account.taken


def take(size: int) -> None:
    """Count bytes for the current request, as `Account.take` does; outside a request nothing is counted."""
    account = _present.get()
    if account is not None:
        account.take(size)


def take_written(*texts: str) -> None:
    """Count JSON that is about to be sent: it is held twice as text, and twice in UTF-8, which may take twice that."""
    take(6 * sum(map(getsizeof, texts)))
