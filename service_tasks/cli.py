"""The task service on the command line: its other processes, and commands for operators.

python -m service_tasks worker --types io,noop --concurrency 100 --grace 60
python -m service_tasks ingest
python -m service_tasks stats
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service_tasks.commands import add_commands, run
from service_tasks.engine.ports import Retention
from service_tasks.engine.registry import BadTaskTypes, load_registry
from service_tasks.engine.worker import Worker, WorkerOptions
from service_tasks.persistence.engine_store import EngineStore
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.settings import IngestSettings, WorkerSettings
from servicekit.database.engine import Database
from servicekit.observing import logs
from servicekit.process.lifecycle import exit_within, freeze_heap, grow_file_table
from servicekit.process.settings import ServiceSize, load_or_exit
from servicekit.wire.errors import Unavailable

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

# Each command does its own imports: ./scripts/run starts ten processes at once, and imports take most of that time.

#: Canceller, reporter and leader have one each. One more is for connections that leave the pool for good: two for
#: claims, one for completions, one that listens. In the leader, promoter, rescuer, scheduler and pruner open theirs.
_CONNECTIONS = 8
#: seconds for what handlers leave behind: threads, child processes, exit functions
_EXIT_SECONDS = 5.0
WORKER = "task_worker"
_log = logs.get_logger(__name__)


def run_worker(settings: WorkerSettings, types: Sequence[str] | None = None, *, check: bool = False) -> int:
    """Work until SIGTERM or SIGINT; return the process's exit status. `types`: run only these; `check`: run nothing."""
    grow_file_table()
    try:
        registry = load_registry(settings.modules)
        if types is not None:
            registry = registry.only(types)
        registry, unset = registry.ready_to_run()
    except BadTaskTypes as exc:
        raise SystemExit(f"task_worker cannot start: {exc}") from exc
    for task_type, variables in unset.items():
        _log.info("task_type_left_out", task_type=task_type, not_set=list(variables))
    if check:
        return 0
    database = Database(settings.tasks_database_url, application_name=WORKER, pool_size=_CONNECTIONS)
    heartbeat_database = Database(settings.tasks_database_url, application_name="task_worker heartbeat", pool_size=1)
    maintenance_store = MaintenanceStore(database)
    worker = Worker(
        store=EngineStore(database, TaskEnds(settings.event_states)),
        heartbeat_store=EngineStore(heartbeat_database),
        due_store=ScheduleStore(database),
        leader_store=maintenance_store,
        prune_store=maintenance_store,
        open_wake_ups=lambda: PostgresWakeUps(database),
        registry=registry,
        options=WorkerOptions(
            concurrency=settings.worker_concurrency,
            threads=settings.worker_threads,
            grace_seconds=settings.worker_grace_seconds,
            lease_seconds=settings.worker_lease_seconds,
            retention=Retention(
                completed_seconds=_kept(settings.tasks_keep_days),
                failed_seconds=_kept(settings.tasks_keep_failed_days),
                cancelled_seconds=_kept(settings.tasks_keep_days),
                messages_seconds=_kept(settings.messages_keep_days),
            ),
        ),
    )
    pages = None if settings.worker_bind is None else _serve_pages(worker, settings.worker_bind, settings.allowed_hosts)
    freeze_heap()
    status = worker.run()
    exit_within(_EXIT_SECONDS, status=status)
    if pages is not None:
        pages.shutdown()
    database.dispose()
    heartbeat_database.dispose()
    return status


def _serve_pages(worker: Worker, bind: str, allowed_hosts: str) -> BaseWSGIServer:
    from service_tasks.metrics.worker import WorkerCollector
    from servicekit.observing.metrics import Metrics
    from servicekit.web.pages import serve_pages

    metrics = Metrics(WORKER)
    WorkerCollector(worker, metrics.registry)
    checks = {"heartbeat": lambda: _require_beat(worker)}
    pages = serve_pages(WORKER, bind, checks, metrics, allowed_hosts=allowed_hosts)
    _log.info("worker_pages", worker=worker.info.name, port=pages.port)
    return pages


def _require_beat(worker: Worker) -> None:
    age = worker.heartbeat_age()
    if age is None or age > worker.info.lease_seconds:
        raise Unavailable("The database has not heard of this worker within its lease.")


def _kept(days: float) -> float | None:
    return days * 86_400 if days else None


_OVERRIDES = {
    "--concurrency": ("WORKER_CONCURRENCY", "tasks held at once"),
    "--grace": ("WORKER_GRACE_SECONDS", "seconds that handlers may go on after the signal to stop"),
}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m service_tasks",
        description="The task service: its processes (worker, ingest), and what there is to ask and do"
        " (types, list, show, retry, cancel, stats). Each has a --help.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands)
    worker = commands.add_parser(
        "worker",
        help="run tasks until SIGTERM",
        description="Run tasks until SIGTERM or SIGINT; running ones get WORKER_GRACE_SECONDS to finish, the rest is"
        " handed back. Settings come from the environment: TASKS_DATABASE_URL, TASK_MODULES and the WORKER_"
        " variables of .env.example. Any number of workers may run, on any hosts.",
    )
    worker.add_argument("--types", metavar="A,B", type=_names, help="run these task types alone (all that are known)")
    worker.add_argument("--check", action="store_true", help="end once settings and task types have been read")
    for option, (variable, help_text) in _OVERRIDES.items():
        worker.add_argument(option, metavar="N", dest=variable, help=f"{help_text} ({variable})")
    commands.add_parser(
        "ingest",
        help="make tasks of RabbitMQ's messages until SIGTERM",
        description="Make tasks of the messages in the queues task_queue and tasks.ingest until SIGTERM or SIGINT."
        " Settings come from the environment: TASKS_DATABASE_URL, RABBITMQ_URL, TASK_MODULES and INGEST_BIND."
        " Any number may run, on any hosts.",
    )
    given = parser.parse_args(arguments)
    if "ask" in given:
        return run(given)
    if given.command == "ingest":
        return _ingest()
    for variable, _ in _OVERRIDES.values():
        if getattr(given, variable) is not None:
            # Read with the other settings, so that an invalid one is refused with the same message.
            os.environ[variable] = getattr(given, variable)
    settings = load_or_exit(WorkerSettings, "task_worker")
    logs.configure("task_worker", fmt=settings.log_format, level=settings.log_level)
    if given.check:
        # In compose PostgreSQL counts its connections by these, and takes a word for 0.
        load_or_exit(ServiceSize, "the services")
    return run_worker(settings, given.types, check=given.check)


def _ingest() -> int:
    from service_tasks.ingest.process import run_ingest

    settings = load_or_exit(IngestSettings, "task_ingest")
    logs.configure("task_ingest", fmt=settings.log_format, level=settings.log_level)
    try:
        registry = load_registry(settings.modules)
    except BadTaskTypes as exc:
        raise SystemExit(f"task_ingest cannot start: {exc}") from exc
    status = run_ingest(settings, registry)
    exit_within(_EXIT_SECONDS, status=status)
    return status


if __name__ == "__main__":
    sys.exit(main())
