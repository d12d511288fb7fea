"""Somebody who issues access tokens, and what verifies them, without a service between the two."""

from __future__ import annotations

from uuid import UUID

from servicekit.identity.keys import KeySet, SigningKey
from servicekit.identity.tokens import TokenIssuer, TokenVerifier

ISSUER, AUDIENCE = "https://sites.example", "siteworks"
KEY = SigningKey.generate()
ME, SESSION = UUID(int=1, version=4), UUID(int=2, version=4)
#: When everything happens, in seconds since 1970.
NOW = 1_800_000_000


class Ring:
    """Keys as they are, and since when their service has been away."""

    def __init__(self, *keys: SigningKey, since: float | None = None) -> None:
        self.keys = KeySet([key.public() for key in keys]) if keys else None
        self.since = since

    def out_of_touch_since(self) -> float | None:
        return self.since


def verifier_of(*keys: SigningKey, now=lambda: NOW, since: float | None = None) -> TokenVerifier:
    return TokenVerifier(Ring(*keys, since=since), issuer=ISSUER, audience=AUDIENCE, stale_seconds=3600, now=now)


def issue(key: SigningKey = KEY, *, me=ME, issuer=ISSUER, audience=AUDIENCE, now=NOW, roles=("user",), **more) -> str:
    made = TokenIssuer(key, issuer=issuer, audience=audience, now=lambda: now)
    return made.issue(me, roles, session_id=SESSION, epoch=3, **more)
