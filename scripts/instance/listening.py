"""Where the gateway of an instance listens: on loopback, or on another address behind a certificate."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.ports import HOST
from servicekit.process.hosts import read_address

_HTTPS = 443


@dataclass(frozen=True)
class Listening:
    """The address, and the files of the certificate and its key, if the gateway speaks TLS."""

    address: str = HOST
    certificate: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, layout: Layout) -> Listening:
        """As the instance remembers it."""
        try:
            return cls(**json.loads(layout.listening.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError):
            raise InstanceError(
                f"{layout.listening} is damaged: remove it, and give --listen and --tls again"
            ) from None

    def remember(self, layout: Layout) -> None:
        """For every start from now on."""
        if self == Listening():
            layout.listening.unlink(missing_ok=True)
            return
        partial = layout.listening.with_suffix(".partial")
        partial.write_text(json.dumps(vars(self)) + "\n")
        partial.replace(layout.listening)

    @property
    def host(self) -> str:
        """The address as part of a URL."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def asked(self) -> str:
        """The address at which this machine reaches it."""
        return {"0.0.0.0": HOST, "::": "::1"}.get(self.address, self.address)

    @property
    def settings(self) -> dict[str, str]:
        """What the gateway is told, besides its port."""
        if self.certificate is None or self.key is None:
            return {}
        return {"GATEWAY_TLS_CERT_FILE": self.certificate, "GATEWAY_TLS_KEY_FILE": self.key}

    def url(self, port: int) -> str:
        """What to open: by a name of the certificate, since by others browsers warn."""
        if self.certificate is None:
            return f"http://{'localhost' if self.address == HOST else self.host}:{port}"
        from servicekit.http_server.tls import names_of

        names = names_of(Path(self.certificate))
        name = self.host if self.host in names else next(iter(names), "localhost")
        return f"https://{name}" if port == _HTTPS else f"https://{name}:{port}"


def choose_listening(before: Listening, address: str | None, tls: Sequence[str] | None, *, closed: bool) -> Listening:
    """Where to listen from now on, by what a start asks for, and else as before. Raises InstanceError."""
    if not closed:
        if address is not None or tls is not None:
            raise InstanceError(
                f"--{'listen' if address is not None else 'tls'} goes only with --auth: without logins everybody who "
                "reaches the instance may do everything"
            )
        return Listening()
    if address is not None:
        parsed = read_address(address.strip("[]"))
        if parsed is None:
            raise InstanceError(
                f"--listen {address}: write an address of this machine, such as 192.168.1.5, or 0.0.0.0 for all of them"
            )
        before = Listening(str(parsed), before.certificate, before.key)
        if parsed.is_loopback and tls is None:
            before = Listening(str(parsed))
    if tls is not None:
        certificate, key = (os.path.abspath(os.path.expanduser(file)) for file in tls)
        before = Listening(before.address, certificate, key)
    if before.certificate is not None and before.key is not None:
        # Imported here because it needs packages, and the help does without.
        from servicekit.http_server.tls import BadTlsFile, read_context

        try:
            read_context(Path(before.certificate), Path(before.key))
        except BadTlsFile as exc:
            raise InstanceError(f"--tls: {exc.file} {exc}") from exc
    else:
        parsed = read_address(before.address)
        if parsed is None or not parsed.is_loopback:
            raise InstanceError(
                f"--listen {before.address} needs --tls CERT KEY: whoever is on the way would read passwords and tokens"
            )
    return before
