"""Access tokens (RFC 9068): issued by one service, verified by all, once for each token and process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

from servicekit.identity.principal import NOBODY, Principal
from servicekit.identity.roles import Role
from servicekit.process.ids import new_id
from servicekit.wire.errors import InvalidJson, Unauthorized, Unavailable
from servicekit.wire.json_reader import read_json

if TYPE_CHECKING:
    # It loads the cryptography, of which a process that asks for no login has no need.
    from servicekit.identity.keys import KeySet, SigningKey

#: Whom tokens are for: this system, whatever its address.
AUDIENCE = "siteworks"
#: How long a token is good, in seconds.
LIFETIME = 300
#: How far clocks may be apart, in seconds.
SKEW = 30
#: Of a token that we issue, and of one that we look at, in characters.
LONGEST_ISSUED, LONGEST = 700, 2048
#: Tokens that a process remembers, good ones and refused ones.
_GOOD, _REFUSED = 20_000, 2000
_REFUSED_SECONDS = 10.0

Now = Callable[[], float]


class InvalidToken(Unauthorized):
    """The access token is not valid; log in again.

    It is expired, meant for others, changed, or signed with a key that is not in use.
    """

    code = "invalid_token"

    def __init__(self, message: str | None = None) -> None:
        # RFC 6750 section 3.1
        super().__init__(message, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class IdentityUnavailable(Unavailable):
    """Who calls cannot be found out at the moment; try again.

    This process knows no keys of access tokens: the users service, which publishes them, could not be reached since
    the start.
    """

    code = "identity_unavailable"

    def __init__(self, *, retry_after: float = 5) -> None:
        super().__init__(retry_after=retry_after)


class _Claims(msgspec.Struct, omit_defaults=True):
    """RFC 9068 section 2.2. `sid` is the session or the API key; `epoch` rises with each change of a user's rights."""

    iss: str
    aud: str
    sub: UUID
    sid: UUID
    jti: UUID
    iat: int
    exp: int
    epoch: int
    roles: list[str]
    amr: list[str] = []
    #: Of an API key alone.
    scope: str | None = None
    must_change_password: bool = False


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a valid token says. Times are in seconds since 1970."""

    principal: Principal
    epoch: int
    issued_at: int
    expires_at: int
    #: How the user has shown who they are (RFC 8176), such as `pwd` and `otp`.
    methods: tuple[str, ...]


class TokenIssuer:
    """Writes access tokens with one signing key."""

    def __init__(self, key: SigningKey, *, issuer: str, audience: str, now: Now = time.time) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self._now = now

    def issue(
        self,
        user_id: UUID,
        roles: Iterable[str],
        *,
        session_id: UUID,
        epoch: int,
        methods: Iterable[str] = (),
        scopes: Collection[str] | None = None,
        token_id: UUID | None = None,
        must_change_password: bool = False,
    ) -> str:
        """A token for LIFETIME seconds; `scopes` are those of an API key, and `token_id` is of a token that may be
        issued again. Raises ValueError if it grew too long."""
        issued_at = int(self._now())
        claims = _Claims(
            iss=self._issuer,
            aud=self._audience,
            sub=user_id,
            sid=session_id,
            jti=token_id or new_id(),
            iat=issued_at,
            exp=issued_at + LIFETIME,
            epoch=epoch,
            roles=[Role.highest(roles)],
            amr=list(methods),
            scope=None if scopes is None else " ".join(sorted(scopes)),
            must_change_password=must_change_password,
        )
        token = self._key.sign(msgspec.json.encode(claims))
        if len(token) > LONGEST_ISSUED:
            raise ValueError(f"a token of {len(token)} characters; {LONGEST_ISSUED} is the most")
        return token


class Keys(Protocol):
    """Where a verifier finds the keys."""

    @property
    def keys(self) -> KeySet | None:
        """The last good ones; None if there never were any."""

    def out_of_touch_since(self) -> float | None:
        """Since when, in seconds since 1970, the service that renews tokens has been away; None while it is there."""


class _Memory:
    """What was found of tokens by one set of keys: another set begins anew, for a key may have been withdrawn."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self._lock = threading.Lock()
        #: By SHA-256 of the whole token, signature included.
        self.good: dict[bytes, AccessToken] = {}
        #: With the time until which they are refused unseen.
        self.refused: dict[bytes, float] = {}

    def keep(self, digest: bytes, token: AccessToken) -> None:
        with self._lock:
            self.good[digest] = token
            if len(self.good) > _GOOD:
                del self.good[next(iter(self.good))]

    def refuse(self, digest: bytes, until: float) -> None:
        with self._lock:
            self.refused[digest] = until
            if len(self.refused) > _REFUSED:
                del self.refused[next(iter(self.refused))]


