"""Makes a process ask who calls, if its settings say so."""

from __future__ import annotations

from servicekit.circuits import Circuit
from servicekit.identity.principal import Identify
from servicekit.identity.tokens import AUDIENCE, IdentityUnavailable, TokenVerifier
from servicekit.process.lifecycle import stop_this_process
from servicekit.process.settings import CallerSettings

#: Where the users service publishes its keys (RFC 8615).
KEYS_PATH = "/.well-known/jwks.json"
#: How long one question for them may take.
_SECONDS = 2.0


def verifier_with(settings: CallerSettings) -> TokenVerifier | None:
    """What verifies access tokens in this process; None if everybody is an administrator.

    Starts to ask for keys, on a thread that lives as long as the process.
    """
    if settings.auth == "off":
        return None
    # Without a login, a process that has no other use for them need not load the libraries behind these.
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
    ring.start()
    return TokenVerifier(
        ring, issuer=settings.auth_issuer, audience=AUDIENCE, stale_seconds=settings.auth_stale_seconds
    )


def identify_with(settings: CallerSettings) -> Identify | None:
    """How this process finds out who calls; None as `verifier_with`."""
    verifier = verifier_with(settings)
    return None if verifier is None else verifier.identify
