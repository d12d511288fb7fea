"""Sends e-mail through one SMTP server."""

from __future__ import annotations

import asyncio
import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import idna
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from service_tasks.task_types import GiveUp, RetryPolicy, Settings, TaskContext, task_type
from servicekit.process.clock import utc_now
from servicekit.wire.resolver import system_trust

MAX_RECIPIENTS = 100
MAX_SUBJECT_CHARACTERS = 500
_MAX_ADDRESS_CHARACTERS = 400
#: How long the server may take for one answer, in seconds; the task's timeout bounds them all together.
_ANSWER_SECONDS = 30.0
# Not every server supports 8BITMIME.
_POLICY = SMTP.clone(cte_type="7bit")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
_MAX_LOCAL_CHARACTERS = 64
# RFC 5322 section 3.2.3, dot-atom; other letters before the @ would need a server with SMTPUTF8.
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_NAMED = re.compile(r'(?P<name>[^<>"]*?)\s*<(?P<address>[^<>]+)>')


def _one_line(value: str) -> str:
    """Check the text both as written and with its encoded words (RFC 2047) decoded: header creation decodes them, and
    some versions of Python do not encode a line break in them again."""
    if _CONTROL.search(value) or _CONTROL.search(_decoded(value)):
        raise ValueError("must be one line without control characters")
    return value


def _decoded(value: str) -> str:
    try:
        text = str(_POLICY.header_factory("Subject", value))
        text.encode("utf-8")
    except Exception:  # some encoded words trigger bugs of the standard library
        text = value + _NO_TEXT
    if text.count(_NO_TEXT) > value.count(_NO_TEXT):
        raise ValueError("has an encoded word that cannot be read")
    return text


def _address(value: str) -> str:
    _parsed(value)
    return value


def _parsed(value: str) -> Address:
    """`user@example.com` or `Name <user@example.com>`; raises `ValueError`."""
    _one_line(value)
    named = _NAMED.fullmatch(value.strip())
    local, at, domain = (named["address"] if named else value.strip()).rpartition("@")
    if not at or len(local) > _MAX_LOCAL_CHARACTERS or not _LOCAL.fullmatch(local):
        raise ValueError("must be an e-mail address such as user@example.com, or Name <user@example.com>")
    try:
        # The server finds out whether the domain takes mail; it may be a local one (site.local).
        ascii_domain = idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("must be an e-mail address with a domain behind the @") from None
    return Address(named["name"].strip() if named else "", username=local, domain=ascii_domain)


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


EmailAddress = Annotated[str, Field(max_length=_MAX_ADDRESS_CHARACTERS), AfterValidator(_address)]
EmailAddresses = Annotated[list[EmailAddress], BeforeValidator(_several, json_schema_input_type=str | list[str])]


class SendEmailSettings(Settings):
    """The server that takes the messages, and whom they come from."""

    smtp_host: str = Field(
        description="the SMTP server that takes the messages of send_email. Unset: the type is left out"
    )
    smtp_from: Annotated[str, AfterValidator(_address)] = Field(
        description="whom they come from: robot@example.com or Site Office <robot@example.com>; needed with SMTP_HOST"
    )
    smtp_port: int = Field(default=587, ge=1, le=65_535, description="the port of the SMTP server")
    smtp_tls: Literal["starttls", "implicit", "none"] = Field(
        default="starttls",
        description="TLS to the SMTP server: starttls (port 587), implicit (465), or none, without a password",
    )
    smtp_user: str | None = Field(default=None, description="whom to sign in as at the SMTP server; unset: nobody")
    smtp_password: SecretStr | None = Field(default=None, description="the password of SMTP_USER")
    smtp_password_file: Path | None = Field(
        default=None, description="a file that holds the password of SMTP_USER instead; a new one needs no restart"
    )

    @model_validator(mode="after")
    def _can_sign_in(self) -> Self:
        if self.smtp_password is not None and self.smtp_password_file is not None:
            raise ValueError("SMTP_PASSWORD and SMTP_PASSWORD_FILE are both set; one is enough")
        if (self.smtp_user is None) != (self.smtp_password is None and self.smtp_password_file is None):
            raise ValueError("SMTP_USER needs SMTP_PASSWORD or SMTP_PASSWORD_FILE, and they need it")
        if self.smtp_user is not None and self.smtp_tls == "none":
            raise ValueError("SMTP_TLS=none would send the password of SMTP_USER in the clear")
        if self.smtp_password_file is not None:
            try:
                self.smtp_password_file.read_text(encoding="utf-8")
            except (OSError, UnicodeError) as exc:
                raise ValueError(f"SMTP_PASSWORD_FILE cannot be read: {type(exc).__name__}") from None
        return self

    def password(self) -> str | None:
        """Read from its file each time, so that a change needs no restart."""
        if self.smtp_password_file is not None:
            return self.smtp_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        return None if self.smtp_password is None else self.smtp_password.get_secret_value()