class TokenVerifier:
    """Verifies access tokens, and remembers for each what it found. Thread-safe.

    While the service that renews tokens is away, tokens that were good when it left stay good, for `stale_seconds`.
    """

    def __init__(
        self, keys: Keys, *, issuer: str, audience: str, stale_seconds: float = 0.0, now: Now = time.time
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._stale_seconds = stale_seconds
        self._now = now
        self._memory: _Memory | None = None

    def identify(self, authorization: str | None) -> Principal:
        """Who sends this Authorization field; NOBODY without one. Raises as `verify` does."""
        token = bearer_token(authorization)
        if token is None:
            return NOBODY
        found = self.verify(token).principal
        # What is remembered does without its text, the larger half.
        return Principal(found.user_id, found.role, found.scopes, found.session_id, token, found.must_change_password)

    @property
    def keys(self) -> KeySet | None:
        """The keys in use; others are another object."""
        return self._keys.keys

    def require_keys(self) -> None:
        """Raise `IdentityUnavailable` without keys."""
        if self._keys.keys is None:
            raise IdentityUnavailable

    def knows(self, token: str) -> bool:
        """Whether a text has the header of a token by a key that is known."""
        keys = self._keys.keys
        return keys is not None and keys.knows(token)

    def verify(self, token: str, *, before_work: Callable[[], None] = lambda: None) -> AccessToken:
        """What the token says; raises `InvalidToken`, or `IdentityUnavailable` without keys.

        `before_work` is called before the signature of a token that nothing is remembered of, and may raise.
        """
        if len(token) > LONGEST or not token.isascii():
            raise InvalidToken
        digest = hashlib.sha256(token.encode("ascii")).digest()
        now = self._now()
        keys = self._keys.keys
        if keys is None:
            raise IdentityUnavailable
        memory = self._memory
        if memory is None or memory.keys is not keys:
            memory = self._memory = _Memory(keys)
        found = memory.good.get(digest) or self._read(token, digest, memory, now, before_work)
        if now > found.expires_at + SKEW and not self._is_honoured(found, now):
            raise InvalidToken("The access token has expired.")
        return found

    def _is_honoured(self, token: AccessToken, now: float) -> bool:
        since = self._keys.out_of_touch_since()
        return since is not None and token.expires_at >= since and now <= since + self._stale_seconds

    def _read(
        self, token: str, digest: bytes, memory: _Memory, now: float, before_work: Callable[[], None]
    ) -> AccessToken:
        if not memory.keys.knows(token) or memory.refused.get(digest, 0.0) > now:
            raise InvalidToken
        before_work()
        try:
            read = self._judge(memory.keys.claims(token), now)
        except InvalidToken:
            memory.refuse(digest, now + _REFUSED_SECONDS)
            raise
        memory.keep(digest, read)
        return read

    def _judge(self, signed: bytes | None, now: float) -> AccessToken:
        """What the signed claims say; raises `InvalidToken`."""
        if signed is None:
            raise InvalidToken
        try:
            # Strict: a claim that stands twice, of which readers see either, is refused.
            claims = msgspec.convert(read_json(signed), _Claims)
        except (InvalidJson, msgspec.ValidationError) as exc:
            raise InvalidToken from exc
        if claims.iss != self._issuer or claims.aud != self._audience:
            raise InvalidToken("The access token is meant for another system.")
        if claims.iat > now + SKEW:
            raise InvalidToken("The access token is of the future: a clock is wrong.")
        scopes = None if claims.scope is None else frozenset(claims.scope.split())
        return AccessToken(
            principal=Principal(
                claims.sub,
                Role.highest(claims.roles),
                scopes,
                claims.sid,
                must_change_password=claims.must_change_password,
            ),
            epoch=claims.epoch,
            issued_at=claims.iat,
            expires_at=claims.exp,
            methods=tuple(claims.amr),
        )


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization field (RFC 6750); None without one. Raises `InvalidToken` for any other scheme or
    form: whoever shows something is never taken for somebody who shows nothing."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("Send the access token as Authorization: Bearer TOKEN.")
    return token.strip()
