"""Who is measured: each makes tasks its own way and runs its own workers, all on one PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from pydantic import BaseModel

from benchmarks.processes import cpu_seconds, resident_mib
from benchmarks.report import CHECKOUT, OURS
from benchmarks.tasks.figures import Size
from scripts.instance.postgres import EmbeddedPostgres
from service_tasks.engine.registry import load_registry
from service_tasks.persistence.announcer import Announcer
from service_tasks.persistence.task_store import TaskStore
from service_tasks.schemas.tasks import TaskCreate
from service_tasks.settings import BUILT_IN_MODULES
from service_tasks.use_cases.tasks import Tasks
from servicekit.database import migrations
from servicekit.database.engine import Database
from servicekit.process.lifecycle import freeze_heap
from servicekit.process.services import services

HANDLERS = "benchmarks.tasks.handlers"
_START_SECONDS = 20.0
#: No-op tasks by SQL alone, so that filling the table takes no time from the runs.
_FILL = """
    INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000'
            || '8' || lpad(to_hex(n), 15, '0'))::uuid,
           %(state)s, 'noop', '{}', 50, 3, now() + %(ahead)s * interval '1 day'
    FROM generate_series(1, %(count)s) n
"""


class Benched(BaseModel):
    """What a worker process has used."""

    cpu_seconds: float
    resident_mib: float


class StartedWorker:
    """One worker process of ours."""

    def __init__(self, url: str, output: Path, concurrency: int | None) -> None:
        environment = {"TASKS_DATABASE_URL": url, "TASK_MODULES": HANDLERS, "LOG_LEVEL": "warning"}
        if concurrency is not None:
            environment["WORKER_CONCURRENCY"] = str(concurrency)
        with output.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "service_tasks.cli", "worker"],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
                stdout=file,
                stderr=file,
            )

    def used(self) -> Benched:
        return Benched(cpu_seconds=cpu_seconds(self._child.pid), resident_mib=resident_mib(self._child.pid) or 0.0)

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
        self._child.kill()
        self._child.wait()


@dataclass
class TaskPlace:
    """One database of the benchmark's server, and what is done to it."""

    url: str
    folder: Path

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.url.replace("+psycopg2", "", 1), application_name="bench")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def ask(self, statement: str, parameters: Any = None) -> tuple[Any, ...]:
        with self.cursor() as cursor:
            cursor.execute(statement, parameters)
            row: tuple[Any, ...] = cursor.fetchone()
            return row

    def fill(self, count: int, *, state: str = "ready", ahead: int = 0) -> None:
        with self.cursor() as cursor:
            cursor.execute(_FILL, {"count": count, "state": state, "ahead": ahead})
        self.settle()

    def settle(self) -> None:
        """Vacuumed, analysed and written out, so that this takes no time from the runs."""
        with self.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")

    def wal(self) -> float:
        """Bytes of WAL since the server was made."""
        (found,) = self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8")
        return float(found)

    def row_writes(self) -> float:
        """Rows updated and deleted in this database: each left a dead version behind."""
        (found,) = self.ask("SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 FROM pg_stat_user_tables")
        return float(found)

    def size(self) -> Size:
        """Of all tables of the database."""
        tables, indexes, dead = self.ask(
            "SELECT (sum(pg_table_size(relid)) / 1048576)::float8, (sum(pg_indexes_size(relid)) / 1048576)::float8,"
            " sum(n_dead_tup)::float8 FROM pg_stat_user_tables"
        )
        return Size(tables, indexes, dead)

    @contextlib.contextmanager
    def workers(self, count: int, concurrency: int | None = None) -> Iterator[list[StartedWorker]]:
        """Started, and in the table of workers."""
        running = [StartedWorker(self.url, self.folder / "worker.log", concurrency) for _ in range(count)]
        try:
            self.wait(lambda: self.ask("SELECT count(*) >= %s FROM workers", (count,))[0], _START_SECONDS)
            yield running
        finally:
            for worker in running:
                worker.stop()

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                said = (self.folder / "worker.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"not done after {seconds:g} s; the workers said:\n{said}")
            time.sleep(0.05)

    def backends_cpu(self, names: str = "task_worker%") -> float:
        """CPU seconds of the PostgreSQL processes that serve workers (clients whose names are LIKE that); 0 where they
        cannot be looked at."""
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND application_name LIKE %s AND pid <> pg_backend_pid()",
                (names,),
            )
            return sum(cpu_seconds(row[0]) for row in cursor.fetchall())

    @contextlib.contextmanager
    def use_cases(self) -> Iterator[Tasks]:
        """The use cases behind HTTP, in this process."""
        database = Database(self.url, application_name="bench creator", pool_size=3)
        store = TaskStore(database)
        announcer = Announcer(store, on_death=lambda: None)
        registry = load_registry((*BUILT_IN_MODULES, HANDLERS))
        tasks = Tasks(store, registry, announce=announcer.announce, may_announce=announcer.may_announce)
        freeze_heap()
        try:
            yield tasks
        finally:
            announcer.stop()
            database.dispose()


class Server:
    """A PostgreSQL as `./scripts/run` starts it, with everything on that keeps data safe."""

    subject = OURS

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._postgres = EmbeddedPostgres(folder / "postgres", port, "of a benchmark")
        self._made = 0

    def start(self) -> None:
        self._postgres.start()
        with self._administration().cursor() as cursor:
            for role in services():
                cursor.execute(f"CREATE ROLE {role}")

    def stop(self) -> None:
        self._postgres.stop()

    def cpu_seconds(self) -> float:
        """CPU time of the server and all its processes that still run."""
        return 0.0 if self._postgres.pid is None else cpu_seconds(self._postgres.pid)

    def place(self) -> TaskPlace:
        """A new database of ours, migrated and empty."""
        place = self.empty_place()
        migrations.upgrade("service_tasks", place.url)
        return place

    def empty_place(self, like: TaskPlace | None = None) -> TaskPlace:
        """A new database without any table, or with everything that another has, to which nobody is connected."""
        self._made += 1
        name = f"bench_{self._made}"
        of = "" if like is None else f" TEMPLATE {like.url.rpartition('/')[2]} STRATEGY file_copy"
        with self._administration().cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}{of}")
        return TaskPlace(self._postgres.url(name), self._folder)

    def drop(self, place: TaskPlace) -> None:
        """Remove a database and whoever is connected to it."""
        with self._administration().cursor() as cursor:
            cursor.execute(f"DROP DATABASE {place.url.rpartition('/')[2]} WITH (FORCE)")

    def _administration(self) -> TaskPlace:
        return TaskPlace(self._postgres.url("postgres"), self._folder)


def new_tasks(count: int) -> list[TaskCreate]:
    return [TaskCreate() for _ in range(count)]


def waiting_tasks(count: int, seconds: float) -> list[TaskCreate]:
    return [TaskCreate(task_type="bench_wait", payload={"seconds": seconds}) for _ in range(count)]


def started_at(result: str) -> float:
    return float(json.loads(result))
