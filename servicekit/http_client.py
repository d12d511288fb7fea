"""Calls between services: inside a circuit, inside the request's deadline, errors translated once."""

from __future__ import annotations

import functools
import math
import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.exceptions import HTTPError as Urllib3Error

from servicekit.circuits import MISDIRECTED, Circuit, CircuitOpen, Permit, outcome_of
from servicekit.observing import request_id
from servicekit.observing.shortage import is_shortage, report
from servicekit.wire import deadline
from servicekit.wire.envelope import Envelope, NotAnEnvelope, read_envelope
from servicekit.wire.errors import BadGateway, DeadlineExceeded, NotFound, Overloaded, Unavailable
from servicekit.wire.resolver import Resolver, says_little

CONNECT_SECONDS = 1.0
ANSWER_LIMIT = 4 * 1024 * 1024
#: A service that was given less than this to answer in is not to blame for a missing answer, in seconds.
FAIR_SECONDS = 1.0
_CHUNK = 64 * 1024
_call_ends_at: ContextVar[float] = ContextVar("call_ends_at", default=math.inf)


class _DeadlineSocket(socket.socket):
    """A socket whose reads all end at one moment, however slowly status line, fields and body drip in.

    http.client reads through `recv_into`; a plain time limit would start anew with every byte.
    """

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = _call_ends_at.get() - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if left < math.inf:
            self.settimeout(left)
        return super().recv_into(*args, **kwargs)


@functools.cache
def _resolver_of(host: str, port: int) -> Resolver:
    return Resolver(host, port)


class _NamedConnection(HTTPConnection):
    """Looks its host up by a `Resolver`, which takes no longer than it may, and tries one address after the other."""

    def _new_conn(self) -> socket.socket:
        host, limit = self._dns_host, self.timeout
        assert isinstance(limit, float)  # every call has one
        ends_at = time.monotonic() + limit
        resolver = _resolver_of(host, self.port)
        try:
            addresses = resolver.find_within(limit)
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"no address of {host} within {limit} s") from exc
        except (socket.gaierror, UnicodeError) as exc:
            raise NameResolutionError(host, self, exc) from exc  # type: ignore[arg-type]  # only its text is used
        except OSError as exc:
            raise NewConnectionError(self, f"cannot look up {host}: {exc}") from exc
        errors: list[ConnectTimeoutError | NewConnectionError] = []
        try:
            for tried, address in enumerate(addresses):
                self._dns_host = address.host
                # A silent one leaves the others their share.
                self.timeout = max((ends_at - time.monotonic()) / (len(addresses) - tried), 0.001)
                try:
                    connected = super()._new_conn()
                except (ConnectTimeoutError, NewConnectionError) as exc:
                    errors.append(exc)
                    if not is_shortage(exc.__cause__):
                        resolver.failed(address)
                else:
                    resolver.answered(address)
                    return connected
        finally:
            self._dns_host, self.timeout = host, limit
        # Perhaps it has moved.
        resolver.renew()
        raise min(errors, key=lambda exc: says_little(exc.__cause__))


