"""HTTP calls between services, within a circuit and the request's deadline, with errors translated once."""

from __future__ import annotations

import functools
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.exceptions import HTTPError as Urllib3Error

from servicekit.circuits import MISDIRECTED, Circuit, CircuitOpen, Permit, outcome_of
from servicekit.observing import request_id
from servicekit.observing.shortage import is_shortage, report
from servicekit.wire import deadline
from servicekit.wire.envelope import Envelope, NotAnEnvelope, read_envelope
from servicekit.wire.errors import BadGateway, DeadlineExceeded, NotFound, Overloaded, Unavailable
from servicekit.wire.resolver import Resolver, says_little

#: How long connecting may take, over all addresses of a service, in seconds.
_CONNECT_SECONDS = 1.0
ANSWER_LIMIT = 4 * 1024 * 1024
#: A service that had less time than this is not to blame for a missing answer, in seconds.
FAIR_SECONDS = 1.0
_CHUNK = 64 * 1024


class _DeadlineSocket(socket.socket):
    """A socket whose timeout covers all reads together, however slowly status line, fields and body trickle in.

    http.client reads through `recv_into`; a plain timeout would restart with every byte.
    """

    _ends_at = math.inf

    def settimeout(self, value: float | None, /) -> None:
        self._ends_at = math.inf if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        super().settimeout(left if left < math.inf else None)
        return super().recv_into(*args, **kwargs)


@functools.cache
def _resolver_of(host: str, port: int) -> Resolver:
    return Resolver(host, port)


