"""Calls between services: inside a circuit, inside the request's deadline, errors translated once."""

from __future__ import annotations

import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as Urllib3Error

from servicekit import deadline, request_id
from servicekit.circuits import Circuit, CircuitOpen, Permit
from servicekit.errors import AppError, BadGateway, DeadlineExceeded, Unavailable
from servicekit.json_reader import read_json

CONNECT_SECONDS = 1.0
ANSWER_LIMIT = 4 * 1024 * 1024
_CHUNK = 64 * 1024
# Codes of an enveloped 5xx that blame something behind the service asked: no fault of its own.
_BLAMES_OTHERS = frozenset({"deadline_exceeded"})


class ServiceClient:
    """Asks one other service. Thread-safe.

    `pool_size` is the most connections kept open: the number of threads that may ask at once.
    `unavailable` is the error for a service that cannot be reached, is too slow or whose circuit is open.
    """

    def __init__(
        self, base_url: str, *, circuit: Circuit, unavailable: type[Unavailable], pool_size: int, total_seconds: float
    ) -> None:
        self._base_url = base_url
        self._circuit = circuit
        self._unavailable = unavailable
        self._total_seconds = total_seconds
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=pool_size, pool_block=True, max_retries=0))

    def get(self, path: str) -> Any | None:
        """GET a path; give the envelope's data, or None when the service says 404.

        Raises the `unavailable` error, `BadGateway` for an answer that is no envelope, and
        `DeadlineExceeded` when the request's own time is over before the service is asked.
        """
        left = deadline.remaining(self._total_seconds)
        try:
            permit = self._circuit.acquire()
        except CircuitOpen as exc:
            raise self._unavailable(retry_after=exc.retry_in) from exc
        began = time.monotonic()
        try:
            status, raw = self._exchange(path, began + left)
        except (requests.RequestException, Urllib3Error, OSError) as exc:
            permit.failure(time.monotonic() - began, type(exc).__name__)
            raise self._unavailable(retry_after=1) from exc
        except BaseException:
            permit.neutral()
            raise
        return self._judge(status, raw, permit, time.monotonic() - began)

    def _exchange(self, path: str, ends_at: float) -> tuple[int, bytes]:
        try:
            return self._once(path, ends_at)
        except requests.ConnectionError:
            # A kept connection may have been closed as we wrote to it: asking again on a fresh one is
            # safe for a GET (RFC 9110 9.2.2), and done once only.
            return self._once(path, ends_at)

    def _once(self, path: str, ends_at: float) -> tuple[int, bytes]:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise requests.Timeout("no time left")
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            request_id.HEADER: request_id.current_request_id(),
            deadline.HEADER: str(int(left * 1000)),
        }
        with self._session.get(
            self._base_url + path,
            headers=headers,
            timeout=(min(CONNECT_SECONDS, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            return response.status_code, _read(response, ends_at)

    def _judge(self, status: int, raw: bytes, permit: Permit, seconds: float) -> Any | None:
        try:
            envelope = read_json(raw)
            error = None if envelope["success"] is True else str(envelope["error"]["code"])
            data = envelope["data"] if error is None else None
        except (AppError, KeyError, TypeError) as exc:
            permit.failure(seconds, "not an envelope")
            raise BadGateway from exc
        if status < 500 and status != 429:
            permit.success(seconds)
        elif error in _BLAMES_OTHERS or status == 429:
            permit.neutral()
        else:
            permit.failure(seconds, f"status {status}")
        if status == 404:
            return None
        if error is not None or status >= 400:
            if error == DeadlineExceeded.code:
                raise DeadlineExceeded
            raise self._unavailable(retry_after=1)
        return data


def _read(response: requests.Response, ends_at: float) -> bytes:
    """Read the body piece by piece, so that a slow drip cannot outlive the deadline."""
    pieces: list[bytes] = []
    size = 0
    while True:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise requests.Timeout("the answer took too long")
        connection = response.raw.connection
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(left)
        piece = response.raw.read1(_CHUNK)
        if not piece:
            break
        size += len(piece)
        if size > ANSWER_LIMIT:
            raise requests.exceptions.ContentDecodingError("the answer is too large")
        pieces.append(piece)
    return b"".join(pieces)
