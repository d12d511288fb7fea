"""One HTTP exchange with redirects, to checked addresses only."""

from __future__ import annotations

import asyncio
import base64
import codecs
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from service_tasks.domain.destinations import Address, Destinations, is_allowed, may_connect
from service_tasks.task_types import GiveUp, RetryAfter
from service_tasks.task_types.http_message import HttpRequest, HttpResponse
from servicekit.observing.shortage import is_shortage, report
from servicekit.process.version import VERSION
from servicekit.wire.envelope import dump
from servicekit.wire.resolver import Resolver, system_trust

CONNECT_SECONDS = 10.0
#: Seconds until the next attempt when this process runs out of files, ports or memory.
SHORTAGE_SECONDS = 0.5
MAX_HEADER_CHARACTERS = 16 * 1024
_CHUNK = 64 * 1024
_SHOWN = 300  # characters of an error's body that go into the task's error
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 425, 429})
# Fields that may follow a redirect to another origin: none that could be a secret.
_HARMLESS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "idempotency-key", "user-agent"})
_TEXT_TYPE = re.compile(r"text/|application/(?:[\w.+-]*\+)?(?:json|xml)\b|application/x-www-form-urlencoded\b", re.I)
_BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# Python's names of character encodings; its other codecs decompress, or may take very long.
_CHARSET = re.compile(r"ascii|utf-8|utf-16|utf-32|iso8859-|cp125|cp866|koi8-|mac-|gb|big5|shift_jis|euc_")

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class RequestFailed(Exception):
    """No complete answer came, or one that may succeed on another attempt."""


def refuse_errors(answer: HttpResponse, reason: str | None, headers: Mapping[str, str]) -> None:
    """Raise for a failing answer: `GiveUp` if another attempt would get the same."""
    if answer.status < 400:
        return
    if answer.status < 500 and answer.status not in _AGAIN:
        raise GiveUp(told(answer, reason))
    ask_again(told(answer, reason), headers)


async def exchange(
    request: HttpRequest,
    destinations: Destinations,
    *,
    max_bytes: int,
    idempotency_key: str,
    judge: Callable[[HttpResponse, str | None, Mapping[str, str]], None] = refuse_errors,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
) -> HttpResponse:
    """Send the request, follow its redirects, and return the answer.

    At most `max_bytes` of an answer's body are kept. `judge` gets the answer with its reason phrase and all its fields,
    and raises for a failure. `resolve` looks up the addresses of a name, `tls` is the context to trust; both default to
    the system's. Raises `GiveUp` if it can never succeed, `RetryAfter` if the answer names a time, else
    `RequestFailed`.
    """
    try:
        async with asyncio.timeout(request.timeout) as limit:
            return await _Call(
                request, destinations, max_bytes, idempotency_key, judge, resolve or _resolve, tls or system_trust()
            ).run()
    except TimeoutError as exc:
        what = f"within {request.timeout:g} seconds" if limit.expired() else "in time"
        raise RequestFailed(f"no complete answer {what}") from exc
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as exc:
        raise GiveUp(f"this address cannot be asked: {exc}") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise RequestFailed(f"{type(exc).__name__}: {exc}") from exc


class _Call:
    def __init__(
        self,
        request: HttpRequest,
        destinations: Destinations,
        max_bytes: int,
        idempotency_key: str,
        judge: Callable[[HttpResponse, str | None, Mapping[str, str]], None],
        resolve: Resolve,
        tls: ssl.SSLContext,
    ) -> None:
        self._destinations = destinations
        self._max_bytes = max_bytes
        self._judge = judge
        self._resolve = resolve
        self._tls = tls
        self._method: str = request.method
        self._redirects_left = request.max_redirects
        self._url = _parsed(request.url)
        self._data, self._headers = _message(request, idempotency_key)

    async def run(self) -> HttpResponse:
        while True:
            try:
                answer = await self._hop()
            except OSError as exc:
                asked = isinstance(exc, aiohttp.ClientOSError) and not isinstance(exc, aiohttp.ClientConnectorError)
                if asked or not is_shortage(exc):
                    raise
                # It may still be sent, within its own time limit.
                report(exc, at="http_request")
                await asyncio.sleep(SHORTAGE_SECONDS)
            else:
                if answer is not None:
                    return answer

    async def _hop(self) -> HttpResponse | None:
        """Send the request once; None if the answer was a redirect, to be followed next."""
        addresses = await self._checked_addresses()
        # A session per hop: it has connections to these addresses only, no cookies, and ignores proxies of the
        # environment and ~/.netrc.
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, ssl=self._tls, force_close=True
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(
                self._method, self._url, headers=self._headers, data=self._data, allow_redirects=False
            ) as response,
        ):
            if response.status in _REDIRECTS and self._redirects_left and "Location" in response.headers:
                self._follow(response.status, response.headers["Location"])
                return None
            answer = await self._answer(response)
            self._judge(answer, response.reason, response.headers)
            return answer

    async def _checked_addresses(self) -> list[Address]:
        host, port = self._url.raw_host, self._url.port
        if host is None or port is None:
            raise GiveUp("this address names no host")
        rules = self._destinations
        if not is_allowed(rules.hosts, self._url.scheme, host, port):
            raise GiveUp(f"{rules.hosts_name} does not name {host}:{port}")
        found = await self._resolve(host, port)
        allowed = [
            address for address in found if may_connect(address, host=host, hosts=rules.hosts, networks=rules.networks)
        ]
        if not allowed:
            raise GiveUp(f"{host} lies in no public network, and PRIVATE_NETWORKS names none of its own")
        return allowed

    def _follow(self, status: int, location: str) -> None:
        self._redirects_left -= 1
        before = self._url
        try:
            self._url = _parsed(str(before.join(URL(location))))
        except ValueError as exc:
            raise GiveUp("the redirect leads to no address") from exc
        if (before.scheme, self._url.scheme) == ("https", "http"):
            raise GiveUp("the redirect leads from https to http")
        # RFC 9110 section 15.4: 303 asks for a GET; so do clients after 301 and 302 to a POST.
        if (status == 303 and self._method != "HEAD") or (status in (301, 302) and self._method == "POST"):
            self._method, self._data = "GET", None
            for name in ("Content-Type", "Idempotency-Key"):
                self._headers.popall(name, None)
        upgraded = before.host == self._url.host and (before.port, self._url.port) == (80, 443)
        if before.origin() != self._url.origin() and not upgraded:
            for name in {name for name in self._headers if name.lower() not in _HARMLESS}:
                self._headers.popall(name, None)

    async def _answer(self, response: aiohttp.ClientResponse) -> HttpResponse:
        kept = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            kept += chunk
            if len(kept) > self._max_bytes:
                # The rest is not read: the connection closes with the session.
                response.close()
                break
        truncated = len(kept) > self._max_bytes
        raw = bytes(kept[: self._max_bytes])
        text = _text(raw, response.headers, response.charset, truncated=truncated)
        return HttpResponse(
            status=response.status,
            url=str(response.url),
            headers=_kept_headers(response.headers),
            body=base64.b64encode(raw).decode("ascii") if text is None else text,
            base64=text is None,
            truncated=truncated,
        )


