"""Sends the mail of accounts: the users service writes each message at the moment when it is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service_tasks.domain.account_mail import ACCOUNT_MAIL_TYPE
from service_tasks.task_types import GiveUp, RetryPolicy, TaskContext, task_type
from service_tasks.task_types.send_email import (
    Email,
    EmailNotSent,
    SendEmailSettings,
    deliver,
    message_bytes,
    message_of,
)
from servicekit.process.settings import HttpUrl, Token, secret_of
from servicekit.web.schemas import Id
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Unavailable

_FETCH = "/internal/mail"
_FETCH_SECONDS = 5.0


class AccountMailSettings(SendEmailSettings):
    """Where the messages are, besides the mail server."""

    mail_token: Token = Field(description="the token by which they are fetched at the users service")
    mail_token_file: Path | None = Field(
        default=None, description="a file that holds the token for mail; MAIL_TOKEN wins over it"
    )
    users_url: HttpUrl = Field(default="http://127.0.0.1:8001", description="where the users service is")

    @model_validator(mode="before")
    @classmethod
    def _from_its_file(cls, values: Any) -> Any:
        file = values.get("mail_token_file") if isinstance(values, Mapping) else None
        if not file or values.get("mail_token"):
            return values
        return {**values, "mail_token": secret_of("MAIL_TOKEN", None, Path(file))}


class AccountMail(BaseModel):
    """Which message: the id of a link, without which it says nothing."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Id


class SentAccountMail(BaseModel):
    """That it was sent; to whom is not kept."""

    message_id: str


class _Fetched(BaseModel):
    to: str
    subject: str
    text: str


@task_type(
    ACCOUNT_MAIL_TYPE,
    payload=AccountMail,
    result=SentAccountMail,
    settings=AccountMailSettings,
    timeout=120,
    retry=RetryPolicy(base_seconds=5, factor=3, cap_seconds=900),
    internal=True,
)
async def account_mail(ctx: TaskContext, payload: AccountMail, *, settings: AccountMailSettings) -> SentAccountMail:
    """Sends a link that somebody asked for: to set a password, or to confirm an address.

    The service makes these tasks itself. The message is fetched at each attempt, and stored nowhere; a link that was
    used or has expired is not sent.
    """
    fetched = await asyncio.to_thread(_fetched, payload.id, settings)
    email = Email(to=[fetched.to], subject=fetched.subject, text=fetched.text)
    message = message_of(email, settings.smtp_from, task_id=ctx.task_id)
    raw = await asyncio.to_thread(message_bytes, message)
    said = ""
    try:
        await deliver(raw, [fetched.to], settings)
    except (GiveUp, EmailNotSent) as exc:
        # Servers repeat the address as they like to write it.
        said = re.sub(re.escape(fetched.to), "the recipient", str(exc), flags=re.IGNORECASE)
        gives_up = isinstance(exc, GiveUp)
    if said:
        # Outside the handler: what was raised there names the recipient, and would be kept with the task.
        raise GiveUp(said) if gives_up else EmailNotSent(said)
    return SentAccountMail(message_id=str(message["Message-ID"]))


def _fetched(link_id: UUID, settings: AccountMailSettings) -> _Fetched:
    # Imported here: the API needs only the models.
    from servicekit.circuits import Circuit
    from servicekit.http_client import ServiceClient

    users = ServiceClient(
        settings.users_url, circuit=Circuit("users"), unavailable=Unavailable, pool_size=1, total_seconds=_FETCH_SECONDS
    )
    headers = {
        "Authorization": f"Bearer {settings.mail_token.get_secret_value()}",
        "Content-Type": "application/json",
    }
    try:
        answer = users.post(_FETCH, dump({"id": link_id}), headers)
    finally:
        users.close()
    if answer.code == "mail_not_found":
        raise GiveUp("its link was used, has expired, or its user may not log in")
    if answer.code is not None:
        raise EmailNotSent(f"the users service answered {answer.status} {answer.code}")
    return _Fetched.model_validate(answer.data)
