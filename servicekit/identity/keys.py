"""The keys of access tokens: Ed25519 (RFC 8037), by which one process signs and all verify."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from servicekit.wire.errors import InvalidJson
from servicekit.wire.json_reader import read_json

#: As RFC 9864 names it; the older `EdDSA` leaves the curve open.
_ALGORITHM = "Ed25519"
#: RFC 9068: tells an access token from anything else that the same key might sign.
_TYPE = "at+jwt"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: The key of before, the present and the next; more would mean that somebody else fills the set.
_MOST_KEYS = 8


class BadKeySet(ValueError):
    """A key set cannot be used; the text says why."""


class _PublicKey(msgspec.Struct):
    kid: str
    x: str
    crv: str = ""
    alg: str = _ALGORITHM
    use: str = "sig"
    d: str | None = None


def _header(key_id: str) -> dict[str, str]:
    return {"alg": _ALGORITHM, "kid": key_id, "typ": _TYPE}


def _segment(key_id: str) -> str:
    """The first segment of every token signed with this key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(_header(key_id))).decode("ascii").rstrip("=")


class SigningKey:
    """A private key, whose id is its RFC 7638 thumbprint."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.key_id = key.thumbprint()

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(OKPKey.generate_key("Ed25519"))

    @classmethod
    def read(cls, secret: bytes) -> SigningKey:
        """Read what `secret` gave; raises ValueError, which does not quote it."""
        try:
            key = OKPKey.import_key(read_json(secret))
            if key.private_key is None or key.curve_name != _ALGORITHM:
                raise ValueError
        except (JoseError, InvalidJson, ValueError, TypeError, KeyError):
            raise ValueError("not a private Ed25519 key") from None
        return cls(key)

    def secret(self) -> bytes:
        """The private key as a JSON Web Key, to be stored encrypted."""
        return msgspec.json.encode(self._key.as_dict(private=True))

    def public(self) -> dict[str, Any]:
        """The public key as a JSON Web Key."""
        key = self._key.as_dict(private=False)
        return {"kty": "OKP", "crv": key["crv"], "x": key["x"], "kid": self.key_id, "alg": _ALGORITHM, "use": "sig"}

    def sign(self, claims: bytes) -> str:
        """A JSON Web Token (RFC 7519) of these claims."""
        return jws.serialize_compact(_header(self.key_id), claims, self._key, algorithms=[_ALGORITHM])


class KeySet:
    """The public keys that tokens are verified with. Immutable."""

    def __init__(self, keys: Iterable[Mapping[str, Any]]) -> None:
        """`keys` are JSON Web Keys, such as those of `SigningKey.public`; raises `BadKeySet`.

        Keys of other kinds are ignored, as RFC 7517 section 5 asks; none of ours, a private one, or one id twice is
        refused.
        """
        by_segment: dict[str, OKPKey] = {}
        for key in keys:
            if not isinstance(key, Mapping) or key.get("kty") != "OKP" or key.get("crv") != "Ed25519":
                continue
            try:
                read = msgspec.convert(key, _PublicKey)
                if read.d is not None:
                    raise BadKeySet("it shows a private key")
                if read.alg != _ALGORITHM or read.use != "sig":
                    continue
                if not _KEY_ID.fullmatch(read.kid):
                    raise BadKeySet("a key's id is not plain")
                public = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": read.x})
            except (JoseError, msgspec.ValidationError, TypeError) as exc:
                raise BadKeySet("a key is broken") from exc
            except ValueError as exc:
                raise exc if isinstance(exc, BadKeySet) else BadKeySet("a key is broken") from exc
            if by_segment.setdefault(_segment(read.kid), public) is not public:
                raise BadKeySet("two keys have one id")
        if not by_segment:
            raise BadKeySet("it has no key of ours")
        if len(by_segment) > _MOST_KEYS:
            raise BadKeySet(f"it has more than {_MOST_KEYS} keys")
        self._keys = by_segment

    @classmethod
    def read(cls, document: bytes) -> KeySet:
        """Read a JSON Web Key Set (RFC 7517); raises `BadKeySet`."""
        try:
            value = read_json(document)
        except InvalidJson as exc:
            raise BadKeySet("it is not JSON") from exc
        if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
            raise BadKeySet("it is not a key set")
        return cls(value["keys"])

    def knows(self, token: str) -> bool:
        """Whether the token's header is, byte by byte, that of one of these keys."""
        return token.partition(".")[0] in self._keys

    def claims(self, token: str) -> bytes | None:
        """The claims of a token that one of these keys has signed, unread; None for any other.

        Nothing of a token is decoded before its header is found to be one that we write: no algorithm, key or extension
        that it names is ever looked at.
        """
        key = self._keys.get(token.partition(".")[0])
        if key is None:
            return None
        try:
            return jws.deserialize_compact(token, key, algorithms=[_ALGORITHM]).payload
        except (JoseError, ValueError):
            return None
