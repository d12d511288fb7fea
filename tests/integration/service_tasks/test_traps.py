"""The traps of task queues, each by its name: real worker processes, killed, stopped and cut off where it hurts.

Nothing here waits for time to pass. Where something must not happen, a canary tells that whoever could have done it has
had its chance: the task of a dead worker, rescued and run by the one that leads.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.engine import Connection

from service_tasks.domain.task import HandedBack, LostTask, Outcome, State, Succeeded
from service_tasks.engine.ports import READY
from service_tasks.persistence.statements import Statements
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import Bench, WorkerProcess, new_task
from tests.support.postgres import TestServer
from tests.support.task_workers import ForkedWorker
from tests.support.waiting import eventually

#: A worker that never rescues anybody, since it never has been connected for so long, and says but once that it lives.
SILENT = {"WORKER_LEASE_SECONDS": "600"}
#: For tests in which nobody may be taken for dead because the machine is busy.
PATIENT = {"WORKER_LEASE_SECONDS": "20"}
LIMIT = 30.0


class Site:
    """One database, the worker processes on it and the journal of what they ran."""

    def __init__(self, bench: Bench, url: str, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self._url = url
        self.payload = json.dumps({"folder": str(folder)})
        self._workers: list[ForkedWorker] = []

    def start(self, *types: str, **options) -> ForkedWorker:
        """Start a worker process for these types."""
        worker = ForkedWorker(self.folder, self._url, types, **options)
        self._workers.append(worker)
        return worker

    def start_leader(self) -> ForkedWorker:
        """One that does what is to be done for all, and runs nothing but noop."""
        worker = self.start("noop")
        worker.heard("leader_elected")
        return worker

    def end(self) -> None:
        """Kill whatever still runs."""
        for worker in self._workers:
            if worker.process.exitcode is None:
                worker.end()

    def add(self, task_type: str, **changes) -> UUID:
        return self.bench.add(task_type, payload=self.payload, **changes)

    def journal(self, what: str, task_id: UUID) -> list[int]:
        """The processes in which this happened to the task, in order."""
        return [pid for said, task, pid in self._entries() if (said, task) == (what, str(task_id))]

    def began(self) -> dict[str, list[int]]:
        """The processes in which each task began."""
        found: dict[str, list[int]] = {}
        for said, task, pid in self._entries():
            if said == "began":
                found.setdefault(task, []).append(pid)
        return found

    def count(self, what: str) -> Counter[str]:
        """How often it happened to each task."""
        return Counter(task for said, task, _ in self._entries() if said == what)

    def _entries(self) -> list[tuple[str, str, int]]:
        file = self.folder / "journal"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [(said, task, int(pid)) for said, task, _, pid in (line.split() for line in lines)]

    def begun(self, task_id: UUID) -> None:
        """Wait until its handler has begun."""
        eventually(lambda: self.journal("began", task_id), timeout=LIMIT, what="the handler begins")

    def release(self) -> None:
        """Let every handler return that waits."""
        (self.folder / "release").touch()

    def state(self, task_id: UUID, *states: State):
        return self.bench.wait_for(task_id, *states, timeout=LIMIT)

    def worker_row(self, task_id: UUID) -> UUID:
        """The worker that holds the task."""
        return self.bench.sql("SELECT worker_id FROM tasks WHERE id = %s", str(task_id))[0][0]

    def waits_for_a_lock(self, statement: str) -> list[int]:
        """Wait until a worker's statement waits for a lock, and give its session."""
        return eventually(
            lambda: [
                row[0]
                for row in self.bench.sql(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name LIKE 'task_worker%%' AND wait_event_type = 'Lock' AND query LIKE %s",
                    f"%{statement}%",
                )
            ],
            timeout=LIMIT,
            what=f"{statement} waits for a lock",
        )

    def let_the_rescuer_have_its_chance(self) -> None:
        """A dead worker's task is rescued and run by the leader: so would any other have been."""
        dead = self.bench.register(lease_seconds=1.0)
        canary = self.bench.add("canary")
        assert len(self.bench.claim(dead, "canary")) == 1
        self.bench.silence(dead)
        assert self.state(canary, State.SCHEDULED, State.READY).attempts == 1

    def sessions(self, query: str, *, state: str) -> list[int]:
        """Those whose last statement is like this."""
        rows = self.bench.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'task_worker%%' AND query LIKE %s AND state = %s",
            query,
            state,
        )
        return [row[0] for row in rows]

    def terminate(self, session: int) -> None:
        """End a session, and wait until it is gone."""
        self.bench.sql("SELECT pg_terminate_backend(%s, 5000)", session)

    @contextmanager
    def locked(self, statement: str, *parameters: str) -> Iterator[None]:
        """Hold a lock meanwhile."""
        with self.bench.database.engine.connect() as connection:
            connection: Connection
            connection.exec_driver_sql(statement, parameters)
            yield
            connection.rollback()

    def locked_row(self, task_id: UUID):
        return self.locked("SELECT FROM tasks WHERE id = %s FOR UPDATE", str(task_id))


