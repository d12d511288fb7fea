"""Two workers, a rescuer and people do whatever comes into their heads; a model in memory says what must come of it.

The real stores on a real PostgreSQL. Every accepted and every refused write, every claim and every rescue is foretold
by the model, and after each step the table must look as the model does. A worker remembers every lease it ever had and
may come back with any of them: a result of last week is as likely as one in time. Transactions are left open on the
way, so that a rescue, a claim and a removal meet rows that somebody is just writing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import (
    ENDED_STATES,
    LIVE_STATES,
    RETRYABLE_STATES,
    TRANSITIONS,
    AttemptError,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Outcome,
    Progress,
    State,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.ports import Retention
from service_tasks.engine.runner import decide_lost
from service_tasks.errors import UniqueKeyTaken
from service_tasks.persistence.dedicated_connections import open_apart
from service_tasks.persistence.maintenance_store import MaintenanceStore
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import Bench, new_task
from tests.support.postgres import ServiceDatabase

#: What the suite takes; by hand, more: STATE_MACHINE_STEPS=20000
STEPS = int(os.environ.get("STATE_MACHINE_STEPS", "2000"))
STEPS_OF_ONE = 50
WORKERS = ("a", "b")
#: No live worker of these tests is silent for longer, since its last word is an hour ahead.
LEASE_SECONDS = 0.01
ERROR = AttemptError("Broken", "it broke")
LATER = timedelta(days=1)
LIMITS = {
    State.COMPLETED: "completed_seconds",
    State.FAILED: "failed_seconds",
    State.CANCELLED: "cancelled_seconds",
}


@dataclass
class Model:
    """One task as it should be."""

    id: UUID
    state: State
    max_attempts: int
    priority: int
    unique_key: str | None
    attempts: int = 0
    lease_no: int = 0
    worker: str | None = None
    #: of a scheduled task: its time has come
    due: bool = False
    #: of a running task: its deadline is long past
    overdue: bool = False
    result: str | None = None
    error: str | None = None
    errors: list[int] = field(default_factory=list)
    percent: int = 0
    suspects: int | None = None

    def holds(self, lease: Lease) -> bool:
        """Whether a write under this lease counts."""
        return self.state is State.RUNNING and self.lease_no == lease.number

    def leave(self, state: State) -> None:
        """Run no more."""
        self.state, self.overdue = state, False
        if state is not State.CANCELLED:
            self.worker = None


class Tasks(RuleBasedStateMachine):
    """The rules. The fields without a value are set by the test."""

    bench: Bench
    own: ServiceDatabase
    #: one round trip, in a transaction of its own
    look: Callable[..., list[tuple[Any, ...]]]
    steps: Counter[str]
    seen: Counter[tuple[State, State]]

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[UUID, Model] = {}
        self.leases: list[Lease] = []
        self.workers: dict[str, UUID] = {}
        self.alive: dict[str, bool] = {}
        #: an open transaction, and the tasks that it has locked
        self.open: ExitStack | None = None
        self.locked: frozenset[UUID] = frozenset()
        self.before: dict[UUID, Model] = {}

    @initialize()
    def begin(self) -> None:
        self.own.administer("TRUNCATE tasks, workers")
        self.maintenance = MaintenanceStore(self.bench.database)
        for name in WORKERS:
            self.workers[name] = self.bench.register(lease_seconds=LEASE_SECONDS)
            self.bench.keep_alive(self.workers[name])
            self.alive[name] = True

    def teardown(self) -> None:
        if self.open is not None:
            self.open.close()

    # Choosing

    def some(self, data: st.DataObject, ids: list[UUID]) -> UUID:
        return data.draw(st.sampled_from(ids))

    def free(self, *states: State) -> list[UUID]:
        """Tasks that nobody has locked: to write another would wait for the open transaction."""
        return [task.id for task in self.tasks.values() if task.state in states and task.id not in self.locked]

    # What a rule needs it brings about, so that each step does something.

    def need(self, state: State) -> list[UUID]:
        """Free tasks in this state, at least one."""
        if not self.free(state):
            if state in (State.READY, State.SCHEDULED):
                self.make(state is State.SCHEDULED)
            elif state is State.RUNNING:
                self.need(State.READY)
                self.take(WORKERS[0], 1)
            elif state is State.CANCELLED:
                self.stop(self.need(State.READY)[0])
            else:
                self.need(State.RUNNING)
                lease = self.current()[0]
                self.write([Succeeded(lease, "1") if state is State.COMPLETED else FailedForGood(lease, ERROR)])
        return self.free(state)

    def make(self, later: bool = False, priority: int = 50, most: int = 3, key: str | None = None) -> None:
        task = new_task(
            priority=priority,
            max_attempts=most,
            unique_key=key,
            execute_at=datetime.now(UTC) + LATER if later else None,
        )
        taken = key is not None and self.alive_key(key) is not None
        stored = self.bench.store.add(task)
        assert (stored is None) == taken
        if stored is not None:
            state = State.SCHEDULED if later else State.READY
            self.tasks[task.id] = Model(task.id, state, most, priority, key)

    def move(self, task: Model, state: State) -> None:
        assert state is task.state or state in TRANSITIONS[task.state], f"{task.state} to {state}"
        self.seen[task.state, state] += 1
        task.state = state

    # People

    @rule(
        how_many=st.integers(1, 3),
        later=st.sampled_from([False, False, True]),
        priority=st.sampled_from([0, 50, 100]),
        most=st.integers(1, 3),
        key=st.sampled_from([None, None, "k1", "k2"]),
    )
    def create(self, how_many: int, later: bool, priority: int, most: int, key: str | None) -> None:
        if key is not None and self.is_being_written(key):
            return
        for _ in range(how_many):
            self.make(later, priority, most, key)

    def is_being_written(self, key: str) -> bool:
        """Whoever wants this key now would wait for the open transaction."""
        return any(task.unique_key == key and task.id in self.locked for task in self.tasks.values())

    def alive_key(self, key: str) -> Model | None:
        return next((t for t in self.tasks.values() if t.unique_key == key and t.state in LIVE_STATES), None)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.stop(self.some(data, self.need(data.draw(st.sampled_from(State)))))

    def stop(self, task_id: UUID) -> None:
        task = self.tasks[task_id]
        cancelled = self.bench.store.cancel(task.id, reach=Reach.all())
        assert (cancelled is not None) == (task.state in LIVE_STATES)
        if cancelled is not None:
            self.move(task, State.CANCELLED)
            task.leave(State.CANCELLED)
            task.due = False

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        task = self.tasks[self.some(data, self.need(data.draw(st.sampled_from(sorted(ENDED_STATES)))))]
        key = task.unique_key
        if key is not None and task.state in RETRYABLE_STATES:
            other = self.alive_key(key)
            if self.is_being_written(key):
                return
            if other is not None:
                with pytest.raises(UniqueKeyTaken):
                    self.bench.store.retry(task.id, reach=Reach.all())
                return
        retried = self.bench.store.retry(task.id, reach=Reach.all())
        assert (retried is not None) == (task.state in RETRYABLE_STATES)
        if retried is not None:
            self.move(task, State.READY)
            task.attempts, task.worker, task.result, task.error, task.percent = 0, None, None, None, 0
            task.suspects = None

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        task = self.tasks.pop(self.some(data, self.need(data.draw(st.sampled_from(State)))))
        purged = self.bench.store.purge(task.id, reach=Reach.all())
        assert purged is not None
        assert purged.state is (State.CANCELLED if task.state in LIVE_STATES else task.state)
        assert self.bench.store.purge(task.id, reach=Reach.all()) is None

    # Time

    @rule()
    def time_comes(self) -> None:
        for task_id in self.need(State.SCHEDULED):
            self.look("UPDATE tasks SET execute_at = now() WHERE id = %s", str(task_id))
            self.tasks[task_id].due = True

    @rule(data=st.data())
    def its_deadline_passes(self, data: st.DataObject) -> None:
        task = self.tasks[self.some(data, self.need(State.RUNNING))]
        self.bench.sql("UPDATE tasks SET deadline_at = now() - interval '1 hour' WHERE id = %s", str(task.id))
        task.overdue = True

    def due(self) -> list[Model]:
        return [t for t in self.tasks.values() if t.state is State.SCHEDULED and t.due and t.id not in self.locked]

    @rule(limit=st.integers(1, 3), time_has_come=st.booleans())
    def promote(self, limit: int, time_has_come: bool) -> None:
        self.need(State.SCHEDULED)
        if time_has_come:
            self.time_comes()
        due = [task for task in self.due() if task.suspects is None]
        suspects = self.suspects_whose_turn_it_is()
        ready = {row[0] for row in self.look("SELECT id FROM tasks WHERE state = 'ready'")}
        first = min(limit, len(due))
        promoted = self.bench.engine.promote(limit).promoted
        assert promoted == first + min(limit - first, suspects.total())
        ready = {row[0] for row in self.look("SELECT id FROM tasks WHERE state = 'ready'")} - ready
        moved = [self.tasks[task_id] for task_id in ready]
        assert Counter(task.suspects for task in moved if task.suspects is not None) <= suspects
        assert sum(task.suspects is None for task in moved) == first
        for task in moved:
            self.move(task, State.READY)
            task.due = False

    def suspects_whose_turn_it_is(self) -> Counter[int]:
        """How many of each number may go on: a third of it at once, with those that are among as few or fewer."""
        committed = [self.before[task.id] if task.id in self.locked else task for task in self.tasks.values()]
        if not any(self.alive.values()):
            return Counter()
        under_way = [
            task.suspects for task in committed if task.suspects and task.state in (State.READY, State.RUNNING)
        ]
        waiting = Counter(
            task.suspects for task in committed if task.suspects and task.state is State.SCHEDULED and task.due
        )
        turns: Counter[int] = Counter()
        before = 0
        for number in sorted(waiting):
            most = (number + 2) // 3
            candidates = min(waiting[number], most)
            taken = before + sum(other <= number for other in under_way)
            turns[number] = max(0, min(candidates, most - taken))
            before += candidates
        return +turns

    # Workers

    @rule(name=st.sampled_from(WORKERS), lives=st.booleans())
    def speak_or_fall_silent(self, name: str, lives: bool) -> None:
        if lives:
            self.bench.keep_alive(self.workers[name])
        else:
            self.bench.silence(self.workers[name])
        self.alive[name] = lives

    @rule(name=st.sampled_from(WORKERS), limit=st.integers(1, 5))
    def claim(self, name: str, limit: int) -> None:
        self.need(State.READY)
        self.take(name, limit)

    def take(self, name: str, limit: int) -> None:
        ready = [t for t in self.of(State.READY) if t.id not in self.locked]
        turns = dict(
            self.look("SELECT id, execute_at - priority * interval '1 minute' FROM tasks WHERE state = 'ready'")
        )
        first = sorted((task.id for task in ready), key=lambda task_id: (turns[task_id], task_id))[:limit]
        claimed = self.bench.claim(self.workers[name], limit=limit)
        assert [item.lease.task_id for item in claimed] == first
        for item in claimed:
            task = self.tasks[item.lease.task_id]
            self.move(task, State.RUNNING)
            task.attempts, task.lease_no, task.worker, task.percent = task.attempts + 1, task.lease_no + 1, name, 0
            assert (item.lease.number, item.attempt, item.max_attempts) == (
                task.lease_no,
                task.attempts,
                task.max_attempts,
            )
            self.leases.append(item.lease)

    def of(self, *states: State) -> list[Model]:
        return [task for task in self.tasks.values() if task.state in states]

    def outcome(self, data: st.DataObject, lease: Lease) -> Outcome:
        kind = data.draw(st.sampled_from([Succeeded, WillRetry, FailedForGood, HandedBack, StoppedAfterCancel]))
        if kind is Succeeded:
            return Succeeded(lease, str(lease.number))
        task = self.tasks.get(lease.task_id)
        if kind is WillRetry and task is not None and task.holds(lease) and task.attempts == task.max_attempts:
            # What domain.retry decides for a last attempt.
            kind = FailedForGood
        if kind is WillRetry:
            return WillRetry(lease, datetime.now(UTC) + LATER, ERROR)
        return FailedForGood(lease, ERROR) if kind is FailedForGood else kind(lease)

    def current(self) -> list[Lease]:
        return [Lease(task.id, task.lease_no) for task in self.of(State.RUNNING) if task.id not in self.locked]

    def leases_to_write(self, data: st.DataObject, pool: list[Lease]) -> list[Lease]:
        """Some of these, each once, none of a locked task. There may be two of one task: of now and of before."""
        free = [lease for lease in pool if lease.task_id not in self.locked]
        chosen = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=4)) if free else []
        return list(dict.fromkeys(chosen))

    def expect(self, outcomes: list[Outcome]) -> set[Lease]:
        """What the model says of a write: changes it, and gives the leases that are accepted."""
        accepted = set()
        # As the store does, one kind after the other.
        kinds = (Succeeded, (WillRetry, FailedForGood), HandedBack, StoppedAfterCancel)
        for outcome in [item for kind in kinds for item in outcomes if isinstance(item, kind)]:
            task = self.tasks.get(outcome.lease.task_id)
            if task is None:
                continue
            if isinstance(outcome, StoppedAfterCancel):
                if task.state is State.CANCELLED and task.lease_no == outcome.lease.number:
                    task.worker = None
                    accepted.add(outcome.lease)
            elif task.holds(outcome.lease):
                self.end_attempt(task, outcome)
                accepted.add(outcome.lease)
        return accepted

    def end_attempt(self, task: Model, outcome: Outcome) -> None:
        if isinstance(outcome, Succeeded):
            self.move(task, State.COMPLETED)
            task.result, task.error, task.percent = outcome.result, None, 100
        elif isinstance(outcome, HandedBack):
            self.move(task, State.READY)
            task.attempts, task.percent = task.attempts - 1, 0
        else:
            self.move(task, State.SCHEDULED if isinstance(outcome, WillRetry) else State.FAILED)
            task.error = ERROR.message
            task.errors.append(task.attempts)
            task.suspects = outcome.suspects if isinstance(outcome, WillRetry) else None
            task.attempts -= task.suspects is not None and task.suspects > 1
            task.due = False
        task.leave(task.state)

    def write(self, outcomes: list[Outcome]) -> None:
        expected = self.expect(outcomes) | self.written_before(outcomes)
        assert self.bench.engine.write(outcomes, "w") == expected

    def written_before(self, outcomes: list[Outcome]) -> set[Lease]:
        """Of results alone the store accepts those again that it has: the answer may have been lost on the way."""
        if not all(isinstance(item, Succeeded) for item in outcomes):
            return set()
        tasks = ((item.lease, self.tasks.get(item.lease.task_id)) for item in outcomes)
        return {
            lease
            for lease, task in tasks
            if task is not None and (task.state, task.lease_no) == (State.COMPLETED, lease.number)
        }

    @rule(data=st.data())
    def write_in_time(self, data: st.DataObject) -> None:
        self.need(State.RUNNING)
        self.write([self.outcome(data, lease) for lease in self.leases_to_write(data, self.current())])

    @rule(data=st.data())
    def write_whenever(self, data: st.DataObject) -> None:
        self.need(State.RUNNING)
        self.write([self.outcome(data, lease) for lease in self.leases_to_write(data, self.leases)])

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A worker that stops hands back what it holds."""
        self.need(State.RUNNING)
        self.write([HandedBack(lease) for lease in self.leases_to_write(data, self.current())])

    @rule(data=st.data(), percent=st.integers(1, 99))
    def tell_progress(self, data: st.DataObject, percent: int) -> None:
        self.need(State.RUNNING)
        leases = self.leases_to_write(data, self.current() + self.leases)
        self.bench.engine.write_progress([Progress(lease, percent, None) for lease in leases])
        for lease in leases:
            task = self.tasks.get(lease.task_id)
            if task is not None and task.holds(lease):
                task.percent = percent

    def matching(self, outcomes: list[Outcome]) -> set[Lease]:
        """Leases that name the present one of a task that runs or was cancelled."""
        return {
            item.lease
            for item in outcomes
            if (task := self.tasks.get(item.lease.task_id)) is not None
            and task.lease_no == item.lease.number
            and task.state in (State.RUNNING, State.CANCELLED)
        }

    @rule(data=st.data(), commits=st.booleans())
    def begin_to_write_or_end(self, data: st.DataObject, commits: bool) -> None:
        """Outcomes written and not committed: whoever comes now finds the rows locked."""
        if self.open is None:
            self.need(State.RUNNING)
            pool = self.current() + self.leases
            outcomes = [self.outcome(data, lease) for lease in self.leases_to_write(data, pool)]
            self.before = {task.id: replace(task, errors=list(task.errors)) for task in self.tasks.values()}
            matching = self.matching(outcomes)
            expected = self.expect(outcomes)
            self.open = ExitStack()
            self.session = self.open.enter_context(self.bench.database.transaction())
            assert self.bench.engine._write(self.session, outcomes, "w") == expected
            # Outcomes of several kinds are locked before they are written, also those that are refused then.
            several = len({WillRetry if isinstance(item, FailedForGood) else type(item) for item in outcomes}) > 1
            self.locked = frozenset(lease.task_id for lease in (matching if several else expected))
        else:
            if not commits:
                self.session.rollback()
                self.tasks.update({task_id: self.before[task_id] for task_id in self.locked})
            self.open.close()
            self.open, self.locked = None, frozenset()

    # The rescuer and the pruner

    def is_lost(self, task: Model) -> bool:
        """By what is committed: a rescuer does not see what another has written and not committed."""
        return task.state is State.RUNNING and (task.overdue or not self.alive[task.worker or ""])

    @rule(data=st.data(), claims_meanwhile=st.booleans())
    def rescue(self, data: st.DataObject, claims_meanwhile: bool) -> None:
        lost = {task.id for task in self.tasks.values() if task.id not in self.locked and self.is_lost(task)}
        outcomes: list[Outcome] = []

        def decide(task: LostTask) -> Outcome:
            if claims_meanwhile and not outcomes:
                # The rows are held now: a second rescuer gets none of them, and nobody waits for anybody.
                assert self.bench.engine.rescue(lease_seconds=0.0, limit=10, rescuer="second", decide=decide) == []
            model = self.tasks[task.lease.task_id]
            assert (task.attempt, task.overdue) == (model.attempts, self.alive[model.worker or ""])
            assert (task.suspects, task.company) == (model.suspects, self.company(model))
            outcome = decide_lost(task, 0.5, RetryPolicy())
            if isinstance(outcome, WillRetry):
                outcome = replace(outcome, at=task.lost_at + LATER, error=ERROR)
            else:
                outcome = FailedForGood(task.lease, ERROR)
            outcomes.append(outcome)
            return outcome

        rescued = self.bench.engine.rescue(lease_seconds=0.0, limit=10, rescuer="rescuer", decide=decide)
        assert {outcome.lease.task_id for outcome in rescued} == lost
        assert self.expect(rescued) == {outcome.lease for outcome in rescued}

    def company(self, task: Model) -> int:
        """The tasks of its worker that are among as few suspects or fewer, by what is committed."""
        committed = [self.before[one.id] if one.id in self.locked else one for one in self.tasks.values()]
        return sum(
            one.state is State.RUNNING
            and one.worker == task.worker
            and (task.suspects is None or (one.suspects is not None and one.suspects <= task.suspects))
            for one in committed
        )

    @rule(goes=st.sampled_from(sorted(LIMITS)))
    def remove_old_ones(self, goes: State) -> None:
        self.need(goes)
        kept = {name: 0.0 if state is goes else None for state, name in LIMITS.items()}
        old = [task for task in self.of(goes) if task.id not in self.locked]
        removed = self.maintenance.prune_tasks(Retention(**kept), after=None, limit=1000).removed
        assert removed == len(old)
        for task in old:
            del self.tasks[task.id]

    # What must hold after every step

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        self.steps["steps"] += 1
        rows = self.look(
            "SELECT id, state, attempts, lease_no, worker_id, result::text, error, progress_percent, suspects,"
            " ARRAY(SELECT (e->>'attempt')::int FROM jsonb_array_elements(errors) e) FROM tasks"
        )
        uncommitted = {task_id: self.before[task_id] for task_id in self.locked}
        model = {**self.tasks, **uncommitted}
        assert {row[0]: tuple(row[1:]) for row in rows} == {
            task.id: (
                task.state,
                task.attempts,
                task.lease_no,
                None if task.worker is None else self.workers[task.worker],
                task.result,
                task.error,
                task.percent,
                task.suspects,
                task.errors,
            )
            for task in model.values()
        }

    @rule(name=st.sampled_from(WORKERS))
    def compare(self, name: str) -> None:
        """A worker asks what it holds, and which of its tasks were cancelled."""
        model = [self.before[task.id] if task.id in self.locked else task for task in self.tasks.values()]
        mine = [task for task in model if task.worker == name]
        held = {Lease(task.id, task.lease_no) for task in mine if task.state is State.RUNNING}
        stopping = {Lease(task.id, task.lease_no) for task in mine if task.state is State.CANCELLED}
        assert self.bench.engine.held_by(self.workers[name]) == held
        assert self.bench.engine.cancelled_under(self.workers[name]) == stopping


@pytest.fixture
def machine(tasks_database) -> Iterator[type[Tasks]]:
    # One transaction stays open for as many steps as it takes.
    database = Database(
        tasks_database.url, application_name="machine", pool_size=4, idle_in_transaction_timeout_ms=100_000
    )
    line = open_apart(database, "SET application_name = 'looks'")

    def look(self: Tasks, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
        with line.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    given = {"bench": Bench(database), "own": tasks_database, "look": look, "steps": Counter(), "seen": Counter()}
    yield type("Machine", (Tasks,), given)
    line.close()
    database.dispose()


@pytest.mark.timeout(1200 if STEPS > 2000 else 120)
def test_two_workers_a_rescuer_and_people_never_leave_the_model(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            # Some end before their time.
            max_examples=STEPS // (STEPS_OF_ONE - 15),
            stateful_step_count=STEPS_OF_ONE,
            # The same steps each time; more and others by hand.
            derandomize=STEPS == 2000,
            database=None,
            # A step that waits for a lock takes seconds: no shorter example is looked for.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )

    assert machine.steps["steps"] >= STEPS
    # And nothing was left out.
    assert machine.seen.keys() >= {(source, target) for source, targets in TRANSITIONS.items() for target in targets}
