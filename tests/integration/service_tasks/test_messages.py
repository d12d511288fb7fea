"""What becomes of messages once they are here: a table of good and bad ones, and nothing twice."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest

from service_tasks.engine.registry import Registry, TaskType
from service_tasks.errors import UserDeleted
from service_tasks.persistence.message_store import MessageStore
from service_tasks.schemas.messages import RejectedMessageQuery
from service_tasks.task_types.io import io
from service_tasks.task_types.noop import noop
from service_tasks.use_cases.messages import MAX_MESSAGE_BYTES, IncomingMessage, Messages
from service_tasks.use_cases.tasks import Tasks
from servicekit.events.inbox import Inbox
from servicekit.wire.errors import Conflict, Invalid, NotFound
from tests.support.events import user_deleted


@pytest.fixture
def announced() -> list[str]:
    return []


@pytest.fixture
def messages(bench, announced) -> Messages:
    return messages_of(bench, announced, noop, io)


def messages_of(bench, announced, *types: TaskType) -> Messages:
    tasks = Tasks(bench.store, Registry(types), announce=announced.append)
    return Messages(MessageStore(bench.database), tasks, announce=announced.append)


def message(
    body, message_id: str | bytes | None = None, *, tag: int = 1, source: str = "task_queue", **more
) -> IncomingMessage:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return IncomingMessage(tag, source, message_id, raw, **more)


def tasks_of(bench) -> list[tuple]:
    return [tuple(row) for row in bench.sql("SELECT task_type, state, priority, title FROM tasks ORDER BY id")]


GOOD = {
    "what the plain producer sends": ({"status": "New"}, ("noop", "ready", 50, None)),
    "an empty object": ({}, ("noop", "ready", 50, None)),
    "nothing at all": (b"", ("noop", "ready", 50, None)),
    "a whole task": (
        {"task_type": "io", "payload": {"seconds": 1}, "priority": 90, "title": "Бетон", "status": "pending"},
        ("io", "ready", 90, "Бетон"),
    ),
    "a task for later": ({"execute_at": "2999-01-01T00:00:00Z"}, ("noop", "scheduled", 50, None)),
    "a type that only workers know": ({"task_type": "pour"}, ("pour", "ready", 50, None)),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_message_becomes_a_task(bench, messages, name):
    body, expected = GOOD[name]
    assert messages.take([message(body)]) == []
    assert tasks_of(bench) == [expected]


BAD = {
    "not JSON": (b"New", "Invalid JSON", []),
    "a list": ([], "must be an object", ["body"]),
    "binary": (b"\x00\xff\xfe", "JSON", []),
    "a key twice": (b'{"title": "a", "title": "b"}', "twice", []),
    "wrong types": ({"priority": "high", "max_attempts": True}, "priority", ["max_attempts", "priority"]),
    "an unknown field": ({"prio": 1}, "prio", ["prio"]),
    "a time that has passed": ({"execute_at": "2001-01-01T00:00:00Z"}, "must be in the future", ["execute_at"]),
    "a payload that its type refuses": (
        {"task_type": "io", "payload": {"seconds": -1}},
        "payload",
        ["payload.seconds"],
    ),
    "a status that is not new": ({"status": "Completed"}, "must be New", ["status"]),
    "a lone surrogate": (b'{"title": "\\ud800"}', "Invalid JSON", ["title"]),
    "a NUL": (b'{"title": "a\\u0000"}', "Invalid JSON", ["title"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_kept_with_its_reason_and_makes_no_task(bench, messages, name):
    body, reason, fields = BAD[name]
    (rejected,) = messages.take([message(body, tag=7)])
    assert rejected.tag == 7
    stored = messages.get(rejected.id)
    assert reason in stored.reason
    assert sorted(one.field for one in stored.details) == fields
    assert stored.size == len(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert tasks_of(bench) == []


def test_good_messages_around_a_bad_one_become_tasks_in_one_transaction(bench, messages, announced):
    rejected = messages.take([message({}, tag=1), message(b"no", tag=2), message({}, tag=3)])
    assert [one.tag for one in rejected] == [2]
    assert len(tasks_of(bench)) == 2
    assert bench.sql("SELECT count(DISTINCT xmin::text) FROM tasks") == [(1,)]
    assert announced == ["ready"]


def test_a_message_id_makes_one_task_however_often_it_comes(bench, messages):
    messages.take([message({}, "a"), message({}, "a"), message({}, "b")])
    messages.take([message({"title": "again"}, "a")])
    assert len(tasks_of(bench)) == 2


def test_the_same_id_in_another_queue_is_another_message(bench, messages):
    messages.take([message({}, "a"), message({}, "a", source="tasks.ingest")])
    assert len(tasks_of(bench)) == 2


def test_messages_without_an_id_are_never_taken_for_one_another(bench, messages):
    messages.take([message({"status": "New"}), message({"status": "New"})])
    assert len(tasks_of(bench)) == 2


def test_a_bad_message_with_an_id_is_rejected_once(messages):
    assert len(messages.take([message(b"no", "a")])) == 1
    assert messages.take([message(b"no", "a")]) == []
    assert messages.rejected(RejectedMessageQuery()).total == 1


def test_rejected_messages_are_read_on_from_the_last_one_whatever_is_removed_meanwhile(messages):
    messages.take([message(b"no", str(number)) for number in range(5)])
    everything = [one.id for one in messages.rejected(RejectedMessageQuery()).rejected]
    first = messages.rejected(RejectedMessageQuery(limit=2))
    assert first.next == everything[1]
    for gone in everything[:2]:
        messages.forget(gone)
    second = messages.rejected(RejectedMessageQuery(limit=2, after=first.next))
    last = messages.rejected(RejectedMessageQuery(limit=2, after=second.next))
    assert [one.id for page in (second, last) for one in page.rejected] == everything[2:]
    assert (second.total, last.next) == (3, None)


CYRILLIC = "заявка".encode("cp1251")


@pytest.mark.parametrize("message_id", ["x" * 256, "a\0b", CYRILLIC, CYRILLIC * 42, b"\0\xff", b""])
def test_a_message_id_that_cannot_be_kept_is_a_reason(messages, message_id):
    (rejected,) = messages.take([message({}, message_id)])
    assert "message_id" in rejected.reason
    assert messages.take([message({}, message_id)]) == []


def test_messages_whose_ids_cannot_be_kept_are_never_taken_for_one_another(messages):
    ids = ["x" * 255 + "a", "x" * 255 + "b", "a\0b", "a\N{REPLACEMENT CHARACTER}b", b"a\xffb", b"a\xfeb"]

    messages.take([message({}, message_id) for message_id in ids])

    # The one with the replacement character is as good as any other.
    assert messages.rejected(RejectedMessageQuery()).total == len(ids) - 1


def test_a_message_that_no_code_foresaw_is_kept_with_its_reason_and_holds_no_other_up(bench, messages, monkeypatch):
    def fails(*_args, **_more):
        raise RecursionError("somewhere deep")

    monkeypatch.setattr(messages._tasks, "prepare", fails)
    (rejected,) = messages.take([message({"title": "odd"}, "a")])
    monkeypatch.undo()

    assert "RecursionError" in rejected.reason
    assert messages.requeue(rejected.id).title == "odd"


def test_a_compressed_body_is_refused_by_name(messages):
    for encoding in ("gzip", b"\xe3\xe7"):
        (rejected,) = messages.take([message(b"\x1f\x8b", encoding=encoding)])
        assert "content_encoding" in rejected.reason


def test_of_a_huge_message_the_beginning_is_kept(messages):
    (rejected,) = messages.take([message(b"x" * (MAX_MESSAGE_BYTES + 1), "a")])
    stored = messages.get(rejected.id)
    assert (len(stored.body), stored.size) == (64 * 1024, MAX_MESSAGE_BYTES + 1)
    with pytest.raises(Conflict):
        messages.requeue(rejected.id)


def test_a_rejected_message_whose_type_is_mended_becomes_a_task(bench, announced):
    strict = messages_of(bench, announced, io)
    (rejected,) = strict.take([message({"task_type": "io", "payload": {"wrong": 1}}, "a")])
    with pytest.raises(Invalid):
        strict.requeue(rejected.id)
    mended = messages_of(bench, announced, noop)
    task = mended.requeue(rejected.id)
    assert task.payload == {"wrong": 1}
    assert mended.rejected(RejectedMessageQuery()).total == 0
    assert bench.sql("SELECT task_id FROM ingested_messages") == [(task.id,)]
    with pytest.raises(NotFound):
        mended.requeue(rejected.id)


def test_a_message_whose_unique_key_a_live_task_has_leads_to_that_task(bench, messages):
    messages.take([message({"unique_key": "pump"}, "a")])

    assert messages.take([message({"unique_key": "pump"}, "b"), message({"unique_key": "pump"})]) == []

    assert len(tasks_of(bench)) == 1
    noted = bench.sql("SELECT message_id, task_id FROM ingested_messages ORDER BY message_id")
    assert len({task_id for _, task_id in noted}) == 1
    assert noted[0][1] == bench.sql("SELECT id FROM tasks")[0][0]


def test_requeuing_a_message_whose_unique_key_a_live_task_has_gives_that_task(bench, announced):
    strict, mended = messages_of(bench, announced, io), messages_of(bench, announced, noop)
    body = {"task_type": "io", "payload": {"wrong": 1}, "unique_key": "pump"}
    (rejected,) = strict.take([message(body, "a")])
    mended.take([message({"task_type": "noop", "unique_key": "pump"})])

    task = mended.requeue(rejected.id)

    assert bench.sql("SELECT id FROM tasks") == [(task.id,)]
    assert bench.sql("SELECT task_id FROM ingested_messages") == [(task.id,)]


def test_a_value_that_only_the_database_refuses_stops_nobody_else(bench, messages, tasks_database):
    # A timeout that every check of ours takes; the table is made stricter to stand for what we did not think of.
    tasks_database.administer("ALTER TABLE tasks ADD CONSTRAINT ck_tasks_odd CHECK (priority <> 77)")
    rejected = messages.take([message({"priority": 77 if tag == 3 else tag}, str(tag), tag=tag) for tag in range(6)])
    assert [one.tag for one in rejected] == [3]
    assert len(tasks_of(bench)) == 5
    assert isinstance(rejected[0].id, UUID)


def test_a_message_for_a_deleted_user_is_rejected_with_the_reason_and_cannot_be_requeued(bench, messages):
    anna, boris = str(uuid4()), str(uuid4())
    Inbox(bench.database, {"user.deleted": bench.user_deleted}).take([user_deleted(anna)])

    rejected = messages.take([message({"user_id": boris}), message({"user_id": anna}, "a", tag=2), message({})])

    (one,) = rejected
    assert (one.tag, one.reason) == (2, "The user of this task was deleted.")
    assert [fault.field for fault in messages.get(one.id).details] == ["user_id"]
    assert len(tasks_of(bench)) == 2
    with pytest.raises(UserDeleted):
        messages.requeue(one.id)
    assert messages.rejected(RejectedMessageQuery()).total == 1