COMPLETION = "SET state = 'completed'"
HAND_BACK = "SET state = 'ready', attempts = t.attempts - 1"


@pytest.fixture
def site(bench, tasks_database, tmp_path) -> Iterator[Site]:
    site = Site(bench, tasks_database.url, tmp_path)
    yield site
    site.end()


# A result against a rescue, a cancel and a purge, in both orders


def behind_a_rescue(site: Site, task_id: UUID, then: Callable[[], None]) -> None:
    bench = site.bench
    bench.sql("UPDATE workers SET lease_seconds = 0.01, heartbeat_at = now() - interval '1 hour'")

    def decide(task: LostTask) -> Outcome:
        then()
        return HandedBack(task.lease)

    assert len(bench.engine.rescue(lease_seconds=0.0, limit=10, rescuer="rescuer", decide=decide)) == 1


def behind_a(statement: str) -> Callable[[Site, UUID, Callable[[], None]], None]:
    statements = Statements("queries.sql")

    def change(site: Site, task_id: UUID, then: Callable[[], None]) -> None:
        with site.bench.database.transaction() as session:
            which = {"id": str(task_id), "ids": [str(task_id)], "reach": None}
            assert statements.row(session, statement, **which, reason=None) is not None
            then()

    return change


CHANGES = {"rescue": behind_a_rescue, "cancel": behind_a("cancel_many"), "purge": behind_a("purge")}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_that_waits_for_a_change_under_way_is_refused(site, change):
    worker = site.start("is_deaf", **SILENT)
    task_id = site.add("is_deaf")
    site.begun(task_id)

    def let_it_return() -> None:
        site.release()
        site.waits_for_a_lock(COMPLETION)

    CHANGES[change](site, task_id, let_it_return)

    worker.heard("late_result_refused")
    task = site.bench.store.get(task_id, reach=Reach.all())
    if change == "purge":
        assert task is None
    else:
        # Handed back it runs again, and that result counts.
        again = site.state(task_id, State.COMPLETED if change == "rescue" else State.CANCELLED)
        assert (again.result is None) == (change == "cancel")
        assert len(site.journal("began", task_id)) == (2 if change == "rescue" else 1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_that_comes_after_a_change_is_refused(site, change):
    # Has no place for another task before this one has returned.
    worker = site.start("is_deaf", WORKER_CONCURRENCY="1", **SILENT)
    task_id = site.add("is_deaf")
    site.begun(task_id)

    # Not announced: the worker hears nothing of it before its handler returns, or too late to stop this handler.
    CHANGES[change](site, task_id, lambda: None)
    second = site.bench.claim(site.bench.register(lease_seconds=600.0), "is_deaf")
    site.release()
    eventually(lambda: site.journal("returned", task_id), timeout=LIMIT)

    if change == "rescue":
        worker.heard("late_result_refused")
        assert site.bench.get(task_id).state is State.RUNNING
        assert len(site.bench.engine.write([Succeeded(second[0].lease, '"good"')], "second")) == 1
        assert site.bench.get(task_id).result == '"good"'
    elif change == "cancel":
        eventually(lambda: site.worker_row(task_id) is None, timeout=LIMIT, what="the worker tells that it stopped")
        assert (site.bench.get(task_id).state, site.bench.get(task_id).result) == (State.CANCELLED, None)
    else:
        site.state(site.add("is_deaf"), State.COMPLETED)
        assert site.bench.store.get(task_id, reach=Reach.all()) is None


def test_a_rescue_passes_over_a_task_whose_result_is_just_being_written(site):
    worker = site.start("waits", TASK_EVENTS="completed", **SILENT)
    task_id = site.add("waits")
    site.begun(task_id)
    site.bench.sql("UPDATE workers SET lease_seconds = 0.01, heartbeat_at = now() - interval '1 hour'")

    # Behind its row the completion writes an event: there it is held, its row written and not committed.
    with site.locked("LOCK TABLE outbox IN SHARE MODE"):
        site.release()
        site.waits_for_a_lock("outbox")
        rescued = site.bench.engine.rescue(
            lease_seconds=0.0, limit=10, rescuer="rescuer", decide=lambda task: HandedBack(task.lease)
        )

    assert rescued == []
    task = site.state(task_id, State.COMPLETED)
    assert (task.attempts, task.result) == (1, str(worker.pid))


# kill -9 at every step of a task's life. Each of these brings a task of its type to that step, kills its worker there
# and gives the task.


def kill_while_its_claim_is_under_way(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    """The database still commits the claim: by the table, the task runs in a process that is gone."""
    claim = f"EXECUTE claim%'{task_type}'"

    def knows_the_statement() -> bool:
        """Whether the thread that hears of tasks has a connection on which the claim is prepared."""
        site.state(site.add("runs"), State.COMPLETED)
        return len(site.sessions("EXECUTE %", state="idle")) >= 2

    eventually(knows_the_statement, what="both threads of the worker that claim have done so")
    worker.send(signal.SIGSTOP)
    eventually(lambda: not site.sessions(f"%{claim}%", state="active"), what="its last claim is over")
    task_id = site.add(task_type)
    with site.locked("LOCK TABLE tasks IN SHARE MODE"):
        worker.send(signal.SIGCONT)
        site.waits_for_a_lock(claim)
        worker.end()
    eventually(lambda: site.worker_row(task_id), timeout=LIMIT, what="the claim is committed")
    return task_id


def kill_before_its_handler_begins(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    """Claimed, but another handler holds up the event loop."""
    site.begun(site.add("blocks"))
    task_id = site.add(task_type)
    site.state(task_id, State.RUNNING)
    worker.end()
    return task_id


def kill_while_its_handler_runs(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    task_id = site.add(task_type)
    site.begun(task_id)
    worker.end()
    return task_id


def kill_before_its_result_is_written(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    """The statement has been sent, and comes to nothing."""
    task_id = site.add(task_type)
    site.begun(task_id)
    with site.locked_row(task_id):
        site.release()
        (session,) = site.waits_for_a_lock(COMPLETION)
        worker.end()
        site.terminate(session)
    return task_id


def kill_while_its_result_is_being_written(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    """The database brings the statement to its end, though nobody is there to hear of it."""
    task_id = site.add(task_type)
    site.begun(task_id)
    with site.locked_row(task_id):
        site.release()
        site.waits_for_a_lock(COMPLETION)
        worker.end()
    return task_id


def kill_after_its_result_was_written(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    site.release()
    task_id = site.add(task_type)
    site.state(task_id, State.COMPLETED)
    worker.end()
    return task_id


def kill_while_it_waits_for_its_next_attempt(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    task_id = site.add(task_type)
    site.state(task_id, State.SCHEDULED)
    worker.end()
    return task_id


def kill_while_it_is_handed_back(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    task_id = site.add(task_type)
    site.begun(task_id)
    with site.locked_row(task_id):
        worker.send(signal.SIGTERM)
        (session,) = site.waits_for_a_lock(HAND_BACK)
        worker.end()
        site.terminate(session)
    return task_id


def kill_while_its_handler_is_told_of_its_cancel(site: Site, worker: ForkedWorker, task_type: str) -> UUID:
    task_id = site.add(task_type)
    site.begun(task_id)
    assert site.bench.store.cancel(task_id, reach=Reach.all()) is not None
    worker.end()
    return task_id


@dataclass(frozen=True)
class Step:
    """What comes of the task: how often it was counted, how often its handler began."""

    reach: Callable[[Site, ForkedWorker, str], UUID]
    attempts: int
    began: int
    ends: State = State.COMPLETED
    task_type: str = "waits"
    backoff_seconds: float = 0.05


STEPS = (
    Step(kill_while_its_claim_is_under_way, attempts=2, began=1),
    # Given back, for the one that holds up the event loop died with it.
    Step(kill_before_its_handler_begins, attempts=1, began=1),
    Step(kill_while_its_handler_runs, attempts=2, began=2),
    # Of a type of which one runs at a time: its place is free again.
    Step(kill_while_its_handler_runs, attempts=2, began=2, task_type="waits_alone"),
    Step(kill_before_its_result_is_written, attempts=2, began=2),
    Step(kill_while_its_result_is_being_written, attempts=1, began=1),
    Step(kill_after_its_result_was_written, attempts=1, began=1),
    Step(kill_while_it_waits_for_its_next_attempt, attempts=2, began=2, task_type="fails_once", backoff_seconds=1.0),
    Step(kill_while_it_is_handed_back, attempts=2, began=2),
    Step(kill_while_its_handler_is_told_of_its_cancel, attempts=1, began=1, ends=State.CANCELLED, task_type="is_deaf"),
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.reach.__name__}-{step.task_type}")
def test_kill_9_at_every_step_loses_no_task_and_runs_none_again_that_has_ended(site, step):
    site.start_leader()
    worker = site.start(step.task_type, "blocks", "runs", backoff_seconds=step.backoff_seconds)
    eventually(lambda: step.task_type in site.bench.store.live_types(), timeout=LIMIT, what="the worker lives")

    task_id = step.reach(site, worker, step.task_type)
    assert worker.process.exitcode == -signal.SIGKILL
    site.release()
    second = site.start(step.task_type)

    if step.attempts == 1:
        site.let_the_rescuer_have_its_chance()
    task = site.state(task_id, step.ends)
    assert (task.attempts, len(site.journal("began", task_id))) == (step.attempts, step.began)
    if step.attempts == 2:
        assert task.result == str(second.pid)
        lost = "ValueError" if step.task_type == "fails_once" else "WorkerLost"
        assert [error["type"] for error in json.loads(task.errors)] == [lost]


def test_a_task_that_kills_its_worker_each_time_ends_as_failed(site):
    site.start_leader()
    task_id = site.add("kills", max_attempts=2)

    for attempt in (1, 2):
        worker = site.start("kills")
        assert worker.ended(timeout=LIMIT) == -signal.SIGKILL
        assert len(site.journal("began", task_id)) == attempt

    task = site.state(task_id, State.FAILED)
    assert task.attempts == 2
    assert [error["type"] for error in json.loads(task.errors)] == ["WorkerLost", "WorkerLost"]


# Stopped and told to stop


def test_a_task_that_kills_its_worker_costs_those_beside_it_no_attempt(site):
    site.start_leader()
    worker = site.start("waits", "kills")
    beside = [site.add("waits") for _ in range(12)]
    for task_id in beside:
        site.begun(task_id)
    killer = site.add("kills")

    died = 0
    while site.bench.get(killer).state is not State.FAILED:
        worker.ended(timeout=LIMIT)
        died += 1
        assert died <= 6
        site.release()
        worker = next_worker = site.start("waits", "kills")
        eventually(
            lambda worker=next_worker: (
                worker.process.exitcode is not None or site.bench.get(killer).state is State.FAILED
            ),
            timeout=LIMIT,
            what="it runs again, or has failed",
        )

    failed = site.bench.get(killer)
    assert (failed.attempts, len(json.loads(failed.errors))) == (3, died)
    for task_id in beside:
        task = site.state(task_id, State.COMPLETED)
        first = json.loads(task.errors)[0]
        assert (task.attempts, first["attempt"], first["type"]) == (1, 1, "WorkerLost")
        assert "one of 13 tasks may be why" in first["message"]


def test_a_worker_stopped_past_its_lease_and_continued_changes_nothing_any_more_and_goes_on(site):
    site.start_leader()
    stopped = site.start("waits")
    task_id = site.add("waits")
    site.begun(task_id)
    other = site.start("waits")

    stopped.send(signal.SIGSTOP)
    eventually(lambda: len(site.journal("began", task_id)) == 2, timeout=LIMIT, what="it runs again")
    stopped.send(signal.SIGCONT)
    # It looks at what it holds with its first beat.
    stopped.heard("lease_lost")
    site.release()

    task = site.state(task_id, State.COMPLETED)
    assert (task.attempts, task.result) == (2, str(other.pid))
    assert [error["type"] for error in json.loads(task.errors)] == ["WorkerLost"]
    assert other.end(signal.SIGTERM) == 0
    assert site.state(site.add("waits"), State.COMPLETED).result == str(stopped.pid)
    assert stopped.end(signal.SIGTERM) == 0


def test_a_result_made_while_the_worker_was_taken_for_dead_is_refused(site):
    """The handler returns before the worker can learn that it lost the task."""
    site.start_leader()
    stopped = site.start("is_deaf", WORKER_LEASE_SECONDS="2")
    task_id = site.add("is_deaf")
    site.begun(task_id)
    stopped.send(signal.SIGSTOP)
    other = site.start("is_deaf")
    eventually(lambda: len(site.journal("began", task_id)) == 2, timeout=LIMIT, what="it runs again")
    site.release()
    assert site.state(task_id, State.COMPLETED).result == str(other.pid)

    stopped.send(signal.SIGCONT)

    eventually(lambda: len(site.journal("returned", task_id)) == 2, timeout=LIMIT, what="both have returned")
    assert other.end(signal.SIGTERM) == 0
    assert site.state(site.add("is_deaf"), State.COMPLETED).result == str(stopped.pid)
    assert (site.bench.get(task_id).attempts, site.bench.get(task_id).result) == (2, str(other.pid))


def test_a_long_task_may_finish_after_sigterm_and_nobody_takes_it_meanwhile(site):
    site.start_leader()
    worker = site.start("waits", WORKER_GRACE_SECONDS="600", WORKER_LEASE_SECONDS="3")
    task_id = site.add("waits")
    site.begun(task_id)

    worker.send(signal.SIGTERM)
    worker.heard("worker_draining")
    later = site.add("waits")
    # For longer than its lease it says that it lives, and then the rescuer takes a task that is lost.
    since = site.bench.sql("SELECT now()")[0][0]
    beat = "SELECT heartbeat_at > %s + interval '3.5 s' FROM workers WHERE id = %s"
    holder = str(site.worker_row(task_id))
    eventually(lambda: site.bench.sql(beat, since, holder) == [(True,)], timeout=LIMIT, what="a lease of beats")
    site.let_the_rescuer_have_its_chance()
    site.release()

    assert worker.ended() == 0
    task = site.bench.get(task_id)
    assert (task.state, task.attempts, task.result) == (State.COMPLETED, 1, str(worker.pid))
    assert site.bench.get(later).state is State.READY


def test_a_long_task_is_handed_over_with_its_attempt_after_the_grace_time(site):
    worker = site.start("waits", WORKER_GRACE_SECONDS="0.1")
    task_id = site.add("waits")
    site.begun(task_id)

    assert worker.end(signal.SIGTERM) == 0

    assert site.bench.sql("SELECT state, attempts FROM tasks") == [("ready", 0)]
    assert site.bench.sql("SELECT * FROM workers") == []
    other = site.start("waits")
    site.release()
    task = site.state(task_id, State.COMPLETED)
    assert (task.attempts, task.result, json.loads(task.errors)) == (1, str(other.pid), [])


def test_a_worker_over_half_of_whose_threads_hang_lets_the_rest_finish_and_exits(site):
    worker = site.start("is_deaf", "waits", hung_after=0.1, WORKER_THREADS="4", WORKER_GRACE_SECONDS="600")
    sound = site.add("waits")
    site.begun(sound)

    def hang() -> None:
        hung = site.add("is_deaf", max_attempts=1, timeout_seconds=0.05)
        assert "0.05 seconds" in (site.state(hung, State.FAILED).error or "")

    hang()
    hang()
    # Half of them is not over half: with that it goes on, through beats enough to notice.
    beats = {row[0] for row in site.bench.sql("SELECT heartbeat_at FROM workers")}
    eventually(lambda: beats.update(r[0] for r in site.bench.sql("SELECT heartbeat_at FROM workers")) or len(beats) > 3)
    assert "threads_hang" not in worker.said()
    hang()
    worker.heard("threads_hang")
    worker.heard("worker_draining")
    site.release()

    assert worker.ended() == 1
    assert site.bench.get(sound).result == str(worker.pid)


@pytest.mark.parametrize(
    ("task_type", "way", "ends"),
    [
        ("forks", "multiprocessing", -signal.SIGTERM),
        ("forks", "subprocess", -signal.SIGTERM),
        ("forks", "returns", os.EX_SOFTWARE),
        ("forks", "raises", os.EX_SOFTWARE),
        ("forks_async", "multiprocessing", -signal.SIGTERM),
        ("forks_async", "subprocess", -signal.SIGTERM),
        ("forks_async", "returns", os.EX_SOFTWARE),
        ("forks_async", "awaits", os.EX_SOFTWARE),
    ],
)
def test_a_child_of_a_handler_ends_alone_and_does_nothing_of_its_workers(site, task_type, way, ends):
    worker = site.start(task_type, "runs")
    forking = site.bench.add(task_type, payload=json.dumps({"folder": str(site.folder), "way": way}))

    assert site.state(forking, State.COMPLETED).result == str(int(ends))
    assert site.state(site.add("runs"), State.COMPLETED).attempts == 1
    assert "worker_draining" not in worker.said()
    assert worker.end(signal.SIGTERM) == 0


def test_a_worker_whose_event_loop_is_blocked_hands_back_what_it_has_not_begun(site):
    worker = site.start("blocks", "runs", **PATIENT)
    blocking = site.add("blocks")
    site.begun(blocking)
    site.bench.store.add_many([new_task("runs", payload=site.payload) for _ in range(50)], reach=Reach.all())
    eventually(lambda: '"handed_back": 50' in worker.said(), timeout=LIMIT, what="it has claimed them all")

    other = site.start("runs", **PATIENT)
    done = "SELECT count(*) FROM tasks WHERE state = 'completed' AND attempts = 1"
    eventually(lambda: site.bench.sql(done) == [(50,)], timeout=LIMIT, what="the other runs them")
    assert {pid for pids in site.began().values() for pid in pids} == {worker.pid, other.pid}
    assert site.bench.get(blocking).state is State.RUNNING
    assert other.end(signal.SIGTERM) == 0

    site.release()
    assert site.state(blocking, State.COMPLETED).attempts == 1
    site.state(site.add("runs"), State.COMPLETED)


def test_a_handler_that_blocks_the_event_loop_after_its_end_ends_the_worker_and_keeps_its_attempt(site):
    worker = site.start("blocks", "waits", hung_after=0.1)
    bystander = site.add("waits")
    site.begun(bystander)
    blocking = site.add("blocks", timeout_seconds=0.1)
    site.begun(blocking)

    assert worker.ended() == 1
    assert "event_loop_hangs" in worker.said()
    assert (site.bench.get(blocking).attempts, site.bench.get(blocking).state) == (1, State.SCHEDULED)
    assert (site.bench.get(bystander).attempts, site.bench.get(bystander).state) == (0, State.READY)


def test_a_worker_ends_whatever_its_handlers_leave_behind(site):
    worker = site.start("leaves_behind", leaves_after=0.5)
    site.state(site.add("leaves_behind"), State.COMPLETED)

    assert worker.end(signal.SIGTERM) == 0
    assert "exit_forced" in worker.said()


def test_a_worker_whose_executor_is_full_claims_nothing_after_sigterm_and_ends(site):
    worker = site.start("fills_executor", "runs", leaves_after=0.5)
    filling = [site.add("fills_executor") for _ in range(40)]
    for task_id in filling:
        site.begun(task_id)

    worker.send(signal.SIGTERM)
    worker.heard("worker_draining")
    assert worker.ended() == 0
    assert site.state(site.add("runs"), State.READY).attempts == 0
    assert site.bench.sql("SELECT DISTINCT state, attempts FROM tasks") == [("ready", 0)]


# The database goes away


@pytest.fixture(scope="module")
def own_server(tmp_path_factory) -> Iterator[TestServer]:
    """A server that tests restart; it keeps what was committed when it is killed."""
    server = TestServer(tmp_path_factory.mktemp("own server"), durable=True)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_postgres_restarted_under_200_running_tasks_loses_no_result_and_runs_none_again(own_server, tmp_path, way):
    with contextmanager(own_server.service_database)("service_tasks") as own:
        site = Site(Bench(own.database), own.url, tmp_path)
        try:
            workers = [site.start("waits", **PATIENT), site.start("waits", **PATIENT)]
            tasks = [site.add("waits") for _ in range(200)]
            eventually(lambda: len(site.count("began")) == 200, timeout=LIMIT, what="200 run")

            own_server.stop() if way == "stopped" else own_server.kill()
            site.release()
            eventually(lambda: len(site.count("returned")) == 200, timeout=LIMIT, what="all have returned")
            own_server.start()

            ended = "SELECT count(*) FROM tasks WHERE state = 'completed'"
            eventually(lambda: site.bench.sql(ended) == [(200,)], timeout=LIMIT, what="every result is written")
            assert site.bench.sql("SELECT DISTINCT attempts, errors::text FROM tasks") == [(1, "[]")]
            assert site.count("began") == Counter(str(task_id) for task_id in tasks)
            site.state(site.add("waits"), State.COMPLETED)
            assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]
        finally:
            site.end()


CONNECTIONS = {
    "heartbeat": "application_name = 'task_worker heartbeat'",
    "listener": "application_name = 'task_worker' AND query LIKE 'LISTEN%%'",
    "claims": "application_name = 'task_worker' AND query ~ '^(EXECUTE claim|EXECUTE limited_types)'",
    "completions": "application_name = 'task_worker' AND query LIKE '%%UPDATE tasks AS t%%completed%%'",
    "the pool": "application_name = 'task_worker' AND"
    " query !~ '^(LISTEN|EXECUTE claim|EXECUTE limited_types|UPDATE tasks AS t)'",
}


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_a_connection_ended_by_the_server_costs_no_task_and_none_runs_twice(site, kind):
    worker = site.start("waits", "runs", **PATIENT)
    held = site.add("waits")
    site.begun(held)
    tasks = [held]

    for _ in range(3):
        tasks.append(site.add("runs"))
        site.state(tasks[-1], State.COMPLETED)
        # There again after the last time.
        eventually(
            lambda: (
                site.bench.sql(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    f" WHERE datname = current_database() AND {CONNECTIONS[kind]}"
                )
                != [(0,)]
            ),
            timeout=LIMIT,
            what="the connection",
        )
        tasks += [site.add("runs") for _ in range(10)]
    for task_id in tasks[1:]:
        site.state(task_id, State.COMPLETED)
    site.release()
    site.state(held, State.COMPLETED)

    assert site.bench.sql("SELECT DISTINCT attempts, errors::text FROM tasks") == [(1, "[]")]
    assert site.count("began") == Counter(str(task_id) for task_id in tasks)
    assert worker.end(signal.SIGTERM) == 0


# Words that are lost


def test_words_that_never_came_cost_a_poll_and_no_more(site):
    """New, due, cancelled: nothing of it is announced."""
    worker = site.start("waits", "is_deaf", "runs")
    held = site.add("waits")
    site.begun(held)
    soon = site.bench.sql("SELECT now() + interval '0.2 s'")[0][0]
    due = site.add("runs", execute_at=soon)
    site.bench.sql(
        "UPDATE tasks SET state = 'cancelled', completed_at = now(), deadline_at = NULL WHERE id = %s", str(held)
    )

    site.state(due, State.COMPLETED)
    eventually(lambda: site.worker_row(held) is None, timeout=LIMIT, what="the handler has stopped")
    assert site.journal("returned", held) == []
    assert worker.end(signal.SIGTERM) == 0


def test_a_word_that_comes_while_nobody_listens_is_made_up_for_when_the_line_is_open_again(site):
    site.start("runs", poll_seconds=60.0, **SILENT)
    listens = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {CONNECTIONS['listener']}"
    for _ in range(3):
        eventually(lambda: site.bench.sql(listens), timeout=LIMIT, what="it listens")
        with site.bench.database.transaction() as session:
            connection = session.connection()
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {CONNECTIONS['listener']}"
            )
        task_id = site.add("runs")
        site.bench.store.announce(READY)
        site.state(task_id, State.COMPLETED)


# A clock that is wrong

#: Read by Python before anything else. Whoever asks whether something is a datetime means the real one.
SHIFT = """
import datetime, time

SECONDS = {seconds}
_real_time, _real_time_ns, _real = time.time, time.time_ns, datetime.datetime
time.time = lambda: _real_time() + SECONDS
time.time_ns = lambda: _real_time_ns() + SECONDS * 1_000_000_000


class _Meta(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _real)

    def __subclasscheck__(cls, other):
        return issubclass(other, _real)


class datetime_(_real, metaclass=_Meta):
    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds=SECONDS)

    @classmethod
    def utcnow(cls):
        return _real.utcnow() + datetime.timedelta(seconds=SECONDS)


datetime.datetime = datetime_
"""


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_an_hour_off_does_everything_at_its_time(site, tasks_database, tmp_path, seconds):
    (tmp_path / "sitecustomize.py").write_text(SHIFT.format(seconds=seconds), encoding="utf-8")
    checkout = Path(__file__).parents[3]
    living, dead = site.bench.register(lease_seconds=1.0), site.bench.register(lease_seconds=1.0)
    held = site.bench.add("held")
    assert len(site.bench.claim(living, "held")) == 1
    lost = site.bench.add("held")
    assert len(site.bench.claim(dead, "held")) == 1
    site.bench.keep_alive(living)
    site.bench.silence(dead)
    in_half_an_hour = site.add("runs", execute_at=site.bench.sql("SELECT now() + interval '30 min'")[0][0])

    worker = WorkerProcess(
        tmp_path,
        tasks_database.url,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{checkout}",
        TASK_MODULES="tests.support.trap_tasks",
        WORKER_LEASE_SECONDS="1",
    )
    try:
        # It leads: due tasks, retries and rescues are its own doing.
        again = site.state(site.add("fails_once"), State.COMPLETED)
        soon = site.add("runs", execute_at=site.bench.sql("SELECT now() + interval '0.3 s'")[0][0])
        ran = site.state(soon, State.COMPLETED)
        assert site.state(lost, State.SCHEDULED, State.READY).attempts == 1

        assert ran.started_at is not None
        assert timedelta(0) <= ran.started_at - ran.execute_at < timedelta(minutes=1)
        assert again.attempts == 2
        assert abs(again.execute_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert site.bench.get(in_half_an_hour).state is State.SCHEDULED
        assert (site.bench.get(held).state, site.bench.get(held).attempts) == (State.RUNNING, 1)
        # now() is older than what the statement sees.
        assert site.bench.sql(
            "SELECT count(*) FROM workers WHERE heartbeat_at BETWEEN now() - interval '1 min' AND clock_timestamp()"
        ) == [(1,)]
        # The clock really is wrong.
        first = json.loads(worker.said().splitlines()[0])
        off = datetime.fromisoformat(first["time"]) - datetime.now(UTC)
        assert abs(off - timedelta(seconds=seconds)) < timedelta(minutes=5)
        assert worker.end(signal.SIGTERM) == 0
    finally:
        if worker.process.poll() is None:
            worker.end(signal.SIGKILL)