def _connect(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to the first address that answers; an unresponsive one leaves the others their share of the time."""
    ends_at = time.monotonic() + seconds
    resolver = _resolver_of(host, port)
    addresses = resolver.find_within(seconds)
    errors: list[OSError] = []
    for tried, address in enumerate(addresses):
        share = (ends_at - time.monotonic()) / (len(addresses) - tried)
        try:
            connected = socket.create_connection((address.host, port), timeout=max(share, 0.001))
        except OSError as exc:
            errors.append(exc)
            if not is_shortage(exc):
                resolver.failed(address)
        else:
            resolver.answered(address)
            return connected
    # The host may have moved.
    resolver.renew()
    raise min(errors, key=says_little)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        assert isinstance(self.timeout, float)  # every call has one
        try:
            connected = _connect(self._dns_host, self.port, self.timeout)
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s") from exc
        except (OSError, UnicodeError) as exc:
            raise NewConnectionError(self, f"no connection to {self.host}: {exc}") from exc
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _DeadlineSocket(fileno=connected.detach())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsConnection(_Connection, HTTPSConnection):
    """Over TLS each read has the whole timeout, because wrapping replaces the socket."""


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """requests' adapter for one service.

    What requests does anew for each call takes longer than the call, so the pool is looked up once, and of an answer
    nothing is made but its status and its body.
    """

    def __init__(self, origin: str, pool_size: int) -> None:
        super().__init__(pool_maxsize=pool_size, pool_block=True, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        self._origin = origin
        self._pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **options)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return str(request.url).removeprefix(self._origin)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = resp.status
        answer.raw = resp
        return answer


class ServiceClient:
    """A client for one other service. Thread-safe.

    `pool_size` limits the connections, and so the threads that may call at once. `unavailable` is the error for a
    service that cannot be reached, is too slow, or whose circuit is open. `total_seconds` limits a whole call; over
    https:// it limits each read.
    """

    def __init__(
        self, base_url: str, *, circuit: Circuit, unavailable: type[Unavailable], pool_size: int, total_seconds: float
    ) -> None:
        base = requests.Request("GET", base_url).prepare()
        self._base_url = str(base.url).rstrip("/")
        self._circuit = circuit
        self._unavailable = unavailable
        self._total_seconds = total_seconds
        # Without a session: it follows no redirects, keeps no cookies and reads no environment.
        self._adapter = _Adapter(str(base.url).removesuffix(base.path_url), pool_size)
        #: The certificates to trust: those of a file, as for whatever else speaks TLS, or those of requests.
        self._trusted: bool | str = os.environ.get("SSL_CERT_FILE") or True

    def get(self, path: str, *, token: str = "") -> Any | None:
        """GET a path; returns the envelope's data, or None for a 404. `token` is that of whoever caused the call.

        Raises the `unavailable` error, `BadGateway` for an unusable answer (no envelope, or an unknown path),
        `DeadlineExceeded` when the request's own time is over, and `Overloaded` when this process is out of files,
        ports or memory.
        """
        answer = self._ask("GET", path, None, {"Authorization": f"Bearer {token}"} if token else {})
        if answer.code is None:
            return answer.data
        if answer.status == 404:
            if answer.code == NotFound.code:
                raise BadGateway("A service behind this one does not know the address it was asked for.")
            return None
        raise self._unavailable(retry_after=1)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Envelope:
        """POST a body that the service may receive twice: a broken connection is replaced once.

        Returns every answer about this request: successes, refusals, and a 500. Raises as `get` does.
        """
        return self._ask("POST", path, body, headers)

    def document(self, path: str) -> bytes:
        """GET a document that has no envelope, unread. Raises as `get` does, also for a 404."""
        status, raw, permit, seconds = self._send("GET", path, None, {})
        if status == 200:
            permit.success(seconds)
            return raw
        self._judge(status, raw, permit, seconds)
        raise self._unavailable(retry_after=1)

    def plain(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Ask a server that speaks no envelope, and may receive the request twice; returns status and body, unread.

        Raises the `unavailable` error, also for a 429 or a status from 500 on, `DeadlineExceeded` and `Overloaded`, as
        `get` does.
        """
        status, raw, permit, seconds = self._send(method, path, body, headers)
        if status < 500 and status != 429:
            permit.success(seconds)
            return status, raw
        if status == 429:
            permit.neutral()
        else:
            permit.failure(seconds, f"status {status}")
        raise self._unavailable(retry_after=1)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Envelope:
        return self._judge(*self._send(method, path, body, headers))

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, Permit, float]:
        """Status and body of the answer, the permit to settle, and how many seconds it took."""
        left = deadline.remaining(self._total_seconds)
        try:
            permit = self._circuit.acquire()
        except CircuitOpen as exc:
            raise self._unavailable(retry_after=exc.retry_in) from exc
        began = time.monotonic()
        try:
            status, raw = self._exchange(method, path, body, headers, began + left)
        except (requests.RequestException, Urllib3Error, OSError) as exc:
            refused = next((one for one in _chain(exc) if is_shortage(one)), None)
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
        return status, raw, permit, time.monotonic() - began

    def close(self) -> None:
        self._adapter.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], ends_at: float
    ) -> tuple[int, bytes]:
        try:
            return self._once(method, path, body, headers, ends_at)
        except requests.ConnectionError as exc:
            if isinstance(exc, requests.Timeout) or any(isinstance(one, NewConnectionError) for one in _chain(exc)):
                raise
            # A kept connection may have been closed as we wrote to it: repeating the request on a fresh one is safe for
            # a GET (RFC 9110 section 9.2.2) and for a POST that allows it, and happens only once.
            return self._once(method, path, body, headers, ends_at)

    def _once(
        self, method: str, path: str, body: bytes | None, more_headers: Mapping[str, str], ends_at: float
    ) -> tuple[int, bytes]:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise requests.Timeout("no time left")
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, self._base_url + path, body
        fields = {
            **more_headers,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            request_id.REQUEST_ID: request_id.accept_or_make(request_id.current_request_id()),
            deadline.TIMEOUT_MS: str(int(left * 1000)),
        }
        if body is not None:
            fields["Content-Length"] = str(len(body))
        request.headers = requests.structures.CaseInsensitiveDict(fields)
        # It accepts Timeout too, despite its types; `total` covers connecting and reading together.
        timeout: Any = Timeout(total=left, connect=min(_CONNECT_SECONDS, left))
        with self._adapter.send(request, stream=True, timeout=timeout, verify=self._trusted) as response:
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


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: requests and urllib3 wrap the system's errors."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _read(response: requests.Response, ends_at: float) -> bytes:
    """Read the body piece by piece, up to `ANSWER_LIMIT` bytes."""
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
