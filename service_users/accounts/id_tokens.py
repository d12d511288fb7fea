"""(pure) ID tokens of a sign-in provider (OpenID Connect Core 1.0): which keys verify them, and whom they are about."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from servicekit.identity.tokens import SKEW
from servicekit.wire.errors import InvalidJson
from servicekit.wire.json_reader import read_json

#: The algorithms that we take, with the curve of their keys. None of them has a secret that both sides know: a public
#: key is never taken for one (RFC 8725, section 2.1).
_CURVES = {"RS256": None, "PS256": None, "ES256": "P-256", "Ed25519": "Ed25519"}
_LONGEST = 16_384
#: The most of a key set, and the least of an RSA key, in bits.
_MOST_KEYS, _LEAST_BITS = 50, 2048
#: Of a subject (OpenID Connect Core 1.0, section 2).
_LONGEST_SUBJECT = 255

Key = RSAKey | ECKey | OKPKey


class BadIdToken(ValueError):
    """An ID token, or a key set, cannot be used; the text says why, and quotes nothing of it."""


class UnknownKey(BadIdToken):
    """An ID token is signed with a key that is not, or not yet, known."""


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    typ: str | None = None


class _Claims(msgspec.Struct):
    iss: str
    sub: str
    aud: str | list[str]
    exp: int
    iat: int
    nonce: str
    azp: str | None = None
    nbf: int | None = None


class ProviderKeys:
    """The public keys of a provider. Immutable."""

    def __init__(self, document: bytes) -> None:
        """Read a JSON Web Key Set (RFC 7517), of which keys that we cannot use are passed over. Raises `BadIdToken`."""
        value = _json(document, "the key set")
        listed = value.get("keys")
        if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
            raise BadIdToken("it is no key set, or one of too many keys")
        self._keys = [found for one in listed if isinstance(one, dict) and (found := _usable(one)) is not None]
        if not self._keys:
            raise BadIdToken("the key set has no key that we could use")

    def find(self, algorithm: str, key_id: str | None) -> Key:
        """The key of a token's header. Raises `UnknownKey`, also where several would do."""
        found = [
            key
            for fields, key in self._keys
            if fields.get("alg", algorithm) == algorithm
            and _fits(fields, algorithm)
            and (key_id is None or fields.get("kid") == key_id)
        ]
        if len(found) != 1:
            raise UnknownKey("its key is not known")
        return found[0]


def subject_of(token: str, keys: ProviderKeys, *, issuer: str, client_id: str, nonce: str, now: float) -> str:
    """Whom an ID token is about (OpenID Connect Core 1.0, section 3.1.3.7); `now` is in seconds since 1970.

    Raises `BadIdToken` unless it was signed for us, by this issuer, for this very sign-in.
    """
    if len(token) > _LONGEST or not token.isascii() or token.count(".") != 2:
        raise BadIdToken("it is no token, or too long a one")
    header = _header(token.partition(".")[0])
    try:
        # Where else a key may be found, the header may say as it likes: nobody looks.
        signed = jws.deserialize_compact(token, keys.find(header.alg, header.kid), algorithms=[header.alg])
    except (JoseError, ValueError) as exc:
        raise exc if isinstance(exc, BadIdToken) else BadIdToken("its signature is wrong") from exc
    try:
        # Strict: a claim that stands twice, of which readers see either, is refused.
        claims = msgspec.convert(_json(signed.payload, "its payload"), _Claims)
    except msgspec.ValidationError as exc:
        raise BadIdToken("a claim is missing, or of the wrong type") from exc
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    wrong = {
        "iss": claims.iss != issuer,
        "aud": client_id not in audience,
        # Meant for others, too: then it must be us to whom it was given.
        "azp": claims.azp != client_id if len(audience) > 1 or claims.azp is not None else False,
        "nonce": not hmac.compare_digest(claims.nonce.encode(), nonce.encode()),
        "exp": now > claims.exp + SKEW,
        "iat": claims.iat > now + SKEW,
        "nbf": claims.nbf is not None and claims.nbf > now + SKEW,
        "sub": not 1 <= len(claims.sub) <= _LONGEST_SUBJECT or not (claims.sub.isascii() and claims.sub.isprintable()),
    }
    if any(wrong.values()):
        raise BadIdToken(f"wrong: {', '.join(name for name, is_wrong in wrong.items() if is_wrong)}")
    return claims.sub


def _header(segment: str) -> _Header:
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
        value = _json(raw, "its header")
        header = msgspec.convert(value, _Header)
    except (binascii.Error, msgspec.ValidationError) as exc:
        raise BadIdToken("its header is none") from exc
    if "crit" in value or "b64" in value:
        raise BadIdToken("its header asks for an extension")
    if header.alg not in _CURVES or (header.typ or "JWT").upper() != "JWT":
        raise BadIdToken("its header names another algorithm or type")
    return header


def _usable(fields: dict[str, Any]) -> tuple[Mapping[str, Any], Key] | None:
    kinds: dict[Any, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(fields.get("kty"))
    if kind is None or fields.get("use", "sig") != "sig" or not any(_fits(fields, one) for one in _CURVES):
        return None
    # Nothing else of it: what a key says of its use in other systems is not ours to judge.
    wanted = {name: value for name, value in fields.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    try:
        key = kind.import_key(wanted)
        if isinstance(key, RSAKey) and key.public_key.key_size < _LEAST_BITS:
            return None
    except (JoseError, ValueError, TypeError):
        return None
    return fields, key


def _fits(fields: Mapping[str, Any], algorithm: str) -> bool:
    curve = _CURVES[algorithm]
    return fields.get("kty") == "RSA" if curve is None else fields.get("crv") == curve


def _json(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = read_json(text)
    except (InvalidJson, RecursionError) as exc:
        raise BadIdToken(f"{what} is no JSON") from exc
    if not isinstance(value, dict):
        raise BadIdToken(f"{what} is no JSON object")
    return value
