"""Who sends a request: turns the one credential that counts into an access token, and refuses by the role table before
any service is asked."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from api_gateway.errors import TooManyCredentials
from api_gateway.forward import Call, Lane, Notes, forward
from api_gateway.limits import Quota, RateLimiter
from api_gateway.revocations import Revocations
from api_gateway.route_table import Limits
from servicekit.http_server.request import Fields, RequestFields
from servicekit.identity.api_keys import PREFIX, is_api_key
from servicekit.identity.principal import NOBODY
from servicekit.identity.roles import Action
from servicekit.identity.tokens import (
    AccessToken,
    IdentityUnavailable,
    InvalidToken,
    TokenVerifier,
    bearer_token,
)
from servicekit.observing.logs import get_logger
from servicekit.observing.request_id import current_request_id
from servicekit.wire.errors import AppError, ForeignPage, Overloaded

#: The session's cookie; over TLS a browser lets only this host set it (RFC 6265bis section 4.1.3.2).
COOKIE = b"siteworks"
HOST_COOKIE = b"__Host-" + COOKIE
_COOKIE_VALUE = re.compile(rb"[A-Za-z0-9_-]{32,128}")
#: What one client may try that turns out to be worth nothing.
WORTHLESS = Quota(20, 10)
#: Exchanges under way: fewer than a client may try, so that no good one is refused for others that wait.
_AT_ONCE = 16
#: Exchanged credentials that a process remembers, good ones and refused ones, and for how long the latter, in seconds.
_GOOD, _REFUSED = 20_000, 2000
_REFUSED_SECONDS = 10.0
#: How long before its end a token is replaced, and until another try if that failed, in seconds.
_AHEAD, _AGAIN = 30.0, 2.0
_EXCHANGE = Limits(first_byte=2.0, total=2.0)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

T = TypeVar("T")

log = get_logger(__name__)


class _Made(msgspec.Struct):
    access_token: str
    expires_in: int


class _Envelope(msgspec.Struct):
    data: _Made


@dataclass(slots=True)
class Shown:
    """An access token, as text and as read."""

    text: str
    token: AccessToken
    #: On the event loop's clock; of an exchanged one.
    renew_at: float = 0.0

    @property
    def line(self) -> bytes:
        """The field line by which a service learns of it."""
        return b"authorization: Bearer %b\r\n" % self.text.encode("ascii")


class Identity:
    """Finds out who sends a request. Belongs to the event loop."""

    def __init__(
        self, verifier: TokenVerifier, revocations: Revocations, users: Lane, token: str, origins: frozenset[str]
    ) -> None:
        """`token` is that by which the users service knows the gateway; `origins` are those of CORS."""
        self._verifier = verifier
        self._revocations = revocations
        self._users = users
        self._token = token
        self._origins = origins
        self._loop = users.upstream.loop
        self._worthless = RateLimiter(WORTHLESS)
        self._places = asyncio.Semaphore(_AT_ONCE)
        #: By SHA-256 of the credential.
        self._exchanged: dict[bytes, Shown] = {}
        self._refused: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Task[Shown]] = {}

    async def of(
        self, method: str, fields: RequestFields, action: Action, *, secure: bool, whose: Callable[[], str]
    ) -> Shown | None:
        """The access token of whoever may do this; None where everybody may.

        `whose` tells what counts as one client. Raises `InvalidToken`, `IdentityUnavailable`, `TooManyCredentials`,
        `ForeignPage`, and as `Principal.reach` does.
        """
        if action is Action.PUBLIC:
            return None
        authorization = fields.get(b"authorization")
        if authorization is not None:
            # With it a cookie is ignored: a program's request is what it says, whatever the browser adds.
            text = bearer_token(authorization)
            assert text is not None
            if len(fields.first) < len(fields.pairs) and _occurs_twice(fields, b"authorization"):
                raise InvalidToken("Send one Authorization field.")
            if text.startswith(PREFIX):
                shown = await self._of_key(text, whose)
            else:
                shown = Shown(text, self._verified(text, whose))
        else:
            cookie = session_cookie(fields.pairs, secure=secure)
            if cookie is None:
                NOBODY.reach(action)
                return None
            if method not in _SAFE:
                self._require_own_page(fields)
            shown = await self._exchange("cookie", cookie, whose)
        if self._revocations.seen_at is None:
            raise IdentityUnavailable
        if self._revocations.covers(shown.token):
            raise InvalidToken("The login has ended, or its user's rights have changed.")
        shown.token.principal.reach(action)
        return shown

    def _require_own_page(self, fields: RequestFields) -> None:
        """Only a page of ours may change something by a cookie, which browsers add to whatever request. A foreign
        Origin has been refused, but for those of CORS."""
        origin = fields.get(b"origin")
        if fields.get(b"sec-fetch-site") != "same-origin" and (origin is None or origin in self._origins):
            raise ForeignPage

    def _verified(self, text: str, whose: Callable[[], str]) -> AccessToken:
        spent = ""

        def spend() -> None:
            nonlocal spent
            spent = self._spend(whose)

        token = self._verifier.verify(text, before_work=spend)
        if spent:
            self._worthless.give_back(spent)
        return token

    def _spend(self, whose: Callable[[], str]) -> str:
        client = whose()
        allowance = self._worthless.take(client, self._loop.time())
        if not allowance.allowed:
            raise TooManyCredentials(allowance.seconds)
        return client

    async def _of_key(self, key: str, whose: Callable[[], str]) -> Shown:
        if not is_api_key(key):
            raise InvalidToken("The API key is not whole.")
        return await self._exchange("key", key, whose)

    async def _exchange(self, kind: str, credential: str, whose: Callable[[], str]) -> Shown:
        """The access token that stands for a credential. While the users service is away, the last one goes on."""
        digest = hashlib.sha256(f"{kind} {credential}".encode("ascii")).digest()
        kept, now = self._exchanged.get(digest), self._loop.time()
        if kept is not None and now < kept.renew_at and not self._revocations.covers(kept.token):
            return kept
        if self._refused.get(digest, 0.0) > now:
            raise InvalidToken("The API key or session is worth nothing; log in again.")
        running = self._running.get(digest)
        if running is None:
            running = self._loop.create_task(self._ask(kind, credential, digest, whose))
            self._running[digest] = running
            running.add_done_callback(lambda task: self._settle(digest, task))
        try:
            # Whoever waits may leave; the others wait on.
            return await asyncio.shield(running)
        except IdentityUnavailable:
            if kept is None:
                raise
            with suppress(InvalidToken):
                self._verifier.verify(kept.text)
                kept.renew_at = now + _AGAIN
                return kept
            # Nobody can tell that the credential is worth nothing.
            raise

    def _settle(self, digest: bytes, task: asyncio.Task[Shown]) -> None:
        del self._running[digest]
        if not task.cancelled():
            task.exception()

    async def _ask(self, kind: str, credential: str, digest: bytes, whose: Callable[[], str]) -> Shown:
        async with self._places:
            client = self._spend(whose)
            try:
                made = await self._made(kind, credential)
            except InvalidToken:
                _keep(self._refused, digest, self._loop.time() + _REFUSED_SECONDS, _REFUSED)
                self._exchanged.pop(digest, None)
                raise
            except BaseException:
                self._worthless.give_back(client)
                raise
            self._worthless.give_back(client)
        try:
            token = self._verifier.verify(made.access_token)
        except InvalidToken as exc:
            log.error("exchanged_token_invalid")
            raise IdentityUnavailable from exc
        shown = Shown(made.access_token, token, self._loop.time() + made.expires_in - _AHEAD)
        _keep(self._exchanged, digest, shown, _GOOD)
        return shown

    async def _made(self, kind: str, credential: str) -> _Made:
        lines = (
            f"authorization: Bearer {self._token}\r\ncontent-type: application/json\r\n"
            f"accept: application/json\r\nx-request-id: {current_request_id()}\r\n"
        )
        call = Call(
            method="POST",
            target="/internal/exchange",
            fields=lines.encode("ascii"),
            body=msgspec.json.encode({"kind": kind, "credential": credential}),
            limits=_EXCHANGE,
            ends_at=self._loop.time() + _EXCHANGE.total,
            shortened=False,
        )
        try:
            reply = await forward(self._users, call, Notes())
        except Overloaded:
            raise
        except AppError as exc:
            raise IdentityUnavailable from exc
        if reply.status == 401 and reply.code == "invalid_credential":
            raise InvalidToken("The API key or session is worth nothing; log in again.")
        try:
            if reply.status == 200:
                return msgspec.json.decode(reply.body, type=_Envelope).data
            log.error("exchange_refused", status=reply.status, code=reply.code)
        except msgspec.MsgspecError as exc:
            raise IdentityUnavailable from exc
        raise IdentityUnavailable


def session_cookie(fields: Fields, *, secure: bool) -> str | None:
    """The session in a request's cookies; None if it has none. Raises `InvalidToken` for one that is not whole, or
    several: whoever shows something is never taken for somebody who shows nothing."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in _cookies(fields):
        found.setdefault(name, []).append(value)
    # Without TLS here, a proxy in front of us may have it.
    values = found.get(HOST_COOKIE) or (None if secure else found.get(COOKIE))
    if values is None:
        return None
    if len(values) > 1 or not _COOKIE_VALUE.fullmatch(values[0]):
        raise InvalidToken("The session's cookie is not whole; log in again.")
    return values[0].decode("ascii")


def other_cookies(fields: RequestFields) -> bytes:
    """A field line of the cookies besides the session's, which no service sees; empty if there are none."""
    if b"cookie" not in fields.first:
        return b""
    others = [b"%b=%b" % pair for pair in _cookies(fields.pairs) if pair[0] not in (COOKIE, HOST_COOKIE)]
    return b"cookie: %b\r\n" % b"; ".join(others) if others else b""


def _cookies(fields: Fields) -> list[tuple[bytes, bytes]]:
    pairs = (pair.partition(b"=") for name, value in fields if name == b"cookie" for pair in value.split(b";"))
    return [(name.strip(), value.strip()) for name, _, value in pairs if name.strip()]


def _occurs_twice(fields: RequestFields, wanted: bytes) -> bool:
    return sum(name == wanted for name, _ in fields.pairs) > 1


def _keep(memory: dict[bytes, T], digest: bytes, value: T, most: int) -> None:
    memory[digest] = value
    if len(memory) > most:
        del memory[next(iter(memory))]
