"""Makes a process ask who calls, as its settings say."""

from __future__ import annotations

import threading
from collections.abc import Callable

from servicekit.circuits import Circuit
from servicekit.identity.principal import LOCAL, Identify, Principal
from servicekit.identity.tokens import AUDIENCE, IdentityUnavailable, TokenVerifier
from servicekit.process.clock import utc_now
from servicekit.process.lifecycle import stop_this_process
from servicekit.process.settings import CallerSettings

#: Where the users service publishes its keys (RFC 8615).
KEYS_PATH = "/.well-known/jwks.json"
#: How long one question for them may take.
_SECONDS = 2.0


class OpenToAll:
    """Who calls where nobody logs in: `LOCAL`, or whoever an access token names, as the gateway shows one for whoever
    acts as somebody else. Thread-safe."""

    def __init__(self, make: Callable[[], TokenVerifier]) -> None:
        """`make` is called at the first token."""
        self._make = make
        self._lock = threading.Lock()
        self._verifier: TokenVerifier | None = None

    def __call__(self, authorization: str | None) -> Principal:
        return LOCAL if authorization is None else self.verifier().identify(authorization)

    def verifier(self) -> TokenVerifier:
        """What verifies them. The first call takes as long as a question for the keys."""
        with self._lock:
            if self._verifier is None:
                self._verifier = self._make()
            return self._verifier

    def knows(self, authorization: str | None) -> bool:
        """Whether a field shows what may be such a token, and not something else that is shown there."""
        verifier = self._verifier
        return verifier is not None and verifier.knows((authorization or "").removeprefix("Bearer "))


def open_to_all(settings: CallerSettings) -> OpenToAll:
    """How a process finds out who calls with AUTH=off."""
    return OpenToAll(lambda: _verifier(settings, asks_first=True))


def verifier_with(settings: CallerSettings) -> TokenVerifier | None:
    """What verifies access tokens in this process; None if everybody is an administrator.

    Starts to ask for keys, on a thread that lives as long as the process.
    """
    return None if settings.auth == "off" else _verifier(settings)


def _verifier(settings: CallerSettings, *, asks_first: bool = False) -> TokenVerifier:
    # A process that sees no token need not load the libraries behind these.
    from servicekit.http_client import ServiceClient
    from servicekit.identity.key_ring import KeyRing

    users = ServiceClient(
        settings.users_url,
        # Of its own: what requests have met there must not keep us from the keys.
        circuit=Circuit("keys"),
        unavailable=IdentityUnavailable,
        pool_size=1,
        total_seconds=_SECONDS,
    )
    ring = KeyRing(lambda: users.document(KEYS_PATH), file=settings.auth_keys_file, on_death=stop_this_process)
    if asks_first:
        ring.run_once(utc_now())
    ring.start()
    return TokenVerifier(
        ring, issuer=settings.auth_issuer, audience=AUDIENCE, stale_seconds=settings.auth_stale_seconds
    )


def asks_for_login(identify: Identify | None) -> bool:
    """Whether somebody who shows nothing is nobody, and not an administrator."""
    return identify is not None and not isinstance(identify, OpenToAll)


def identify_with(settings: CallerSettings) -> Identify:
    """How this process finds out who calls; starts as `verifier_with`."""
    verifier = verifier_with(settings)
    return open_to_all(settings) if verifier is None else verifier.identify
