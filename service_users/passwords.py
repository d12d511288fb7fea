"""Hashes passwords one at a time: hashing is slow on purpose, and other requests must not wait for it."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.profiles import RFC_9106_LOW_MEMORY

from service_users.errors import TooManyPasswords
from servicekit.process.siblings import Turn
from servicekit.wire import deadline

#: How long a password may wait for its turn, in seconds.
WAIT_SECONDS = 1.0


class Passwords:
    """One hash at a time, in all processes together: each takes 64 MiB, about 50 ms and four threads (RFC 9106, second
    recommended option).

    `places` is the most requests of a process that may hash or wait. Each occupies a thread, so it must be well below
    their number. Never hash inside a transaction: its connection would wait too.
    """

    def __init__(self, *, places: int) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._places = threading.BoundedSemaphore(places)
        self._turn = Turn()

    def hash(self, password: str) -> str:
        """Return the hash. Raises `TooManyPasswords` if too many wait or for too long, and `DeadlineExceeded`."""
        if not self._places.acquire(blocking=False):
            raise TooManyPasswords
        try:
            wait = deadline.remaining(WAIT_SECONDS)
            if not self._turn.acquire(timeout=wait):
                deadline.remaining(wait)  # raises if the request's own time is over
                raise TooManyPasswords
            try:
                return self._hasher.hash(password)
            finally:
                self._turn.release()
        finally:
            self._places.release()