class Email(BaseModel):
    """A message; `to` and `subject` suffice."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    to: Annotated[EmailAddresses, Field(min_length=1, max_length=MAX_RECIPIENTS)] = Field(
        description="one address or several: user@example.com or Name <user@example.com>"
    )
    cc: Annotated[EmailAddresses, Field(max_length=MAX_RECIPIENTS)] = Field(default_factory=list)
    reply_to: Annotated[EmailAddresses, Field(max_length=10)] = Field(default_factory=list)
    subject: Annotated[str, Field(min_length=1, max_length=MAX_SUBJECT_CHARACTERS), AfterValidator(_one_line)]
    text: str = ""
    html: str | None = Field(default=None, description="the same for programs that show HTML")

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.to) + len(self.cc) > MAX_RECIPIENTS:
            raise ValueError(f"has more than {MAX_RECIPIENTS} recipients in to and cc")
        return self


class SentEmail(BaseModel):
    """What the server said."""

    message_id: str
    accepted: list[str] = Field(description="addresses that the server took the message for")
    refused: dict[str, str] = Field(description="addresses that it did not, and why")


class EmailNotSent(Exception):
    """The server cannot be reached, or refuses for now."""


def message_of(email: Email, sender: str, *, task_id: UUID) -> EmailMessage:
    """The message as it is sent. Its Message-ID derives from the task's id, so that a second copy is recognised."""
    origin = _parsed(sender)
    message = EmailMessage(policy=_POLICY)
    message["Date"] = format_datetime(utc_now())
    message["From"] = origin
    message["To"] = [_parsed(address) for address in email.to]
    if email.cc:
        message["Cc"] = [_parsed(address) for address in email.cc]
    if email.reply_to:
        message["Reply-To"] = [_parsed(address) for address in email.reply_to]
    message["Subject"] = email.subject
    message["Message-ID"] = f"<{task_id}@{origin.domain}>"
    # RFC 3834: asks robots not to answer.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(email.text)
    if email.html is not None:
        message.add_alternative(email.html, subtype="html")
    return message


def message_bytes(message: EmailMessage) -> bytes:
    """The message as bytes; may take seconds. Raises `GiveUp` if they would not be the intended message."""
    try:
        raw = message.as_bytes()
    except ValueError as exc:
        raise GiveUp("the subject or a name has an encoded word that cannot be written") from exc
    lines = re.split(rb"\r\n|\r|\n", raw.partition(b"\r\n\r\n")[0])
    names = [line.partition(b":")[0].decode() for line in lines if not line.startswith((b" ", b"\t"))]
    if names != message.keys():
        raise GiveUp("the message would have other header fields than its own")
    return raw


@task_type(
    "send_email",
    payload=Email,
    result=SentEmail,
    settings=SendEmailSettings,
    timeout=300,
    # A server often refuses an unknown client for some minutes (greylisting, RFC 6647).
    retry=RetryPolicy(base_seconds=30, factor=3, cap_seconds=3600),
    max_attempts=5,
)
async def send_email(ctx: TaskContext, payload: Email, *, settings: SendEmailSettings) -> SentEmail:
    """Sends an e-mail through the SMTP server of the workers.

    An answer of 4xx and a broken connection are tried again, 5xx fails the task. A message may be sent twice when a
    worker dies in the middle; both carry the same Message-ID.
    """
    message = message_of(payload, settings.smtp_from, task_id=ctx.task_id)
    # On a thread: a hundred long non-ASCII names take the standard library seconds.
    raw = await asyncio.to_thread(message_bytes, message)
    recipients = list(dict.fromkeys(_parsed(address).addr_spec for address in (*payload.to, *payload.cc)))
    refused = await deliver(raw, recipients, settings)
    return SentEmail(
        message_id=str(message["Message-ID"]),
        accepted=[address for address in recipients if address not in refused],
        refused={address: f"{reply.code} {reply.message}" for address, reply in refused.items()},
    )


async def deliver(raw: bytes, recipients: list[str], settings: SendEmailSettings) -> dict[str, Any]:
    """Give a message to the server; returns its answers about those whom it refused. Raises `GiveUp` for a refusal for
    good, and `EmailNotSent`."""
    # Imported here: the API needs only the models.
    import aiosmtplib

    try:
        refused, _ = await aiosmtplib.send(
            raw,
            sender=_parsed(settings.smtp_from).addr_spec,
            recipients=recipients,
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user,
            password=settings.password(),
            use_tls=settings.smtp_tls == "implicit",
            start_tls=settings.smtp_tls == "starttls",
            tls_context=None if settings.smtp_tls == "none" else system_trust(),
            timeout=_ANSWER_SECONDS,
        )
    except aiosmtplib.SMTPRecipientsRefused as exc:
        said = "; ".join(f"{one.recipient}: {one.code} {one.message}" for one in exc.recipients)
        if all(_is_final(one.code) for one in exc.recipients):
            raise GiveUp(f"nobody could be written to: {said}") from exc
        raise EmailNotSent(f"nobody could be written to: {said}") from exc
    except aiosmtplib.SMTPResponseException as exc:
        said = f"the mail server answered {exc.code} {exc.message}"
        if _is_final(exc.code):
            raise GiveUp(said) from exc
        raise EmailNotSent(said) from exc
    except (aiosmtplib.SMTPException, OSError) as exc:
        raise EmailNotSent(f"{settings.smtp_host}:{settings.smtp_port}: {type(exc).__name__}: {exc}") from exc
    return refused


def _is_final(code: int) -> bool:
    # Codes below 400, and -1, stand for an invalid answer.
    return 500 <= code <= 599
