"""Whose certificates are believed: the system's; SSL_CERT_FILE adds some of one's own."""

from __future__ import annotations

import ssl

_trust: ssl.SSLContext | None = None


def system_trust() -> ssl.SSLContext:
    """Give the context for clients; made once, for reading the certificates takes tens of milliseconds."""
    global _trust
    # Without a free file it reads none and says nothing: once more then.
    if _trust is None or not _trust.cert_store_stats()["x509_ca"]:
        _trust = ssl.create_default_context()
    return _trust
