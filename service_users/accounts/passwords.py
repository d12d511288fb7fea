"""Hashes few passwords at a time: hashing is slow on purpose, and other requests must not wait for it."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic
from typing import TypeVar

from service_users.errors import TooManyPasswords
from servicekit.process.siblings import Turn
from servicekit.wire import deadline

#: How long a password may wait for its turn, in seconds; below: one to log in with from a known device.
WAIT_SECONDS = 1.0
_WAIT_SECONDS_OF_KNOWN = 3.0
#: How long a wrong password makes us suppose that more will come.
_WARY_SECONDS = 2.0
#: How long what they send waits for a core that nobody wants, before it is hashed like others.
_IDLE_SECONDS = 0.5
#: As `nice` has it: whoever else wants a core gets nine tenths of it.
_NICENESS = 10
#: Of argon2id: RFC 9106, second recommended option, but for its four lanes: whoever guesses has more cores to spare for
#: them than we, and the library waits for ever where two hashes of several lanes share its threads.
_MEMORY_KIB, _ITERATIONS, _LANES, _SALT, _LENGTH = 65_536, 3, 1, 16, 32
_one_of_many_lanes = Lock()

T = TypeVar("T")


class Passwords:
    """In all processes together one login at a time, and one of whoever has shown something else as well, such as a
    known device, a session or a link: each takes 64 MiB and 100 ms of a core. One that found no core in time may still
    be there besides.

    `places` is the most requests of a process that may hash or wait. Each occupies a thread, so it must be well below
    their number. One more is for the latter, whom those who guess can therefore not keep out. For a while after a
    wrong password, logins wait at first for a core that nobody wants. Never hash inside a transaction: its connection
    would wait too.
    """

    def __init__(self, *, places: int) -> None:
        self._of_nobody = _hash_of_nothing()
        self._places, self._place_of_known = SimpleQueue[None](), SimpleQueue[None]()
        for free in (*[self._places] * places, self._place_of_known):
            free.put(None)
        self._turn, self._turn_of_known = Turn(0), Turn(1)
        self._wary_until = 0.0
        # Each has its own, as no thread may take a higher priority than it has.
        self._thread_of_known = ThreadPoolExecutor(1, "passwords")
        self._thread = ThreadPoolExecutor(1, "logins", _give_way)
        self._last_thread = ThreadPoolExecutor(1, "guesses", _give_way_to_all)

    def require_place(self) -> None:
        """Raise `TooManyPasswords` if only a known device would find a place."""
        if self._places.empty():
            raise TooManyPasswords

    def hash(self, password: str) -> str:
        """Return the hash. Raises `TooManyPasswords` if too many wait or for too long, and `DeadlineExceeded`."""
        return self._in_turn(lambda: hash_now(password), True, WAIT_SECONDS)

    def verify(
        self,
        stored: str | None,
        password: str,
        *,
        is_known: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Whether this is the password of a stored hash. Without one it takes as long, and is not. Raises as `hash`.

        `before` is called with a place and before the turn, and may raise; `is_known` is for a known device."""
        wanted = stored or self._of_nobody
        longest = _WAIT_SECONDS_OF_KNOWN if is_known else WAIT_SECONDS
        is_right = self._in_turn(lambda: verify_now(wanted, password), is_known, longest, before) and stored is not None
        if not is_right:
            self._wary_until = monotonic() + _WARY_SECONDS
        return is_right

    def _in_turn(
        self, work: Callable[[], T], is_known: bool, longest: float, before: Callable[[], None] = lambda: None
    ) -> T:
        free = (self._places, self._place_of_known) if is_known else (self._places,)
        place = next((one for one in free if _taken(one)), None)
        if place is None:
            raise TooManyPasswords
        try:
            before()
            turn = self._turn_of_known if is_known else self._turn
            wait = deadline.remaining(longest)
            if not turn.acquire(timeout=wait):
                deadline.remaining(wait)  # raises if the request's own time is over
                raise TooManyPasswords
            try:
                if is_known:
                    return self._thread_of_known.submit(work).result()
                if monotonic() < self._wary_until:
                    hashed = self._last_thread.submit(work)
                    with suppress(TimeoutError):
                        return hashed.result(_IDLE_SECONDS)
                    hashed.cancel()
                return self._thread.submit(work).result()
            finally:
                turn.release()
        finally:
            place.put(None)


def _taken(place: SimpleQueue[None]) -> bool:
    try:
        place.get_nowait()
    except Empty:
        return False
    return True


# Only on Linux is it not the whole process whose priority changes.


def _give_way() -> None:
    """Let others go before this thread."""
    if sys.platform == "linux":
        os.nice(_NICENESS)


def _give_way_to_all() -> None:
    """Take a core only while no other thread of this session or container wants it, and leave it at once."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def hash_now(password: str) -> str:
    """The hash, in the form of RFC 9106, section 4."""
    # Whoever hashes no password need not load the library.
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    return Argon2id(
        salt=os.urandom(_SALT), length=_LENGTH, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB
    ).derive_phc_encoded(password.encode())


def verify_now(stored: str, password: str) -> bool:
    """Whether this is the password of a stored hash."""
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    with nullcontext() if f",p={_LANES}$" in stored else _one_of_many_lanes:
        try:
            Argon2id.verify_phc_encoded(password.encode(), stored)
        except InvalidKey:
            return False
    return True


def _hash_of_nothing() -> str:
    """A hash that no password has, and that takes as long to try as any other."""
    salt, digest = (base64.b64encode(os.urandom(length)).decode("ascii").rstrip("=") for length in (_SALT, _LENGTH))
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_ITERATIONS},p={_LANES}${salt}${digest}"