class _Connection(_NamedConnection):
    def connect(self) -> None:
        super().connect()
        plain = self.sock
        timeout = plain.gettimeout()
        self.sock = _DeadlineSocket(fileno=plain.detach())
        self.sock.settimeout(timeout)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsConnection(_NamedConnection, HTTPSConnection):
    pass


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _Session(requests.Session):
    """Takes nothing from the environment, keeps no cookie, and has no notion of a redirect."""

    def __init__(self, pool_size: int) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=pool_size, pool_block=True, max_retries=0))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Give none: even with allow_redirects=False requests would read the whole body to prepare the next step."""


class ServiceClient:
    """Asks one other service. Thread-safe.

    `pool_size` is the most connections kept open: the number of threads that may ask at once.
    `unavailable` is the error for a service that cannot be reached, is too slow or whose circuit is open.
    `total_seconds` bounds a whole call; over https:// each read has that limit of its own.
    """

    def __init__(
        self, base_url: str, *, circuit: Circuit, unavailable: type[Unavailable], pool_size: int, total_seconds: float
    ) -> None:
        self._base_url = base_url
        self._circuit = circuit
        self._unavailable = unavailable
        self._total_seconds = total_seconds
        self._session = _Session(pool_size)

    def get(self, path: str) -> Any | None:
        """GET a path; give the envelope's data, or None when the service says 404.

        Raises the `unavailable` error, `BadGateway` for an answer that cannot be used (no envelope, or a
        service that knows no such address), `DeadlineExceeded` when the request's own time is over, and `Overloaded`
        when this process has run out of files, ports or memory.
        """
        answer = self._ask("GET", path, None, {})
        if answer.code is None:
            return answer.data
        if answer.status == 404:
            if answer.code == NotFound.code:
                raise BadGateway("A service behind this one does not know the address it was asked for.")
            return None
        raise self._unavailable(retry_after=1)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Envelope:
        """POST a body that the service may get twice: a connection that breaks is replaced once.

        Gives every answer that is about this request: good ones, refusals, and a 500. Raises as `get` does.
        """
        return self._ask("POST", path, body, headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Envelope:
        left = deadline.remaining(self._total_seconds)
        try:
            permit = self._circuit.acquire()
        except CircuitOpen as exc:
            raise self._unavailable(retry_after=exc.retry_in) from exc
        began = time.monotonic()
        token = _call_ends_at.set(began + left)
        try:
            status, raw = self._exchange(method, path, body, headers, began + left)
        except (requests.RequestException, Urllib3Error, OSError) as exc:
            refused = _shortage_in(exc)
            if refused is not None:
                permit.neutral()
                report(refused, at=self._circuit.name)
                raise Overloaded from exc
            seconds = time.monotonic() - began
            hurried = left < self._total_seconds and seconds >= left
            if hurried and left < FAIR_SECONDS:
                permit.neutral()
            else:
                permit.failure(seconds, type(exc).__name__)
            if hurried:
                raise DeadlineExceeded from exc
            raise self._unavailable(retry_after=1) from exc
        except BaseException:
            permit.neutral()
            raise
        finally:
            _call_ends_at.reset(token)
        return self._judge(status, raw, permit, time.monotonic() - began)

    def close(self) -> None:
        """Close every kept connection."""
        self._session.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], ends_at: float
    ) -> tuple[int, bytes]:
        try:
            return self._once(method, path, body, headers, ends_at)
        except requests.ConnectionError as exc:
            if isinstance(exc, requests.Timeout) or _never_connected(exc):
                raise
            # A kept connection may have been closed as we wrote to it: asking again on a fresh one is safe for a GET
            # (RFC 9110 9.2.2) and for a POST that says so, and done once only.
            return self._once(method, path, body, headers, ends_at)

    def _once(
        self, method: str, path: str, body: bytes | None, more_headers: Mapping[str, str], ends_at: float
    ) -> tuple[int, bytes]:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise requests.Timeout("no time left")
        headers = {
            **more_headers,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            request_id.REQUEST_ID: request_id.accept_or_make(request_id.current_request_id()),
            deadline.TIMEOUT_MS: str(int(left * 1000)),
        }
        with self._session.request(
            method,
            self._base_url + path,
            data=body,
            headers=headers,
            timeout=(min(CONNECT_SECONDS, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            return response.status_code, _read(response, ends_at)

    def _judge(self, status: int, raw: bytes, permit: Permit, seconds: float) -> Envelope:
        try:
            if status == MISDIRECTED:
                raise NotAnEnvelope("it is not known by the name we ask it by: see its ALLOWED_HOSTS")
            answer = read_envelope(status, raw)
        except NotAnEnvelope as exc:
            permit.failure(seconds, "not an envelope")
            raise BadGateway from exc
        outcome = outcome_of(status, self._circuit.name, answer.code)
        if outcome == "neutral":
            permit.neutral()
        elif outcome == "failure":
            permit.failure(seconds, f"status {status}")
        else:
            permit.success(seconds)
        if answer.code == DeadlineExceeded.code:
            raise DeadlineExceeded
        if status == 429 or status > 500:
            raise self._unavailable(retry_after=1)
        return answer


def _never_connected(exc: requests.ConnectionError) -> bool:
    return any(isinstance(getattr(cause, "reason", None), NewConnectionError) for cause in exc.args)


def _shortage_in(exc: BaseException | None) -> OSError | None:
    """The refusal of the system beneath the errors of requests and urllib3, if that is what it was."""
    while exc is not None:
        if isinstance(exc, OSError) and is_shortage(exc):
            return exc
        # requests tells urllib3's error as an argument, and that has a reason, which may be a word.
        told = (exc.__cause__, getattr(exc, "reason", None), *exc.args[:1])
        exc = next((one for one in told if isinstance(one, BaseException)), None)
    return None


def _read(response: requests.Response, ends_at: float) -> bytes:
    """Read the body piece by piece, at most `ANSWER_LIMIT` bytes of it."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.raw.read1(_CHUNK):
        size += len(piece)
        if size > ANSWER_LIMIT:
            raise requests.exceptions.ContentDecodingError("the answer is too large")
        if time.monotonic() >= ends_at:
            raise requests.Timeout("the answer took too long")
        pieces.append(piece)
    return b"".join(pieces)
