"""The wire format of events between services: CloudEvents 1.0 in JSON, in batches.

docs/events.md is the catalogue. https://cloudevents.io
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from servicekit.process.clock import rfc3339, utc_now
from servicekit.process.ids import new_id
from servicekit.web.schemas import Body, Id, JsonValue, Timestamp, invalid_from
from servicekit.wire.envelope import Written, dump
from servicekit.wire.errors import FieldError, Invalid

#: Where every service receives events; the gateway has no route to it.
PATH = "/internal/events"
MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
LARGEST_BATCH = 100
#: Limit of one request's body, in bytes. Our events take at most a few kilobytes.
LARGEST_BODY = 1024 * 1024
_SOURCE = "/siteworks/"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `subject` is the id of what it happened to; events of one subject keep their order.

    `id` is unique forever: a receiver recognises a duplicate by it.
    """

    type: str
    subject: UUID
    #: An object.
    data: dict[str, Any] | Written
    id: UUID = field(default_factory=new_id)
    time: datetime = field(default_factory=utc_now)


class EventData(BaseModel):
    """The part of an event's data that a receiver reads. Unknown fields are ignored, since the sender may be newer."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


class SubjectId(EventData):
    """For receivers that only need the id of the subject."""

    id: Id


D = TypeVar("D", bound=EventData)


class CloudEvent(Body):
    """The attributes of an event. Extension attributes are allowed by the standard, and ignored."""

    model_config = ConfigDict(extra="ignore")

    specversion: Literal["1.0"]
    id: Id
    source: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    subject: Id
    time: Timestamp
    datacontenttype: Literal["application/json"] = "application/json"
    data: Annotated[dict[str, JsonValue], Field(default_factory=dict)]

    @property
    def event(self) -> Event:
        return Event(type=self.type, subject=self.subject, data=self.data, id=self.id, time=self.time)


class EventBatch(Body):
    """Events in the order in which to process them. On the wire it is the array itself."""

    array_field: ClassVar[str | None] = "events"

    events: Annotated[list[CloudEvent], Field(min_length=1, max_length=LARGEST_BATCH)]


def write_event(event: Event, service: str) -> dict[str, Any]:
    """An event of `service` in CloudEvents' JSON format."""
    return {
        "specversion": "1.0",
        "id": str(event.id),
        "source": _SOURCE + service,
        "type": event.type,
        "subject": str(event.subject),
        "time": rfc3339(event.time),
        "datacontenttype": "application/json",
        "data": event.data,
    }


def write_batch(events: Sequence[Event], service: str) -> bytes:
    """The request body for these events of `service`."""
    return dump([write_event(event, service) for event in events])


def read_data(model: type[D], event: Event) -> D:
    """Parse an event's data; raises `Invalid`, which names the event and the field."""
    try:
        return model.model_validate(event.data)
    except ValidationError as exc:
        found = invalid_from(exc)
        details = [FieldError(f"{event.id}.data.{item.field}", item.message) for item in found.details]
        raise Invalid(f"{event.type} {event.id}: {found.message}", details=details) from exc
