"""A server's certificate and key, read again when their files change."""

from __future__ import annotations

import ssl
from pathlib import Path

from servicekit.observing.logs import get_logger
from servicekit.process.hosts import read_authority

#: Seconds between two looks at the files.
LOOK_SECONDS = 5.0

_log = get_logger(__name__)


class BadTlsFile(Exception):
    """A file cannot be used; the text says why."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(why)
        self.file = file


class ServerTls:
    """TLS 1.2 and later with the certificate chain and the private key of two PEM files. Belongs to one event loop."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `BadTlsFile`."""
        self._files = (certificate, key)
        self._seen = self._state()
        #: For the next connection.
        self.context = read_context(certificate, key)

    def look(self) -> None:
        """Read the files if they have changed. A pair that is wrong, such as a new certificate whose key is still to
        come, changes nothing but the log."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self.context = read_context(*self._files)
        except BadTlsFile as error:
            _log.error("certificate_refused", file=str(error.file), cause=str(error))
        else:
            _log.info("certificate_read", file=str(self._files[0]))

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_state_of(file) for file in self._files]


def read_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Read both files; raises `BadTlsFile`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for file in (certificate, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise BadTlsFile(file, f"cannot be read: {error.strerror}") from error
    try:
        # It loads certificates alone, so that a fault is this file's.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except OSError as error:  # SSLError, or the file is gone again
        raise BadTlsFile(certificate, "holds no certificate in PEM") from error
    try:
        # Without a password it would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise BadTlsFile(key, f"is not the key of the certificate in {certificate}") from error
        raise BadTlsFile(key, "holds no private key in PEM, or one with a password") from error
    return context


def names_of(certificate: Path) -> list[str]:
    """The host names and addresses that a certificate is for, as `read_hosts` takes them: no wildcards. Raises
    `BadTlsFile`."""
    # Of no use without TLS.
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except (OSError, ValueError) as error:
        raise BadTlsFile(certificate, "holds no certificate in PEM") from error
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    found = [*names.get_values_for_type(x509.DNSName), *(f"[{one}]" if ":" in one else one for one in addresses)]
    return [one.lower() for one in found if read_authority(one) is not None]


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