class _Pinned(AbstractResolver):
    """Resolves to the checked addresses, so that a second DNS answer cannot lead elsewhere."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


@functools.lru_cache(maxsize=1000)
def _resolver_of(host: str, port: int) -> Resolver:
    return Resolver(host, port)


async def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = await _resolver_of(host, port).find()
    except UnicodeError as exc:
        raise GiveUp(f"{host} is no name of a host") from exc
    except OSError as exc:
        if is_shortage(exc):
            raise
        raise RequestFailed(f"cannot resolve {host}: {exc.strerror or exc}") from exc
    return [ipaddress.ip_address(address.host) for address in found]


def _parsed(text: str) -> URL:
    try:
        url = URL(text).with_fragment(None)
    except ValueError as exc:
        raise GiveUp(f"this address cannot be asked: {exc}") from exc
    if url.scheme not in ("http", "https") or url.user is not None or url.password is not None:
        raise GiveUp("this address is not plain http or https")
    return url


def _message(request: HttpRequest, idempotency_key: str) -> tuple[bytes | None, CIMultiDict[str]]:
    headers: CIMultiDict[str] = CIMultiDict(request.headers)
    data: bytes | None = None
    if request.has_json:
        data = dump(request.json_body)
        headers.setdefault("Content-Type", "application/json")
    elif request.body is not None:
        data = request.body.encode("utf-8")
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    headers.setdefault("User-Agent", f"Siteworks/{VERSION}")
    # aiohttp would ask for compression by default, and a compressed body could grow a thousandfold.
    headers.setdefault("Accept-Encoding", "identity")
    if request.method in ("POST", "PATCH"):
        headers.setdefault("Idempotency-Key", idempotency_key)
    return data, headers


def told(answer: HttpResponse, reason: str | None) -> str:
    """The answer as one line, for a task's error."""
    said = f"the answer was {answer.status} {reason or ''}".rstrip()
    if answer.body and not answer.base64:
        said += f": {' '.join(answer.body[:_SHOWN].split())}"
    return said


def ask_again(said: str, headers: Mapping[str, str]) -> NoReturn:
    """Raise for an answer worth another attempt, not before its Retry-After if it has one."""
    seconds = retry_after_seconds(headers.get("Retry-After"), now=datetime.now(UTC))
    if seconds is not None:
        raise RetryAfter(seconds, said)
    raise RequestFailed(said)


def retry_after_seconds(value: str | None, *, now: datetime) -> float | None:
    """Retry-After as seconds from `now` on (RFC 9110 section 10.2.3); None if invalid."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _text(raw: bytes, headers: Mapping[str, str], charset: str | None, *, truncated: bool) -> str | None:
    """The body as text that does not grow much as JSON; None if it is not text."""
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    if charset is None and raw and not _TEXT_TYPE.match(headers.get("Content-Type", "text/plain")):
        return None
    try:
        name = codecs.lookup(charset or "utf-8").name
    except LookupError:
        return None
    if not _CHARSET.match(name):
        return None
    # Truncation may have cut a character of up to four bytes.
    for lost in range(4 if truncated else 1):
        try:
            text = raw[: len(raw) - lost].decode(name)
        except UnicodeError:
            continue
        return None if _BINARY.search(text) else text
    return None


def _kept_headers(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    room = MAX_HEADER_CHARACTERS
    for name, value in headers.items():
        # Bytes that are not UTF-8 arrive here as lone surrogates.
        clean = value.encode("utf-8", "replace").decode("utf-8")
        key = name.lower().encode("utf-8", "replace").decode("utf-8")
        room -= len(key) + len(clean)
        if room < 0:
            break
        if key != "set-cookie":
            kept[key] = f"{kept[key]}, {clean}" if key in kept else clean
    return kept
