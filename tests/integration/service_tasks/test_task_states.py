"""The state diagram against what the statements really do: every one of them, from every state."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from service_tasks.domain.task import (
    FIRST_STATES,
    TRANSITIONS,
    AttemptError,
    FailedForGood,
    HandedBack,
    Lease,
    Outcome,
    Progress,
    State,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.ports import Retention
from service_tasks.persistence import queries
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.queries import load_queries
from service_tasks.use_cases.bulk import Chosen
from servicekit.events.cloudevents import Event
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import Bench, new_task

ERROR = AttemptError("Broken", "it broke")
USER = uuid4()
LATER = timedelta(days=1)
Do = Callable[[Bench, UUID], object]


def write(make: Callable[[Lease], Outcome]) -> Do:
    """An outcome under the newest lease: nothing but the state may stand against it."""

    def do(bench: Bench, task_id: UUID) -> object:
        ((number,),) = bench.sql("SELECT lease_no FROM tasks WHERE id = %s", str(task_id))
        return bench.engine.write([make(Lease(task_id, number))], "w")

    return do


def complete_for_callbacks(bench: Bench, task_id: UUID) -> None:
    bench.sql("UPDATE tasks SET callback_url = 'https://example.com/'")
    write(lambda lease: Succeeded(lease, "1"))(bench, task_id)


def tell_progress(bench: Bench, task_id: UUID) -> None:
    ((number,),) = bench.sql("SELECT lease_no FROM tasks WHERE id = %s", str(task_id))
    bench.engine.write_progress([Progress(Lease(task_id, number), 50, None)])


def delete_user(bench: Bench, task_id: UUID) -> None:
    event = Event(type="user.deleted", subject=USER, data={"id": str(USER)}, time=datetime.now(UTC))
    with bench.database.transaction() as session:
        bench.user_deleted(session, event)


def promote(bench: Bench, task_id: UUID) -> None:
    bench.sql("UPDATE tasks SET execute_at = now() WHERE state = 'scheduled'")
    bench.engine.promote(10)


def promote_suspect(bench: Bench, task_id: UUID) -> None:
    bench.register()
    bench.sql("UPDATE tasks SET suspects = 2")
    promote(bench, task_id)


def claim_limited(bench: Bench, task_id: UUID) -> None:
    bench.store.control("noop", {"max_running": 10})
    bench.engine._limited_until = 0.0
    bench.claim(bench.register())


def rescue(make: Callable[[Lease], Outcome]) -> Do:
    def do(bench: Bench, task_id: UUID) -> object:
        bench.sql("DELETE FROM workers")
        return bench.engine.rescue(lease_seconds=0.0, limit=10, rescuer="r", decide=lambda task: make(task.lease))

    return do


def prune(bench: Bench, task_id: UUID) -> None:
    MaintenanceStore(bench.database).prune_tasks(Retention(0.0, 0.0, 0.0), after=None, limit=10)


def retry_many(bench: Bench, task_id: UUID) -> None:
    ended = [State.FAILED, State.CANCELLED]
    BulkStore(bench.database).retry([Chosen(task_id, None, None)], ended, reach=Reach.all())


def will_retry(lease: Lease) -> Outcome:
    return WillRetry(lease, datetime.now(UTC) + LATER, ERROR)


#: Everything that writes a task which is there already, by the statement that does it.
WRITERS: dict[str, list[Do]] = {
    "cancel_of_user": [delete_user],
    "retry": [lambda bench, task_id: bench.store.retry(task_id, reach=Reach.all())],
    "purge": [lambda bench, task_id: bench.store.purge(task_id, reach=Reach.all())],
    "prune_tasks": [prune],
    "promote": [promote],
    "promote_suspects": [promote_suspect],
    "claim": [lambda bench, task_id: bench.claim(bench.register())],
    "claim_limited": [claim_limited],
    "complete": [write(lambda lease: Succeeded(lease, "1"))],
    "complete_for_callbacks": [complete_for_callbacks],
    "fail": [
        write(lambda lease: FailedForGood(lease, ERROR)),
        write(will_retry),
        rescue(lambda lease: FailedForGood(lease, ERROR)),
        rescue(will_retry),
    ],
    "hand_back": [write(HandedBack), rescue(HandedBack)],
    "stopped_after_cancel": [write(StoppedAfterCancel)],
    "write_progress": [tell_progress],
    "cancel_many": [
        lambda bench, task_id: bench.store.cancel(task_id, reach=Reach.all()),
        lambda bench, task_id: BulkStore(bench.database).cancel([task_id], reach=Reach.all()),
    ],
    "retry_many": [retry_many],
}
#: Parts of statements above, and one that writes beside an end, in its transaction.
PARTS = {"start", "completion", "cancelled", "prepare", "lock_limits_and_claim", "complete_briefly", "link_callbacks"}
FILES = ["queries.sql", "maintenance.sql", "schedules.sql", "messages.sql", "stats.sql"]


def bring(bench: Bench, state: State) -> UUID:
    """A task in this state, by the way that leads there."""
    later = datetime.now(UTC) + LATER if state is State.SCHEDULED else None
    task_id = bench.store.add(new_task(user_id=USER, execute_at=later)).id
    if state in (State.SCHEDULED, State.READY):
        return task_id
    (claimed,) = bench.claim(bench.register())
    if state is State.CANCELLED:
        bench.store.cancel(task_id, reach=Reach.all())
    elif state is not State.RUNNING:
        done = Succeeded(claimed.lease, "1") if state is State.COMPLETED else FailedForGood(claimed.lease, ERROR)
        bench.engine.write([done], "w")
    return task_id


def state_of(bench: Bench, task_id: UUID) -> State | None:
    rows = bench.sql("SELECT state FROM tasks WHERE id = %s", str(task_id))
    return State(rows[0][0]) if rows else None


def test_the_statements_allow_exactly_the_transitions_of_the_diagram(bench, tasks_database):
    steps: dict[State, set[State | None]] = {state: set() for state in State}
    for state in State:
        for writers in WRITERS.values():
            for do in writers:
                tasks_database.administer("TRUNCATE tasks, workers, task_type_controls, tombstones")
                task_id = bring(bench, state)
                assert state_of(bench, task_id) is state
                do(bench, task_id)
                steps[state].add(state_of(bench, task_id))

    # A removal is no state; and each leaves some as they were.
    assert {state: after - {None, state} for state, after in steps.items()} == TRANSITIONS
    assert all(None in after for after in steps.values())


def test_a_new_task_is_in_one_of_the_first_states(bench):
    later = datetime.now(UTC) + LATER
    for execute_at in (None, later):
        bench.store.add(new_task(execute_at=execute_at))
        bench.store.add_many([new_task(execute_at=execute_at)], reach=Reach.all())

    assert {State(row[0]) for row in bench.sql("SELECT state FROM tasks")} == FIRST_STATES


def test_every_statement_that_writes_a_task_is_among_the_writers():
    changes = re.compile(r"\b(UPDATE|DELETE FROM) tasks\b")
    written = {name for file in FILES for name, text in load_queries(file).items() if changes.search(text)}

    assert written - PARTS == WRITERS.keys()
    assert {path.name for path in Path(queries.__file__).parent.glob("*.sql")} == set(FILES)
