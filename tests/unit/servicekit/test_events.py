"""Events on the wire: CloudEvents 1.0 in JSON, in batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from servicekit.events.cloudevents import (
    BATCH_MEDIA_TYPE,
    LARGEST_BATCH,
    Event,
    EventBatch,
    SubjectId,
    read_data,
    write_batch,
)
from servicekit.web.schemas import parse_body
from servicekit.wire.errors import Invalid, InvalidJson, UnsupportedMediaType

ANNA = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")
EVENT = Event(
    type="user.deleted",
    subject=ANNA,
    data={"id": ANNA, "name": "Белов"},
    id=UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e60"),
    time=datetime(2026, 1, 31, 15, 0, tzinfo=UTC),
)


def sent(**changes: object) -> dict[str, object]:
    event: dict[str, object] = json.loads(write_batch([EVENT], "users"))[0]
    return {name: value for name, value in {**event, **changes}.items() if value is not None}


def parsed(*events: object, media_type: str = BATCH_MEDIA_TYPE) -> EventBatch:
    return parse_body(EventBatch, json.dumps(events).encode(), media_type)


def test_an_event_leaves_with_the_attributes_of_the_standard():
    assert sent() == {
        "specversion": "1.0",
        "id": "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e60",
        "source": "/siteworks/users",
        "type": "user.deleted",
        "subject": str(ANNA),
        "time": "2026-01-31T15:00:00Z",
        "datacontenttype": "application/json",
        "data": {"id": str(ANNA), "name": "Белов"},
    }


def test_what_is_written_is_read_back():
    (item,) = parsed(sent()).events

    assert (item.event.id, item.event.type, item.event.subject, item.event.time) == (
        EVENT.id, EVENT.type, EVENT.subject, EVENT.time,
    )  # fmt: skip
    assert read_data(SubjectId, item.event).id == ANNA


def test_extension_attributes_and_fields_of_a_newer_sender_are_passed_over():
    (item,) = parsed(sent(traceparent="00-1-2-01", data={"id": str(ANNA), "reason": "left"})).events

    assert read_data(SubjectId, item.event) == SubjectId(id=ANNA)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": "1"}, "id"),
        ({"subject": None}, "subject"),
        ({"type": ""}, "type"),
        ({"type": "x" * 101}, "type"),
        ({"source": 1}, "source"),
        ({"time": "yesterday"}, "time"),
        ({"data": []}, "data"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
    ],
)
def test_a_broken_event_is_refused_by_its_place_and_field(changes, field):
    with pytest.raises(Invalid) as refused:
        parsed(sent(), sent(**changes))

    assert [item.field for item in refused.value.details] == [f"events.1.{field}"]


def test_a_batch_is_an_array_of_one_to_a_hundred_events():
    with pytest.raises(Invalid, match="body: must be a list"):
        parse_body(EventBatch, json.dumps({"events": [sent()]}).encode(), BATCH_MEDIA_TYPE)
    for wrong in ([], [sent()] * (LARGEST_BATCH + 1)):
        with pytest.raises(Invalid) as refused:
            parsed(*wrong)
        assert [item.field for item in refused.value.details] == ["events"]
    assert len(parsed(*[sent()] * LARGEST_BATCH).events) == LARGEST_BATCH


def test_the_strict_reader_reads_events_too():
    with pytest.raises(InvalidJson, match="appears twice"):
        parse_body(EventBatch, b'[{"id": "1", "id": "2"}]', BATCH_MEDIA_TYPE)
    with pytest.raises(UnsupportedMediaType):
        parsed(sent(), media_type="text/plain")


def test_data_that_cannot_be_read_is_refused_by_the_event_and_its_field():
    with pytest.raises(Invalid) as refused:
        read_data(SubjectId, Event(type="user.deleted", subject=ANNA, data={"id": 7}, id=EVENT.id))

    assert [item.field for item in refused.value.details] == [f"{EVENT.id}.data.id"]
