"""Sends the end of a task to its callback_url. docs/callbacks.md is for receivers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from service_tasks.domain.callback import CALLBACK_MAX_ATTEMPTS, CALLBACK_TYPE, SIGNATURE_FIELD, signature
from service_tasks.domain.destinations import Destinations, hosts_text, read_allowed_hosts, read_networks
from service_tasks.task_types import GiveUp, RetryPolicy, TaskContext, task_type
from service_tasks.task_types.http_message import HttpRequest, HttpResponse, PrivateNetworks
from servicekit.events.cloudevents import MEDIA_TYPE
from servicekit.web.schemas import JsonValue
from servicekit.wire.envelope import dump

ANSWER_SECONDS = 10.0
#: enough of a refusal to show the reason
MAX_ANSWER_BYTES = 4096
_SHORTEST_SECRET = 16
_MOST_SECRETS = 2
_GONE = 410


class CallbackSettings(PrivateNetworks):
    """Where callbacks may go, and what they are signed with."""

    callback_hosts: Annotated[str, AfterValidator(hosts_text)] = Field(
        description="hosts that a callback_url may name, separated by commas: api.example.com, *.example.org"
    )
    callback_secret: SecretStr | None = Field(
        default=None,
        description="what callbacks are signed with, at least 16 characters; two, with a comma, while it is changed",
    )
    callback_secret_file: Path | None = Field(
        default=None, description="a file that holds the callbacks' secret instead; a new one needs no restart"
    )

    @model_validator(mode="after")
    def _can_sign(self) -> Self:
        if (self.callback_secret is None) == (self.callback_secret_file is None):
            raise ValueError("CALLBACK_HOSTS needs CALLBACK_SECRET or CALLBACK_SECRET_FILE, one of them")
        self.secrets()
        return self

    def secrets(self) -> tuple[bytes, ...]:
        """The secret, or the new and the old one. Read from the file each time, so that a change needs no restart.

        Raises `ValueError`.
        """
        name = "CALLBACK_SECRET"
        if self.callback_secret_file is None:
            assert self.callback_secret is not None
            text = self.callback_secret.get_secret_value()
        else:
            name += "_FILE"
            try:
                text = self.callback_secret_file.read_text(encoding="utf-8")
            except (OSError, UnicodeError) as exc:
                raise ValueError(f"{name} cannot be read: {type(exc).__name__}") from None
        found = tuple(secret.strip() for secret in re.split(r"[,\r\n]", text) if secret.strip())
        if not 1 <= len(found) <= _MOST_SECRETS or any(len(secret) < _SHORTEST_SECRET for secret in found):
            raise ValueError(f"{name} must be one or two secrets of at least {_SHORTEST_SECRET} characters")
        return tuple(secret.encode("utf-8") for secret in found)

    @property
    def destinations(self) -> Destinations:
        """Hosts and networks, read."""
        return Destinations(
            hosts=read_allowed_hosts(self.callback_hosts),
            networks=read_networks(self.private_networks),
            hosts_name="CALLBACK_HOSTS",
        )


class Callback(BaseModel):
    """What to tell, and where."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str = Field(description="the `callback_url` of the task that ended")
    event: dict[str, JsonValue] = Field(description="what is sent: a CloudEvent")


class CallbackAnswer(BaseModel):
    """The receiver's answer."""

    status: int


@task_type(
    CALLBACK_TYPE,
    result=CallbackAnswer,
    settings=CallbackSettings,
    timeout=60,
    retry=RetryPolicy(base_seconds=5, cap_seconds=3600),
    max_attempts=CALLBACK_MAX_ATTEMPTS,
    # Their requests are signed by the service.
    internal=True,
)
async def callback(ctx: TaskContext, payload: Any, *, settings: CallbackSettings) -> CallbackAnswer:
    """Reports the end of a task to its callback_url, signed, until an answer of 2xx comes.

    The service makes these tasks itself. Any other answer is tried again, not before its Retry-After; 410 ends it.
    """
    # Imported here: the API needs only the models, and importing the client takes a sixth of a second.
    from service_tasks.task_types.http_exchange import exchange

    # Validated only here: pydantic's JSON parser rounds numbers and stops at two hundred levels.
    told = Callback.model_validate(payload)
    body = dump(told.event)
    request = HttpRequest(
        url=told.url,
        method="POST",
        headers={
            "Content-Type": MEDIA_TYPE,
            SIGNATURE_FIELD: signature(settings.secrets(), int(time.time()), body),
        },
        body=body.decode("utf-8"),
        timeout=ANSWER_SECONDS,
        max_redirects=0,
    )
    answer = await exchange(
        request,
        settings.destinations,
        max_bytes=MAX_ANSWER_BYTES,
        idempotency_key=str(ctx.task_id),
        judge=_judge,
    )
    return CallbackAnswer(status=answer.status)


def _judge(answer: HttpResponse, reason: str | None, headers: Mapping[str, str]) -> None:
    from service_tasks.task_types.http_exchange import ask_again, told

    if 200 <= answer.status < 300:
        return
    if answer.status == _GONE:
        raise GiveUp(told(answer, reason))
    ask_again(told(answer, reason), headers)
