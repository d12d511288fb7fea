"""Events as another service sends them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from servicekit.events.cloudevents import BATCH_MEDIA_TYPE, PATH, Event, write_batch

TOKEN = "a token between the services"


def user_deleted(user_id: UUID | str, **changes: Any) -> Event:
    """The event that the users service sends for a deleted user."""
    of = user_id if isinstance(user_id, UUID) else UUID(user_id)
    return Event(**{"type": "user.deleted", "subject": of, "data": {"id": str(of)}, **changes})


def send(client: FlaskClient, *events: Event, token: str | None = TOKEN) -> TestResponse:
    """Post a batch of events to a service."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.post(PATH, data=write_batch(events, "users"), content_type=BATCH_MEDIA_TYPE, headers=headers)
