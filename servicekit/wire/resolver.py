"""Resolves the addresses of a host, and loads the certificates that clients trust.

Each host is looked up on a thread of its own, and the answer is cached.

The system's look-ups share one pool of threads and cannot be stopped: with an unresponsive name server, those of one
host would soon hold up all others.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, zip_longest

from servicekit.observing.logs import get_logger
from servicekit.observing.shortage import is_shortage

#: How long an answer is used without another look-up, in seconds; the system reports no time to live.
FRESH_SECONDS = 5.0
#: How long to wait for a look-up while an older answer is available, in seconds.
LOOK_UP_SECONDS = 0.25
#: Seconds between the starts of two look-ups, while there is an answer.
PAUSE_SECONDS = 1.0
#: How long an address that did not answer is tried last, in seconds.
AVOID_SECONDS = 30.0

_log = get_logger(__name__)
_NO_WAY_THERE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A numeric address."""

    family: socket.AddressFamily
    host: str


#: Returns a host's addresses, best first. Raises OSError, or UnicodeError for an impossible name. May take any time.
ResolveHost = Callable[[str, int], Sequence[HostAddress]]
LookUp = Future[list[HostAddress]]


def system_resolve(host: str, port: int) -> list[HostAddress]:
    """Ask the system; the order is that of RFC 6724."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [HostAddress(family, str(to[0]) + _scope(to)) for family, _, _, _, to in found]


class Resolver:
    """Knows the addresses of one host. Thread-safe; at most one look-up runs at a time.

    A numeric address needs no look-up, and `localhost` is this machine whatever a name server says (RFC 6761 section
    6.3).
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        resolve: ResolveHost = system_resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._port = port
        self._resolve = resolve
        self._clock = clock
        self._lock = threading.Lock()
        self._known = _without_look_up(host)
        #: It keeps the addresses it was created with.
        self.fixed = bool(self._known)
        self._answered_at = -math.inf
        self._began_at = -math.inf
        self._look_up: LookUp | None = None
        self._fails = False
        self._avoided: dict[HostAddress, float] = {}

    def addresses(self) -> tuple[list[HostAddress], LookUp | None, float]:
        """The last answer, in the order to try; a look-up that may give a newer one; and how long that is worth waiting
        for, in seconds (infinity without an answer so far)."""
        if self.fixed:
            return self._ordered(), None, 0.0
        with self._lock:
            now = self._clock()
            if now - self._answered_at < FRESH_SECONDS:
                return self._ordered(), None, 0.0
            look_up = self._begin(now, at_once=not self._known)
            left = self._began_at + LOOK_UP_SECONDS - now if self._known else math.inf
            return self._ordered(), look_up if left > 0 else None, max(left, 0.0)

    @property
    def known(self) -> bool:
        """Whether there was an answer."""
        return bool(self._known)

    async def find(self) -> list[HostAddress]:
        """The addresses in the order to try; without any yet, waits without a limit. Raises like `ResolveHost`."""
        known, begun, patience = self.addresses()
        if begun is None:
            return known
        look_up = asyncio.wrap_future(begun)
        try:
            await asyncio.wait([look_up], timeout=None if patience == math.inf else patience)
            if known and (not look_up.done() or look_up.exception() is not None):
                return known
            return look_up.result()
        finally:
            look_up.cancel()

    def find_within(self, seconds: float) -> list[HostAddress]:
        """The same for a thread; raises TimeoutError if there is no answer in time."""
        known, begun, patience = self.addresses()
        try:
            return known if begun is None else begun.result(min(patience, seconds))
        except Exception:
            if known:
                return known
            raise

    def renew(self) -> LookUp | None:
        """Look up again, since no address answers; None if that was done just now."""
        if self.fixed:
            return None
        with self._lock:
            return self._begin(self._clock())

    def failed(self, address: HostAddress) -> None:
        """Try this address last for a while."""
        with self._lock:
            self._avoided[address] = self._clock() + AVOID_SECONDS

    def answered(self, address: HostAddress) -> None:
        """Undo `failed`."""
        with self._lock:
            self._avoided.pop(address, None)

    def _ordered(self) -> list[HostAddress]:
        if not self._avoided:
            return list(self._known)
        now = self._clock()
        return sorted(self._known, key=lambda address: self._avoided.get(address, 0.0) > now)

    def _begin(self, now: float, *, at_once: bool = False) -> LookUp | None:
        """The look-up in progress, or a new one unless the last has only just begun. The caller holds the lock."""
        if self._look_up is None:
            if now - self._began_at < PAUSE_SECONDS and not at_once:
                return None
            self._began_at = now
            look_up = self._look_up = LookUp()
            # A waiter may leave, and must not cancel it for the others.
            look_up.set_running_or_notify_cancel()
            # A daemon, because it cannot be stopped, and the process must be able to exit.
            thread = threading.Thread(target=self._run, args=(look_up,), name=f"look-up of {self._host}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._look_up = None
                look_up.set_exception(OSError(errno.ENOMEM, str(error)))
            return look_up
        return self._look_up

    def _run(self, look_up: LookUp) -> None:
        try:
            found = _interleaved(self._resolve(self._host, self._port))
        except Exception as error:  # reported to those who wait
            with self._lock:
                self._look_up = None
                first, self._fails = not self._fails, True
            if first and self._known:
                _log.warning("look_up_failed", host=self._host, cause=repr(error))
            look_up.set_exception(error)
            return
        with self._lock:
            self._look_up = None
            self._fails = False
            self._known = found
            self._answered_at = self._clock()
            self._avoided = {address: until for address, until in self._avoided.items() if address in found}
        look_up.set_result(found)


_trust: ssl.SSLContext | None = None


def system_trust() -> ssl.SSLContext:
    """The context for clients: the system's certificates, and those of SSL_CERT_FILE.

    Created once, because reading them takes tens of milliseconds.
    """
    global _trust
    # Without a free file it silently reads none: try again then.
    if _trust is None or not _trust.cert_store_stats()["x509_ca"]:
        _trust = ssl.create_default_context()
    return _trust


def says_little(error: BaseException | None) -> int:
    """Rank a connection error, most telling first: failed TLS, a refusal, a shortage here, unreachable."""
    if isinstance(error, ssl.SSLError):
        return 0
    if isinstance(error, OSError) and error.errno in _NO_WAY_THERE:
        return 3
    return 2 if is_shortage(error) else 1


def _scope(to: Sequence[object]) -> str:
    # A link-local IPv6 address is only valid on one interface.
    return f"%{to[3]}" if len(to) == 4 and to[3] else ""


def _without_look_up(host: str) -> list[HostAddress]:
    if host == "localhost":
        return [HostAddress(socket.AF_INET, "127.0.0.1"), HostAddress(socket.AF_INET6, "::1")]
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return []
    return [HostAddress(socket.AF_INET if version == 4 else socket.AF_INET6, host)]


def _interleaved(addresses: Sequence[HostAddress]) -> list[HostAddress]:
    """The families in turn, starting with that of the first address (RFC 8305 section 4)."""
    found = list(dict.fromkeys(addresses))
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the host has no address")
    first = [address for address in found if address.family == found[0].family]
    others = [address for address in found if address.family != found[0].family]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]
