"""The sign-in provider of an organisation (OpenID Connect): what it says of itself, and who signed in there.

Nothing is asked of it before somebody signs in. It may be away, slow, or wrong: that is a 503, and nobody else waits.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from service_users.accounts.id_tokens import BadIdToken, ProviderKeys, UnknownKey, subject_of
from service_users.errors import ProviderUnavailable, SignInRefused
from service_users.settings import OidcSettings
from servicekit.circuits import Circuit
from servicekit.http_client import ServiceClient
from servicekit.observing.logs import get_logger
from servicekit.process.hosts import is_loopback
from servicekit.wire.errors import AppError, InvalidJson
from servicekit.wire.json_reader import read_json

_DISCOVERY = "/.well-known/openid-configuration"
#: How long one call may take, and how large an answer may be, in seconds and in bytes.
_SECONDS, _LARGEST = 3.0, 256 * 1024
#: How long what it says of itself, and its keys, are taken for true, in seconds.
_FRESH = 3600.0
#: How soon after its keys were asked for an unknown one may cause another question, in seconds.
_COOLDOWN = 30.0

T = TypeVar("T")

log = get_logger(__name__)


class _Document(msgspec.Struct):
    """OpenID Connect Discovery 1.0, section 3."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(msgspec.Struct):
    id_token: str


class _Error(msgspec.Struct):
    error: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one sign-in is known by: to the browser, to the provider, and in the ID token."""

    state: str
    nonce: str
    #: Of PKCE (RFC 7636).
    verifier: str
    challenge: str


class _Kept(Generic[T]):
    """Something that is asked for at first need, and again once it is old. Thread-safe: one thread asks at a time."""

    def __init__(self, ask: Callable[[], T], now: Callable[[], float]) -> None:
        self._ask = ask
        self._now = now
        self._lock = threading.Lock()
        self._value: T | None = None
        self._asked_at = 0.0

    def get(self, seconds: float = _FRESH) -> T:
        """The last good answer, asked for again if that is more than so many seconds ago; raises if there is none."""
        with self._lock:
            value, now = self._value, self._now()
            if value is not None and 0 <= now - self._asked_at < seconds:
                return value
            try:
                value = self._value = self._ask()
                self._asked_at = now
            except (AppError, BadIdToken) as exc:
                if value is None:
                    raise
                log.warning("provider_not_asked", cause=repr(exc.__cause__ or exc)[:300])
                self._asked_at = now - _FRESH + _COOLDOWN
            return value


class Provider:
    """The one that the settings name. Thread-safe; at most `places` threads wait for it."""

    def __init__(self, settings: OidcSettings, *, places: int, now: Callable[[], float] = time.time) -> None:
        self.issuer = settings.issuer
        self._settings = settings
        self._now = now
        self._circuit = Circuit("provider")
        self._pool_size = places
        self._places = threading.BoundedSemaphore(places)
        self._clients: dict[str, ServiceClient] = {}
        self._document: _Kept[_Document] = _Kept(self._discovered, now)
        self._keys: _Kept[ProviderKeys] = _Kept(self._asked_keys, now)

    def address(self, secrets: Secrets) -> str:
        """Where a browser signs in. Raises `ProviderUnavailable`."""
        endpoint = self._within(self._document.get).authorization_endpoint
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_uri,
            "scope": "openid",
            "state": secrets.state,
            "nonce": secrets.nonce,
            "code_challenge": secrets.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def subject(self, code: str, secrets: Secrets) -> str:
        """Who signed in. Raises `SignInRefused` for a code that is not valid, and `ProviderUnavailable`."""
        return self._within(lambda: self._subject(code, secrets))

    def _within(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise ProviderUnavailable
        try:
            return work()
        except BadIdToken as exc:
            log.error("provider_answer_refused", cause=str(exc))
            raise ProviderUnavailable from exc
        finally:
            self._places.release()

    def _subject(self, code: str, secrets: Secrets) -> str:
        token = self._redeemed(self._document.get(), code, secrets.verifier)
        expected: dict[str, Any] = {
            "issuer": self.issuer,
            "client_id": self._settings.client_id,
            "nonce": secrets.nonce,
        }
        try:
            return subject_of(token, self._keys.get(), **expected, now=self._now())
        except UnknownKey:
            # A new one signs: asked for again, but not for each token that names an invented one.
            return subject_of(token, self._keys.get(_COOLDOWN), **expected, now=self._now())

    def _discovered(self) -> _Document:
        # The issuer's own slash at the end is not doubled (OpenID Connect Discovery 1.0, section 4.1).
        document = self._read(self.issuer.removesuffix("/") + _DISCOVERY, _Document)
        if document.issuer != self.issuer:
            raise BadIdToken("the provider calls itself otherwise than OIDC_ISSUER does, to the letter")
        for address in (document.authorization_endpoint, document.token_endpoint, document.jwks_uri):
            _require_safe(address)
        return document

    def _asked_keys(self) -> ProviderKeys:
        return ProviderKeys(self._answer("GET", self._document.get().jwks_uri))

    def _redeemed(self, document: _Document, code: str, verifier: str) -> str:
        """The ID token for a code (RFC 6749, section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_uri,
            "code_verifier": verifier,
        }
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        client_id, secret = self._settings.client_id, self._settings.client_secret
        if secret is None:
            form["client_id"] = client_id
        elif "client_secret_basic" in document.token_endpoint_auth_methods_supported:
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
            fields["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        else:
            form |= {"client_id": client_id, "client_secret": secret}
        body = urlencode(form).encode("ascii")
        return self._read(document.token_endpoint, _Tokens, "POST", body, fields).id_token

    def _read(
        self, address: str, kind: type[T], method: str = "GET", body: bytes | None = None, fields: Any = None
    ) -> T:
        raw = self._answer(method, address, body, fields)
        try:
            return msgspec.convert(read_json(raw), kind)
        except (InvalidJson, msgspec.ValidationError, RecursionError) as exc:
            raise BadIdToken(f"{urlsplit(address).path} answers otherwise than it should") from exc

    def _answer(self, method: str, address: str, body: bytes | None = None, fields: Any = None) -> bytes:
        parts = urlsplit(address)
        origin = f"{parts.scheme}://{parts.netloc}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        client = self._clients.get(origin)
        if client is None:
            client = self._clients[origin] = ServiceClient(
                origin,
                circuit=self._circuit,
                unavailable=ProviderUnavailable,
                pool_size=self._pool_size,
                total_seconds=_SECONDS,
            )
        status, raw = client.plain(method, target, body, fields or {})
        if len(raw) > _LARGEST:
            raise BadIdToken(f"{parts.path} answers too much")
        if status == 200:
            return raw
        if body is not None and status in (400, 401) and _code_of(raw) in ("invalid_grant", "access_denied"):
            raise SignInRefused
        # Also a redirect: whoever moved says so in the discovery document.
        raise BadIdToken(f"{parts.path} answers {status}")


def _code_of(raw: bytes) -> str:
    """The error of a token endpoint (RFC 6749, section 5.2)."""
    try:
        return str(msgspec.convert(read_json(raw), _Error).error)
    except (InvalidJson, msgspec.ValidationError, RecursionError):
        return ""


def _require_safe(address: str) -> None:
    """Raises `BadIdToken` for an address to which no secret may be sent."""
    parts = urlsplit(address)
    if not parts.hostname or parts.fragment or not address.isascii() or not address.isprintable() or " " in address:
        raise BadIdToken("an endpoint is no address")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise BadIdToken("an endpoint is not https")
