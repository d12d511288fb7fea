"""Certificates for test servers, signed by an authority that only the tests trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """`server(name)` is a context for a server of that name, `trusting` one for a client that trusts it."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.trusting = ssl.create_default_context()
        self._authority.configure_trust(self.trusting)

    def write(self, folder: Path) -> Path:
        """Write the authority's certificate, for a client that reads trusted ones from a file."""
        file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(file))
        return file

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context

    def write_pair(self, folder: Path, *names: str) -> tuple[Path, Path]:
        """Write a certificate for a server of these names, and its key; whatever was there before is replaced."""
        issued = self._authority.issue_cert(*names)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key
