"""A real SMTP server on loopback that keeps accepted messages and refuses what a test tells it to."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import threading
from dataclasses import dataclass, field
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Taken:
    """One message as it arrived."""

    sender: str
    recipients: list[str]
    raw: bytes
    encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class MailServer:
    """`replies` holds answers by command (`MAIL`, `DATA`) or by recipient; all others are successful."""

    tls: ssl.SSLContext | None = None
    password: str | None = None
    taken: list[Taken] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        listens = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listens,), name="mail server", daemon=True)
        self._thread.start()
        assert listens.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self, listens: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listens))

    async def _serve(self, listens: threading.Event) -> None:
        server = await asyncio.get_running_loop().create_server(self._session, "127.0.0.1", 0)
        async with server:
            self.port: int = server.sockets[0].getsockname()[1]
            listens.set()
            await self._stop.wait()

    def _session(self) -> SMTP:
        return SMTP(
            self,
            tls_context=self.tls,
            require_starttls=self.tls is not None,
            auth_required=self.password is not None,
            authenticator=self._sign_in,
        )

    def _sign_in(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        if data.password.decode() != self.password:
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=data.login.decode())

    async def handle_MAIL(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "MAIL" in self.replies:
            return self.replies["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if "DATA" in self.replies:
            return self.replies["DATA"]
        raw = envelope.content
        assert isinstance(raw, bytes)
        encrypted = session.ssl is not None
        self.taken.append(
            Taken(
                envelope.mail_from or "", list(envelope.rcpt_tos), raw, encrypted, getattr(session, "auth_data", None)
            )
        )
        return "250 OK"
