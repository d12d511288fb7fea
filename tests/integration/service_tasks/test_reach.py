"""Somebody who reaches only their own tasks and schedules gets the truth about these, and nothing of the others."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from service_tasks.domain.task import LIVE_STATES, State, Status, public_status
from service_tasks.domain.watched import Watch
from service_tasks.engine.registry import Registry
from service_tasks.errors import ScheduleNotFound, TaskNotFound, UniqueKeyTaken
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.stats_store import StatsStore
from service_tasks.persistence.watch_store import WatchStore
from service_tasks.schemas.bulk import CancelMany, RetryMany
from service_tasks.schemas.schedules import ScheduleCreate, ScheduleQuery, ScheduleUpdate
from service_tasks.schemas.tasks import TaskCreate, TaskFilter, TaskPage, TaskView
from service_tasks.use_cases.bulk import Bulk
from service_tasks.use_cases.schedules import Schedules
from service_tasks.use_cases.stats import Stats
from service_tasks.use_cases.tasks import Tasks
from servicekit.identity.reach import Reach
from servicekit.web.encoders import encoder_of
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Forbidden
from servicekit.wire.json_reader import read_stored

ALL = Reach.all()
TYPES = ("noop", "crane", "paused")
STRINGE = 'Залив\t"фундамента" \\ \x1f\x7f</script>\u2028😀'


@pytest.fixture
def tasks(bench) -> Tasks:
    return Tasks(bench.store, Registry([]), announce=lambda word: None)


@pytest.fixture
def bulk(bench) -> Bulk:
    return Bulk(BulkStore(bench.database), announce=lambda word: None)


@pytest.fixture
def schedules(bench, tasks) -> Schedules:
    store = ScheduleStore(bench.database)
    return Schedules(store, tasks, announce=lambda word: None, limit=1000, limit_per_user=1000)


def fill(bench, owners: list[UUID | None], count: int = 120) -> None:
    """Tasks in every state, with everything that a view may have, of these owners."""
    chance, now = random.Random(7), datetime.now(UTC).replace(microsecond=0)
    bench.sql("INSERT INTO task_type_controls (name, paused) VALUES ('paused', true)")
    for number in range(count):
        state, ended = chance.choice(list(State)), None
        begun = now - timedelta(seconds=chance.randrange(300), microseconds=chance.choice([0, 1, 120_000, 999_999]))
        if state not in LIVE_STATES:
            ended = begun + timedelta(microseconds=chance.choice([0, 500, 1_000_000, 12_345_678]))
        errors = [
            {
                "attempt": attempt + 1,
                "type": "WorkerLost",
                "message": STRINGE,
                "failed_at": begun.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "worker": "w",
                "trace": "a trace",
            }
            for attempt in range(chance.choice([0, 0, 1, 2]))
        ]
        large = "x" * chance.choice([1, 1, 1, 20_000])
        bench.sql(
            """INSERT INTO tasks (id, state, task_type, title, user_id, payload, priority, attempts, max_attempts,
                   timeout_seconds, execute_at, lease_no, worker_id, deadline_at, progress_percent, progress_message,
                   result, error, errors, created_at, updated_at, started_at, completed_at, unique_key, callback_url)
               VALUES (%s, %s, %s, %s, %s, %s, 50, %s, 25, %s, %s, 9, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
                       %s)""",
            f"{number:08x}-0000-7000-8000-{chance.getrandbits(48):012x}",
            state.value,
            chance.choice(TYPES),
            chance.choice([None, STRINGE]),
            None if (owner := chance.choice(owners)) is None else str(owner),
            json.dumps({"s": STRINGE, "large": large}) if number % 3 else chance.choice(["null", "1.50", "[]", "1E-7"]),
            len(errors),
            chance.choice([None, 0.1, 7, 60.25, 86400]),
            begun + timedelta(days=1) if state == State.SCHEDULED else begun,
            str(uuid4()) if state == State.RUNNING else None,
            now if state == State.RUNNING else None,
            chance.randrange(101),
            chance.choice([None, STRINGE]),
            json.dumps({"r": large}) if state == State.COMPLETED else None,
            chance.choice([None, STRINGE]),
            json.dumps(errors),
            begun,
            begun,
            None if state in (State.SCHEDULED, State.READY) else begun,
            ended,
            f"key {number}",
            "https://example.com/callback" if number % 5 == 0 else None,
        )


def shown(page: TaskPage) -> list[dict]:
    return read_stored(encoder_of(TaskPage)(page))["tasks"]


def as_before(tasks: Tasks, task: TaskView) -> bytes:
    """A task of a list as pydantic writes it: without large values and tracebacks."""
    light = task.model_copy()
    omitted = []
    for name in ("payload", "result"):
        value = getattr(task, name)
        if value is not None and len(value.encoded_json.encode()) > 16 * 1024:
            setattr(light, name, None)
            omitted.append(name)
    return dump(light.model_copy(update={"omitted": omitted}))


def test_a_list_shows_each_task_in_the_bytes_that_its_view_has(bench, tasks):
    fill(bench, [None, uuid4()])
    found = tasks.search(TaskFilter(limit=100), reach=ALL)
    texts = [dump(one) for one in shown(found)]

    raw = encoder_of(TaskPage)(found)
    for one in shown(found):
        view = tasks.get(UUID(one["id"]), reach=ALL)
        expected = as_before(tasks, view)
        if view.started_at is not None and view.completed_at is None:
            # Its duration grows from one look to the next.
            assert one.pop("duration") >= 0
            continue
        assert expected.decode() in raw
    assert len(texts) == 100


@pytest.mark.parametrize("owned", [True, False], ids=["an owner's", "of somebody without tasks"])
def test_every_list_total_and_filter_is_the_truth_about_ones_own(bench, tasks, owned):
    owners = [uuid4() for _ in range(5)]
    fill(bench, [*owners, None])
    owner = owners[0] if owned else uuid4()
    rows = bench.sql("SELECT id, state, task_type FROM tasks WHERE user_id = %s ORDER BY id DESC", str(owner))

    for status in (None, *Status):
        for task_type in (None, *TYPES):
            wanted = [
                str(id)
                for id, state, name in rows
                if status in (None, public_status(State(state))) and task_type in (None, name)
            ]
            for user_id in (None, owner):
                query = TaskFilter(limit=5, status=status, task_type=task_type)
                seen: list[str] = []
                while True:
                    page = tasks.search(query, user_id=user_id, reach=Reach.own(owner))
                    assert (page.total, page.total_is_exact) == (len(wanted), True)
                    seen += [one["id"] for one in shown(page)]
                    if page.next is None:
                        break
                    query = query.model_copy(update={"after": page.next})
                assert seen == wanted
                moved = tasks.search(TaskFilter(status=status, task_type=task_type, offset=2), reach=Reach.own(owner))
                assert [one["id"] for one in shown(moved)] == wanted[2:52]
            of_all = tasks.search(TaskFilter(status=status, task_type=task_type), user_id=owner, reach=ALL)
            assert [one["id"] for one in shown(of_all)] == wanted[:50]
    assert tasks.search(TaskFilter(), user_id=owners[1], reach=Reach.own(owner)).total == 0


def test_the_statistics_of_an_owner_are_about_their_own_tasks(bench):
    owner = uuid4()
    fill(bench, [owner, uuid4(), None])
    found = Stats(StatsStore(bench.database)).show(reach=Reach.own(owner))
    rows = bench.sql("SELECT state, count(*) FROM tasks WHERE user_id = %s GROUP BY state", str(owner))
    truth = dict.fromkeys(Status, 0)
    for state, count in rows:
        truth[public_status(State(state))] += count

    assert found.counts.model_dump() == truth
    assert found.workers.workers == []
    ended = [
        sum(getattr(one, name) for one in found.throughput.minutes) for name in ("completed", "failed", "cancelled")
    ]
    assert ended == [truth[status] for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)]
    assert sum(one.counts.completed for one in found.types) == truth[Status.COMPLETED]


def test_a_task_of_somebody_else_is_no_task(bench, tasks):
    mine, theirs = uuid4(), uuid4()
    fill(bench, [theirs, None])
    reach = Reach.own(mine)
    for (task_id,) in bench.sql("SELECT id FROM tasks"):
        for look in (tasks.get, tasks.status, tasks.result, tasks.cancel, tasks.purge, tasks.retry):
            with pytest.raises(TaskNotFound):
                look(task_id, reach=reach)
        watch = Watch(task_id, reach)
        assert WatchStore(bench.database).changed({watch: None}) == {watch: None}
    before = bench.sql("SELECT id, state, updated_at FROM tasks ORDER BY id")
    bulk = Bulk(BulkStore(bench.database), announce=lambda word: None)
    assert bulk.cancel(CancelMany(all=True), reach=reach).cancelled == 0
    assert bulk.retry(RetryMany(all=True), reach=reach).retried == 0
    store = BulkStore(bench.database)
    assert store.cancel([row[0] for row in before], reach=reach) == 0
    assert bench.sql("SELECT id, state, updated_at FROM tasks ORDER BY id") == before


def test_all_that_match_are_ones_own(bench, bulk):
    owner = uuid4()
    fill(bench, [owner, uuid4(), None])
    live = "SELECT id FROM tasks WHERE state IN ('scheduled', 'ready', 'running') AND user_id {} %s ORDER BY id"
    own, others = (bench.sql(live.format(which), str(owner)) for which in ("=", "IS DISTINCT FROM"))

    assert bulk.cancel(CancelMany(all=True), reach=Reach.own(owner)).cancelled == len(own) > 0
    # Callbacks have been made meanwhile.
    assert bench.sql(live.format("IS DISTINCT FROM"), str(owner))[: len(others)] == others


def test_what_somebody_makes_is_theirs_and_nobody_elses(bench, tasks, schedules):
    mine, theirs = uuid4(), uuid4()
    reach = Reach.own(mine)
    made = tasks.create(TaskCreate(), reach=reach).task
    batch = tasks.create_many([TaskCreate(), TaskCreate(user_id=mine)], reach=reach)
    schedule = schedules.create(ScheduleCreate(name="mine", every=60), reach=reach)

    assert {bench.get(one).user_id for one in (made.id, *batch.ids)} == {mine}
    assert schedule.user_id == schedules.get(schedule.id, reach=reach).user_id == mine
    assert schedules.update(schedule.id, ScheduleUpdate(user_id=None), reach=reach).user_id == mine
    for refused in (
        lambda: tasks.create(TaskCreate(user_id=theirs), reach=reach),
        lambda: tasks.create_many([TaskCreate(), TaskCreate(user_id=theirs)], reach=reach),
        lambda: schedules.create(ScheduleCreate(name="theirs", every=60, user_id=theirs), reach=reach),
        lambda: schedules.update(schedule.id, ScheduleUpdate(user_id=theirs), reach=reach),
    ):
        with pytest.raises(Forbidden) as refusal:
            refused()
        assert [one.field for one in refusal.value.details] == ["user_id"]
    assert bench.sql("SELECT count(*) FROM tasks") == [(3,)]


def test_keys_lead_to_ones_own_tasks_alone(bench, tasks):
    mine, theirs = (Reach.own(uuid4()) for _ in range(2))
    body = TaskCreate(unique_key="daily")
    first = tasks.create(body, idempotency_key="k", reach=mine).task

    again = tasks.create(body, idempotency_key="k", reach=mine)
    assert (again.task.id, again.replayed) == (first.id, True)
    assert tasks.create(body, idempotency_key="other", reach=mine).existing
    for key in (None, "k", "another"):
        with pytest.raises(UniqueKeyTaken):
            tasks.create(body, idempotency_key=key, reach=theirs)
    with pytest.raises(UniqueKeyTaken):
        tasks.create_many([body], reach=theirs)
    # The same idempotency key in other hands is another.
    assert tasks.create(TaskCreate(title="mine too"), idempotency_key="k", reach=theirs).task.id != first.id
    assert tasks.create(TaskCreate(), idempotency_key="k", reach=ALL).task.id != first.id


def test_schedules_of_somebody_else_are_none(bench, schedules):
    owners = [uuid4() for _ in range(3)]
    chance = random.Random(3)
    made = [
        schedules.create(
            ScheduleCreate(
                name=f"s{n}", every=60, task_type=chance.choice(TYPES), user_id=chance.choice([*owners, None])
            ),
            reach=ALL,
        )
        for n in range(30)
    ]
    for schedule in made[::4]:
        schedules.pause(schedule.id, reach=ALL)
    made = [schedules.get(one.id, reach=ALL) for one in reversed(made)]

    for owner in owners:
        reach = Reach.own(owner)
        for status in (None, "active", "paused"):
            for task_type in (None, *TYPES):
                wanted = [
                    one.id
                    for one in made
                    if one.user_id == owner and status in (None, one.status) and task_type in (None, one.task_type)
                ]
                page = schedules.search(ScheduleQuery(status=status, task_type=task_type), reach=reach)
                assert ([one.id for one in page.schedules], page.total) == (wanted, len(wanted))
        for one in made:
            if one.user_id == owner:
                continue
            for deed in (schedules.get, schedules.pause, schedules.resume, schedules.delete, schedules.run_now):
                with pytest.raises(ScheduleNotFound):
                    deed(one.id, reach=reach)
            with pytest.raises(ScheduleNotFound):
                schedules.update(one.id, ScheduleUpdate(name="taken over"), reach=reach)
    assert [schedules.get(one.id, reach=ALL) for one in made] == made
