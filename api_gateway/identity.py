"""Who sends a request: turns the one credential that counts into an access token, and refuses by the role table before
any service is asked."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from api_gateway.exchanges import Exchanges, Shown, keep
from api_gateway.forward import Lane
from api_gateway.revocations import Revocations
from servicekit.http_server.request import Fields, RequestFields
from servicekit.identity.api_keys import PREFIX, is_api_key
from servicekit.identity.enforcement import OpenToAll
from servicekit.identity.principal import NOBODY
from servicekit.identity.roles import Action
from servicekit.identity.tokens import (
    SKEW,
    AccessToken,
    IdentityUnavailable,
    InvalidToken,
    TokenVerifier,
    bearer_token,
)
from servicekit.web.schemas import id_from_path
from servicekit.wire.errors import AppError, Forbidden, ForeignPage, Invalid

#: The session's cookie; over TLS a browser lets only this host set it (RFC 6265bis section 4.1.3.2).
COOKIE = b"siteworks"
HOST_COOKIE = b"__Host-" + COOKIE
_COOKIE_VALUE = re.compile(rb"[A-Za-z0-9_-]{32,128}")
#: Names the user whom somebody acts as.
ACT_AS = b"x-act-as"
_ACT_AS = "X-Act-As"
#: How long before its end a token is replaced, in seconds.
_AHEAD = 30.0
#: How long one is used where no revocations are known, in seconds.
_UNREVOKED = 1.0
#: Authorization fields that a process remembers whole, each about 1 KB.
_KNOWN = 4000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Identity(Exchanges):
    """Finds out who sends a request, where people log in. Belongs to the event loop."""

    def __init__(
        self, verifier: TokenVerifier, revocations: Revocations, users: Lane, token: str, origins: frozenset[str]
    ) -> None:
        """`token` is that by which the users service knows the gateway; `origins` are those of CORS."""
        super().__init__(users, token)
        self._verifier = verifier
        self._revocations = revocations
        self._origins = origins
        #: By Authorization field; all are judged by these keys and revocations.
        self._known: dict[bytes, Shown] = {}
        self._judged_by: tuple[object, object] = (None, None)

    def known(self, fields: RequestFields, action: Action) -> Shown | None:
        """As `Exchanges.known`, in a fraction of the time of `of`: nearly every token is sent again and again."""
        if fields.common is fields or action is Action.PUBLIC or ACT_AS in fields.first:
            return None
        shown = self._known.get(fields.first[b"authorization"])
        if shown is None:
            return None
        keys, revoked = self._judged_by
        if self._verifier.keys is not keys or self._revocations.known is not revoked:
            self._known.clear()
            return None
        if time.time() > shown.token.expires_at + SKEW:
            return None
        if shown.allowed is not action:
            try:
                shown.token.principal.reach(action)
            except AppError:
                return None  # refused by `of`
            shown.allowed = action
        return shown

    async def of(
        self, method: str, fields: RequestFields, action: Action, *, secure: bool, whose: Callable[[], str]
    ) -> Shown | None:
        """The access token of whoever may do this; None where everybody may.

        `whose` tells what counts as one client. Raises as `sender` and `Principal.reach` do, and `Invalid` for who
        would act as somebody else.
        """
        if ACT_AS in fields.first:
            raise Invalid.field(_ACT_AS, "is not taken where people log in")
        if action is Action.PUBLIC:
            return None
        shown = await self.sender(method, fields, secure=secure, whose=whose)
        (NOBODY if shown is None else shown.token.principal).reach(action)
        return shown

    async def sender(
        self, method: str, fields: RequestFields, *, secure: bool, whose: Callable[[], str]
    ) -> Shown | None:
        """The access token of the sender, whatever they may do; None for whoever shows nothing.

        Raises `InvalidToken`, `IdentityUnavailable`, `TooManyCredentials`, `ForeignPage`.
        """
        authorization = fields.get(b"authorization")
        judged_by = (self._verifier.keys, self._revocations.known)
        is_token = False
        if authorization is not None:
            # With it a cookie is ignored: a program's request is what it says, whatever the browser adds.
            text = bearer_token(authorization)
            assert text is not None
            if text.startswith(PREFIX):
                shown = await self._of_key(text, whose)
            else:
                shown, is_token = Shown.of(text, self._verified(text, whose)), True
        else:
            cookie = session_cookie(fields.pairs, secure=secure)
            if cookie is None:
                return None
            if method not in _SAFE:
                self._require_own_page(fields)
            shown = await self.exchange("cookie", cookie, whose)
        if self._revocations.seen_at is None:
            raise IdentityUnavailable
        if self._revocations.covers(shown.token):
            raise InvalidToken("The login has ended, or its user's rights have changed.")
        if is_token:
            self._remember(fields.first[b"authorization"], shown, judged_by)
        return shown

    def require_ready(self) -> None:
        """Raise `IdentityUnavailable` unless tokens can be judged."""
        self._verifier.require_keys()
        if self._revocations.seen_at is None:
            raise IdentityUnavailable

    async def read(self, text: str) -> AccessToken:
        return self._verifier.verify(text)

    def covers(self, token: AccessToken) -> bool:
        return self._revocations.covers(token)

    def used_for(self, expires_in: float) -> float:
        return expires_in - _AHEAD

    def _remember(self, authorization: bytes, shown: Shown, judged_by: tuple[object, object]) -> None:
        if judged_by[0] is not self._judged_by[0] or judged_by[1] is not self._judged_by[1]:
            self._known.clear()
            self._judged_by = judged_by
        keep(self._known, authorization, shown, _KNOWN)

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
            spent = self.spend(whose)

        token = self._verifier.verify(text, before_work=spend)
        if spent:
            self.give_back(spent)
        return token

    async def _of_key(self, key: str, whose: Callable[[], str]) -> Shown:
        if not is_api_key(key):
            raise InvalidToken("The API key is not whole.")
        return await self.exchange("key", key, whose)


class ActAs(Exchanges):
    """The same where nobody logs in, for requests that act as somebody: they get what that person would."""

    def __init__(self, open_to_all: OpenToAll, users: Lane, token: str | None) -> None:
        """`token` is that by which the users service knows the gateway; without it, nobody acts as anybody."""
        super().__init__(users, token or "")
        self._open_to_all = open_to_all
        self._is_closed = token is None

    async def of(
        self, method: str, fields: RequestFields, action: Action, *, secure: bool, whose: Callable[[], str]
    ) -> Shown:
        """As `Identity.of`; raises `Invalid` for somebody who does not exist, and `Forbidden` where it is closed."""
        shown = await self.sender(method, fields, secure=secure, whose=whose)
        shown.token.principal.reach(action)
        return shown

    async def sender(self, method: str, fields: RequestFields, *, secure: bool, whose: Callable[[], str]) -> Shown:
        """As `Identity.sender`; raises as `of`."""
        if self._is_closed:
            raise Forbidden(f"{_ACT_AS} is closed: GATEWAY_TOKEN is not set.")
        named = b",".join(value for name, value in fields.pairs if name == ACT_AS)
        user_id = id_from_path(_ACT_AS, named.decode("latin-1"))
        try:
            return await self.exchange("act_as", str(user_id), whose)
        except InvalidToken as exc:
            raise Invalid.field(_ACT_AS, "is the id of no user, or of one who is disabled") from exc

    async def read(self, text: str) -> AccessToken:
        # The first waits for the keys.
        verifier = await asyncio.to_thread(self._open_to_all.verifier)
        return verifier.verify(text)

    def covers(self, token: AccessToken) -> bool:
        return False

    def used_for(self, expires_in: float) -> float:
        # Whoever is disabled, or gets other roles, is soon seen as that.
        return _UNREVOKED


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
