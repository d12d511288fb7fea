"""Access tokens for what is shown instead of one: API keys, browsers' cookies, and users whom somebody acts as."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from api_gateway.errors import TooManyCredentials
from api_gateway.forward import Call, Lane, Notes, forward
from api_gateway.limits import Quota, RateLimiter
from api_gateway.route_table import Limits
from servicekit.http_server.request import RequestFields
from servicekit.identity.roles import Action
from servicekit.identity.tokens import AccessToken, IdentityUnavailable, InvalidToken
from servicekit.observing.logs import get_logger
from servicekit.observing.request_id import current_request_id
from servicekit.wire.errors import AppError, Forbidden, Overloaded

#: How many invalid credentials one client may try.
WORTHLESS = Quota(20, 10)
#: How long each further answer to one waits, in seconds, so that a connection gets one at a time.
_SLOW_SECONDS = 1.0
#: Exchanges under way: fewer than a client may try, so that no good one is refused for others that wait.
_AT_ONCE = 16
#: Exchanged credentials that a process remembers, good ones and refused ones, and for how long the latter, in seconds.
_GOOD, _REFUSED = 20_000, 2000
_REFUSED_SECONDS = 10.0
#: How long until another try if a token could not be replaced, in seconds.
_AGAIN = 2.0
_EXCHANGE = Limits(first_byte=2.0, total=2.0)

_NOT_VALID = "The API key or session is not valid; log in again."

Kind = Literal["key", "cookie", "act_as"]
T = TypeVar("T")

log = get_logger(__name__)


class _Made(msgspec.Struct):
    access_token: str
    expires_in: int


class _Envelope(msgspec.Struct):
    data: _Made


@dataclass(slots=True)
class Shown:
    """An access token, as a service learns of it and as read."""

    #: A field line.
    line: bytes
    token: AccessToken
    #: On the event loop's clock; of an exchanged one.
    renew_at: float = 0.0
    #: What it was last found to be allowed.
    allowed: Action | None = None

    @classmethod
    def of(cls, text: str, token: AccessToken, renew_at: float = 0.0) -> Shown:
        return cls(b"authorization: Bearer %b\r\n" % text.encode("ascii"), token, renew_at)

    @property
    def value(self) -> bytes:
        """The value of that field."""
        return self.line[len(b"authorization: ") : -2]


class Exchanges(ABC):
    """Has what is shown exchanged by the users service, each once for many requests. Belongs to the event loop."""

    def __init__(self, users: Lane, token: str) -> None:
        """`token` is that by which the users service knows the gateway."""
        self._users = users
        self._token = token
        self._loop = users.upstream.loop
        self._worthless = RateLimiter(WORTHLESS)
        #: Also those that cost a client no try: an invalid one is known as such.
        self._answered = RateLimiter(WORTHLESS)
        self._places = asyncio.Semaphore(_AT_ONCE)
        #: By SHA-256 of the credential.
        self._exchanged: dict[bytes, Shown] = {}
        self._refused: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Task[Shown]] = {}

    def known(self, fields: RequestFields, action: Action) -> Shown | None:
        """Whoever is known to be allowed this, by what they show; None: `of` has to find out."""
        return None

    @abstractmethod
    async def read(self, text: str) -> AccessToken:
        """What a token says that the users service gave; raises as `TokenVerifier.verify` does."""

    @abstractmethod
    def covers(self, token: AccessToken) -> bool:
        """Whether a token is known to be refused."""

    @abstractmethod
    def used_for(self, expires_in: float) -> float:
        """How long a token is used that is good for so long, in seconds."""

    def spend(self, whose: Callable[[], str]) -> str:
        """Count a try of a client, which is returned; raises `TooManyCredentials`."""
        client = whose()
        allowance = self._worthless.take(client, self._loop.time())
        if not allowance.allowed:
            raise TooManyCredentials(allowance.seconds)
        return client

    def give_back(self, client: str) -> None:
        """Take back the count of a client's try: it showed something valid."""
        self._worthless.give_back(client)

    async def slow_down(self, whose: Callable[[], str]) -> None:
        """Wait before a client that shows invalid credentials again and again is told so."""
        if not self._answered.take(whose(), self._loop.time()).allowed:
            await asyncio.sleep(_SLOW_SECONDS)

    async def exchange(self, kind: Kind, credential: str, whose: Callable[[], str]) -> Shown:
        """The access token that stands for a credential. While the users service is away, the last one goes on.

        `whose` tells what counts as one client. Raises `InvalidToken`, `IdentityUnavailable`, `TooManyCredentials`.
        """
        digest = hashlib.sha256(f"{kind} {credential}".encode("ascii")).digest()
        kept, now = self._exchanged.get(digest), self._loop.time()
        if kept is not None and now < kept.renew_at and not self.covers(kept.token):
            return kept
        if self._refused.get(digest, 0.0) > now:
            raise InvalidToken(_NOT_VALID)
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
                await self.read(kept.value.removeprefix(b"Bearer ").decode("ascii"))
                kept.renew_at = now + _AGAIN
                return kept
            # Nobody can tell whether the credential is valid.
            raise

    def _settle(self, digest: bytes, task: asyncio.Task[Shown]) -> None:
        del self._running[digest]
        if not task.cancelled():
            task.exception()

    async def _ask(self, kind: Kind, credential: str, digest: bytes, whose: Callable[[], str]) -> Shown:
        async with self._places:
            client = self.spend(whose)
            try:
                made = await self._made(kind, credential)
            except InvalidToken:
                keep(self._refused, digest, self._loop.time() + _REFUSED_SECONDS, _REFUSED)
                self._exchanged.pop(digest, None)
                raise
            except BaseException:
                self.give_back(client)
                raise
            self.give_back(client)
        try:
            token = await self.read(made.access_token)
        except InvalidToken as exc:
            log.error("exchanged_token_invalid")
            raise IdentityUnavailable from exc
        shown = Shown.of(made.access_token, token, self._loop.time() + self.used_for(made.expires_in))
        keep(self._exchanged, digest, shown, _GOOD)
        return shown

    async def _made(self, kind: Kind, credential: str) -> _Made:
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
            raise InvalidToken(_NOT_VALID)
        if reply.status == 403 and kind == "act_as":
            raise Forbidden("X-Act-As is closed: the users service has no AUTH_KEY, or no GATEWAY_TOKEN.")
        try:
            if reply.status == 200:
                return msgspec.json.decode(reply.body, type=_Envelope).data
            log.error("exchange_refused", status=reply.status, code=reply.code)
        except msgspec.MsgspecError as exc:
            raise IdentityUnavailable from exc
        raise IdentityUnavailable


def keep(memory: dict[bytes, T], digest: bytes, value: T, most: int) -> None:
    """Remember something, and forget the oldest beyond `most`."""
    memory[digest] = value
    if len(memory) > most:
        del memory[next(iter(memory))]
