"""What the tests of the task engine share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service_tasks.engine.ports import Offer, WorkerInfo
from service_tasks.engine.registry import Registry, TaskType
from service_tasks.engine.worker import Worker, WorkerOptions
from service_tasks.persistence.engine_store import EngineStore
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.persistence.task_store import TaskStore
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.use_cases.tasks import NewTask, StoredTask
from service_tasks.use_cases.user_departure import UserDeparture
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[3]


def new_task(task_type: str = "noop", **changes) -> NewTask:
    fields = {
        "id": new_id(),
        "task_type": task_type,
        "title": None,
        "user_id": None,
        "payload": "{}",
        "priority": 50,
        "max_attempts": 3,
        "timeout_seconds": None,
        "execute_at": None,
    }
    return NewTask(**{**fields, **changes})


class Bench:
    """One database with what the tests do to it."""

    def __init__(self, database: Database, event_states: Collection[str] = ()) -> None:
        self.database = database
        ends = TaskEnds(event_states)
        self.store = TaskStore(database, ends)
        self.engine = EngineStore(database, ends)
        of_users = UserDeparture(ends, ScheduleStore(database))
        self.user_deleted, self.user_disabled = of_users.act_on_deleted, of_users.act_on_disabled
        self.user_updated = of_users.act_on_updated

    def add(self, task_type: str = "noop", **changes) -> UUID:
        stored = self.store.add(new_task(task_type, **changes))
        assert stored is not None
        return stored.id

    def get(self, task_id: UUID) -> StoredTask:
        task = self.store.get(task_id, reach=Reach.all())
        assert task is not None
        return task

    def register(self, *, lease_seconds: float = 45.0, types: tuple[str, ...] = ("noop",)) -> UUID:
        worker = WorkerInfo(id=uuid4(), name="a worker", task_types=types, lease_seconds=lease_seconds)
        self.engine.beat(worker)
        return worker.id

    def claim(self, worker_id: UUID, *types: str, limit: int = 10):
        return self.engine.claim(worker_id, [Offer(name, 60.0) for name in types or ("noop",)], limit)

    def sql(self, statement: str, *parameters):
        with self.database.transaction() as session:
            result = session.connection().exec_driver_sql(statement, parameters)
            return result.all() if result.returns_rows else []

    def keep_alive(self, worker_id: UUID) -> None:
        """Let the worker live for an hour without another word."""
        self.sql("UPDATE workers SET heartbeat_at = now() + interval '1 hour' WHERE id = %s", str(worker_id))

    def silence(self, worker_id: UUID) -> None:
        """Let the worker's last word be an hour old."""
        self.sql("UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE id = %s", str(worker_id))

    def wait_for(self, task_id: UUID, *states: str, timeout: float = 10.0) -> StoredTask:
        def look() -> StoredTask | None:
            task = self.get(task_id)
            return task if task.state in states else None

        return eventually(look, timeout=timeout, what=f"{states}, last seen {self.get(task_id)}")


@pytest.fixture
def bench(tasks_database) -> Bench:
    return Bench(tasks_database.database)


class RunningWorker:
    """A worker on a thread of the test process."""

    def __init__(self, url: str, types: list[TaskType], **options) -> None:
        settings = {
            "poll_seconds": 0.2,
            "grace_seconds": 2.0,
            "lease_seconds": 2.0,
            "leader_lease_seconds": 1.0,
            "threads": 4,
            **options,
        }
        self._databases = [
            Database(url, application_name="worker", pool_size=9),
            Database(url, application_name="heartbeat", pool_size=1),
        ]
        maintenance_store = MaintenanceStore(self._databases[0])
        self.worker = Worker(
            store=EngineStore(self._databases[0]),
            heartbeat_store=EngineStore(self._databases[1]),
            due_store=ScheduleStore(self._databases[0]),
            leader_store=maintenance_store,
            prune_store=maintenance_store,
            open_wake_ups=lambda: PostgresWakeUps(self._databases[0]),
            registry=Registry(types),
            options=WorkerOptions(**settings),
        )
        self.status: int | None = None
        self._thread = threading.Thread(target=self._run, name="worker under test", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.status = self.worker.run(handle_signals=False)

    def stop(self) -> int | None:
        """Ask it to stop and wait until it has."""
        self.worker.stop()
        return self.join()

    def join(self) -> int | None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the worker does not end"
        for database in self._databases:
            database.dispose()
        return self.status


StartWorker = Callable[..., RunningWorker]


@pytest.fixture
def start_worker(tasks_database) -> Iterator[StartWorker]:
    """Give a function that starts a worker with the given task types; all are stopped at the end."""
    started: list[RunningWorker] = []

    def start(*types: TaskType, **options) -> RunningWorker:
        worker = RunningWorker(tasks_database.url, list(types), **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.worker.stop()
        worker.worker.stop()
    for worker in started:
        worker.join()


class WorkerProcess:
    """`python -m service_tasks.cli worker` with its environment."""

    def __init__(self, folder: Path, url: str | None, *arguments: str, **environment: str) -> None:
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = {
            "PYTHONPATH": str(CHECKOUT),
            "WORKER_LEASE_SECONDS": "2",
            "WORKER_GRACE_SECONDS": "0.2",
            **({"TASKS_DATABASE_URL": url} if url else {}),
        }
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service_tasks.cli", "worker", *arguments],
                cwd=folder,
                env={**own, **settings, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_process(tmp_path, tasks_database):
    """Give a function that starts a worker process; whatever still runs at the end is killed."""
    started: list[WorkerProcess] = []

    def start(*arguments: str, **environment: str) -> WorkerProcess:
        process = WorkerProcess(tmp_path, tasks_database.url, *arguments, **environment)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)
