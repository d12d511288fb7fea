"""Task workers: no-op throughput, latency, tasks held at once, batch creation, and what a task costs PostgreSQL.

On a PostgreSQL of its own with synchronous commit; CPU seconds are told beside the rates, since they disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from benchmarks.processes import free_port
from benchmarks.report import OURS, Row
from benchmarks.tasks.subjects import BATCH, Place, Server, new_tasks, started_at, waiting_tasks
from service_tasks.engine.ports import Offer
from service_tasks.persistence.task_store import TaskStore
from service_tasks.schemas import TaskCreate
from servicekit.database import Database

#: metric, unit, value
Figure = tuple[str, str, float]
Work = Callable[[Place, bool], Iterator[Figure]]


def _noop(workers: int) -> Work:
    def run(place: Place, quick: bool) -> Iterator[Figure]:
        count = 50_000 if quick else 200_000
        place.fill(count)
        (before,) = place.ask("SELECT pg_current_wal_insert_lsn()")
        with place.workers(workers) as running:
            used = sum(worker.used().cpu_seconds for worker in running)
            cpu = 0.0

            def ended() -> bool:
                nonlocal cpu
                cpu = max(cpu, place.backends_cpu())
                return bool(place.ask("SELECT NOT EXISTS (SELECT FROM tasks WHERE state IN ('ready', 'running'))")[0])

            place.wait(ended, 300)
            used = sum(worker.used().cpu_seconds for worker in running) - used
        (seconds,) = place.ask("SELECT extract(epoch FROM max(completed_at) - min(started_at))::float8 FROM tasks")
        (wal,) = place.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)::float8", (before,))
        # Counted in the table itself: the statistics come late.
        (writes,) = place.ask("SELECT (n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables WHERE relname = 'tasks'")
        yield "tasks", "1/s", count / seconds
        yield "CPU of the workers", "µs/task", used / count * 1e6
        yield "CPU of PostgreSQL", "µs/task", cpu / count * 1e6
        yield "WAL, claim and completion", "bytes/task", wal / count
        yield "dead row versions left behind", "1/task", writes / count

    return run


def _latency(place: Place, quick: bool) -> Iterator[Figure]:
    waits = []
    with place.workers(1), place.use_cases() as tasks:
        for _ in range(30 if quick else 200):
            # Longer than the pause between two announcements: the worker is idle.
            time.sleep(0.1)
            began = time.time()
            made = tasks.create(TaskCreate(task_type="bench_clock")).task

            def result(task_id: object = made.id) -> str | None:
                found: str | None = place.ask("SELECT result::text FROM tasks WHERE id = %s", (str(task_id),))[0]
                return found

            place.wait(lambda: result() is not None, 10)
            waits.append((started_at(result() or "0") - began) * 1000)
    yield "median", "ms", statistics.median(waits)
    yield "p95", "ms", statistics.quantiles(waits, n=20)[-1]


def _held(count: int, seconds: float) -> Work:
    def run(place: Place, quick: bool) -> Iterator[Figure]:
        length = min(seconds, 10.0) if quick else seconds
        with place.workers(1, concurrency=count) as (worker,), place.use_cases() as tasks:
            empty = worker.used().resident_mib
            began = time.monotonic()
            tasks.create_many(waiting_tasks(count, length))
            full, most = 0.0, 0

            def ended() -> bool:
                nonlocal full, most
                full = max(full, worker.used().resident_mib)
                running, waiting = place.ask(
                    "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'ready')"
                    " FROM tasks"
                )
                most = max(most, running)
                return bool(running == 0 and waiting == 0)

            place.wait(ended, length + 60)
            took = time.monotonic() - began
        yield "seconds that each task waits", "s", length
        yield "seconds from the first creation to the last end", "s", took
        yield "held at once", "1", most
        yield "resident memory of the worker", "MiB", full
        yield "memory for each task held", "KiB", (full - empty) * 1024 / count

    return run


def _create(place: Place, quick: bool) -> Iterator[Figure]:
    batches = 20 if quick else 100
    with place.use_cases() as tasks:
        tasks.create_many(new_tasks(BATCH))
        began, used = time.monotonic(), time.process_time()
        for _ in range(batches):
            tasks.create_many(new_tasks(BATCH))
        took, used = time.monotonic() - began, time.process_time() - used
    yield "tasks", "1/s", batches * BATCH / took
    yield "CPU of the creating process", "µs/task", used / (batches * BATCH) * 1e6


def _claim_beside(place: Place, quick: bool) -> Iterator[Figure]:
    """The median of claims of 100 ready tasks with an empty table and beside tasks that wait for their day, 200,000 of
    them when it is to be quick and else a million."""
    medians = []
    database = Database(place.url, application_name="bench claimer", pool_size=2)
    store = TaskStore(database)
    for future in (0, 200_000 if quick else 1_000_000):
        if future:
            place.fill(future, state="scheduled", ahead=30)
        with place.use_cases() as tasks:
            tasks.create_many(new_tasks(5000))
        times = []
        for _ in range(40):
            began = time.perf_counter()
            assert len(store.claim(uuid4(), [Offer("noop", 60.0)], 100)) == 100
            times.append((time.perf_counter() - began) * 1000)
        medians.append(statistics.median(times))
    database.dispose()
    yield "claim of 100 beside no other task", "ms", medians[0]
    yield "claim of 100 beside the future tasks", "ms", medians[1]
    yield "the second divided by the first", "1", medians[1] / medians[0]


WORKS: dict[str, tuple[str, Work]] = {
    "noop-1": ("no-op tasks, one worker process", _noop(1)),
    "noop-2": ("no-op tasks, two worker processes", _noop(2)),
    "start": ("from creation to the start of the handler, idle worker", _latency),
    "hold-2000": ("2,000 tasks at once, one worker process", _held(2000, 5.0)),
    "hold-10000": ("10,000 tasks at once, one worker process", _held(10_000, 30.0)),
    "create": ("creation in batches of 1,000, in process", _create),
    "claim-future": ("claims beside tasks for later", _claim_beside),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", metavar="A,B", help=f"only these of: {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each work (3)")


def run(arguments: argparse.Namespace) -> Sequence[Row]:
    names = list(WORKS) if arguments.works is None else [name for name in arguments.works.split(",") if name]
    for name in names:
        if name not in WORKS:
            sys.exit(f"there is no work {name}; there are {', '.join(WORKS)}")
    runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-tasks-") as folder:
        # PostgreSQL may run as another user than we do.
        Path(folder).chmod(0o755)
        server = Server(Path(folder), free_port())
        server.start()
        try:
            for number in range(max(arguments.rounds, 1)):
                for name in names:
                    text, work = WORKS[name]
                    print(f"{text}, round {number + 1}", file=sys.stderr, flush=True)
                    for metric, unit, value in work(server.place(), arguments.quick):
                        runs[text, metric, unit].append(value)
        finally:
            server.stop()
    order = {WORKS[name][0]: at for at, name in enumerate(names)}
    return [
        Row(text, OURS, metric, unit, tuple(values))
        for (text, metric, unit), values in sorted(runs.items(), key=lambda item: order[item[0][0]])
    ]
