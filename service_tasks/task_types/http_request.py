"""An HTTP request to another system, retried while that is down or busy."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from service_tasks.domain.destinations import Destinations, hosts_text, read_allowed_hosts, read_networks
from service_tasks.task_types import RetryPolicy, TaskContext, task_type
from service_tasks.task_types.http_message import HttpRequest, HttpResponse, PrivateNetworks

#: How much of an answer is kept: fits a result of 1 MiB even if each byte of the charset becomes three in UTF-8.
MAX_RESPONSE_BYTES = 256 * 1024


class HttpRequestSettings(PrivateNetworks):
    """Where requests may go."""

    http_request_allowed_hosts: Annotated[str, AfterValidator(hosts_text)] = Field(
        description="hosts that http_request may ask, written as in CALLBACK_HOSTS; unset: the type is left out"
    )

    @property
    def destinations(self) -> Destinations:
        """Both, read."""
        return Destinations(
            hosts=read_allowed_hosts(self.http_request_allowed_hosts),
            networks=read_networks(self.private_networks),
            hosts_name="HTTP_REQUEST_ALLOWED_HOSTS",
        )


@task_type(
    "http_request",
    payload=HttpRequest,
    result=HttpResponse,
    settings=HttpRequestSettings,
    timeout=3700,
    retry=RetryPolicy(base_seconds=5, cap_seconds=900),
    max_attempts=5,
)
async def http_request(ctx: TaskContext, payload: HttpRequest, *, settings: HttpRequestSettings) -> HttpResponse:
    """Sends a request to an allowed host and keeps the answer.

    An answer of 5xx, 408, 425 or 429 and a broken connection are tried again, not before Retry-After; any other 4xx
    fails the task. A request may arrive more than once: POST and PATCH carry the task's id as Idempotency-Key.
    """
    # Imported here: the API needs only the models, and importing the client takes a sixth of a second.
    from service_tasks.task_types.http_exchange import exchange

    return await exchange(
        payload,
        settings.destinations,
        max_bytes=MAX_RESPONSE_BYTES,
        idempotency_key=str(ctx.task_id),
    )
