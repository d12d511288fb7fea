"""Task workers: throughput, latency, tasks held at once, creation, claims, churn, and what a task costs PostgreSQL.

On a PostgreSQL of its own with synchronous commit, and for the peers that need one on a RabbitMQ of its own; CPU
seconds are told beside the rates, since they disturb less. The subjects take turns in every round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg2

from benchmarks.installing import Missing
from benchmarks.processes import free_port
from benchmarks.report import OURS, ReportRow
from benchmarks.tasks import figures, over_http, peer_works
from benchmarks.tasks.churn import churn, claim
from benchmarks.tasks.configurations import PEERS
from benchmarks.tasks.figures import BATCH, Figure
from benchmarks.tasks.peer import PeerFailed, PeerQueue, Servers
from benchmarks.tasks.subjects import Server, TaskPlace, new_tasks, started_at, waiting_tasks
from service_tasks.engine.ports import ANNOUNCE_SECONDS
from service_tasks.schemas.tasks import TaskCreate
from servicekit.identity.reach import Reach
from servicekit.observing import logs
from servicekit.process.lifecycle import allow_many_files

Work = Callable[[TaskPlace, bool], Iterator[Figure]]
OurWork = Callable[[Server, bool], Iterator[Figure]]


def _noop(workers: int) -> Work:
    def run(place: TaskPlace, quick: bool) -> Iterator[Figure]:
        count = 50_000 if quick else 200_000
        place.fill(count)
        before = place.wal(), place.row_writes()
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
        yield *figures.TASKS, count / seconds
        yield *figures.WORKERS_CPU, used / count * 1e6
        yield *figures.SERVER_CPU, cpu / count * 1e6
        yield *figures.WAL, (place.wal() - before[0]) / count
        yield *figures.DEAD, (place.row_writes() - before[1]) / count

    return run


def _latency(place: TaskPlace, quick: bool) -> Iterator[Figure]:
    waits = []
    with place.workers(1), place.use_cases() as tasks:
        for _ in range(30 if quick else 200):
            # Longer than the pause between two announcements: the worker is idle.
            time.sleep(2 * ANNOUNCE_SECONDS)
            began = time.time()
            made = tasks.create(TaskCreate(task_type="bench_clock"), reach=Reach.all()).task

            def result(task_id: object = made.id) -> str | None:
                found: str | None = place.ask("SELECT result::text FROM tasks WHERE id = %s", (str(task_id),))[0]
                return found

            place.wait(lambda: result() is not None, 10)
            waits.append((started_at(result() or "0") - began) * 1000)
    yield *figures.MEDIAN, statistics.median(waits)
    yield *figures.P95, statistics.quantiles(waits, n=20)[-1]


def _held(count: int, seconds: float) -> Work:
    def run(place: TaskPlace, quick: bool) -> Iterator[Figure]:
        length = min(seconds, 10.0) if quick else seconds
        with place.workers(1, concurrency=count) as (worker,), place.use_cases() as tasks:
            empty = worker.used().resident_mib
            began = time.monotonic()
            tasks.create_many(waiting_tasks(count, length), reach=Reach.all())
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
        yield *figures.WAITED, length
        yield *figures.TOOK, took
        yield *figures.HELD, most
        yield *figures.RESIDENT, full
        yield *figures.EACH, (full - empty) * 1024 / count

    return run


def _create(place: TaskPlace, quick: bool) -> Iterator[Figure]:
    batches = 20 if quick else 100
    with place.use_cases() as tasks:
        tasks.create_many(new_tasks(BATCH), reach=Reach.all())
        began, used = time.monotonic(), time.process_time()
        for _ in range(batches):
            tasks.create_many(new_tasks(BATCH), reach=Reach.all())
        took, used = time.monotonic() - began, time.process_time() - used
    yield *figures.TASKS, batches * BATCH / took
    yield *figures.CREATOR_CPU, used / (batches * BATCH) * 1e6


def _create_one(place: TaskPlace, quick: bool) -> Iterator[Figure]:
    count = 300 if quick else 2000
    with place.use_cases() as tasks:
        tasks.create(TaskCreate(), reach=Reach.all())
        began, used = time.monotonic(), time.process_time()
        for _ in range(count):
            tasks.create(TaskCreate(), reach=Reach.all())
        took, used = time.monotonic() - began, time.process_time() - used
    yield *figures.TASKS, count / took
    yield *figures.CREATOR_CPU, used / count * 1e6


def _claim_beside(place: TaskPlace, quick: bool) -> Iterator[Figure]:
    """The median of claims of 100 ready tasks with an empty table and beside tasks that wait for their day, 200,000 of
    them when it is to be quick and else a million."""
    medians = []
    for future in (0, 200_000 if quick else 1_000_000):
        if future:
            place.fill(future, state="scheduled", ahead=30)
        medians.append(claim(place, 40, fill=5000))
    yield *figures.CLAIM_EMPTY, medians[0]
    yield *figures.CLAIM_FULL, medians[1]
    yield *figures.CLAIM_RATIO, medians[1] / medians[0]


def _at(work: Work) -> OurWork:
    """In a new database, which is dropped afterwards."""

    def run(server: Server, quick: bool) -> Iterator[Figure]:
        place = server.place()
        yield from work(place, quick)
        server.drop(place)

    return run


@dataclass(frozen=True, slots=True)
class Entry:
    """A work: its title, how we do it, and the metric that stands for it where there is none."""

    title: str
    ours: OurWork
    main: tuple[str, str] = figures.TASKS
    #: so long that one run has to do
    is_long: bool = False


WORKS: dict[str, Entry] = {
    "noop-1": Entry("no-op tasks, one worker process", _at(_noop(1))),
    "noop-2": Entry("no-op tasks, two worker processes", _at(_noop(2))),
    "start": Entry("from creation to the start of the handler, idle worker", _at(_latency), figures.MEDIAN),
    "hold-2000": Entry("2,000 tasks at once, one worker process", _at(_held(2000, 5.0)), figures.TOOK),
    "hold-10000": Entry("10,000 tasks at once, one worker process", _at(_held(10_000, 30.0)), figures.TOOK),
    "create-one": Entry("creation one by one, in process", _at(_create_one)),
    "create": Entry("creation in batches of 1,000, in process", _at(_create)),
    "create-http": Entry("creation over HTTP, through the gateway", _at(over_http.create), over_http.MAIN),
    "claim-future": Entry("claims beside tasks for later", _at(_claim_beside), figures.CLAIM_RATIO),
    "churn": Entry("churn, 300 tasks a second", churn, figures.ENDED, is_long=True),
}
SUBJECTS = (OURS, *PEERS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", metavar="A,B", help=f"only these of: {', '.join(WORKS)}")
    parser.add_argument("--subjects", metavar="A,B", help=f"only these of: {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, help="runs of each work (3; quick: 1; of churn always 1)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    works = chosen("work", arguments.works, WORKS)
    subjects = chosen("subject", arguments.subjects, SUBJECTS)
    rounds = max(arguments.rounds or (1 if arguments.quick else 3), 1)
    record = Record([WORKS[name].title for name in works])
    allow_many_files()
    # What runs in this process must not write into the table.
    logs.configure("benchmarks", fmt="console", level="warning")
    with tempfile.TemporaryDirectory(prefix="bench-tasks-") as name, ExitStack() as stack:
        folder = Path(name)
        # PostgreSQL may run as another user than we do.
        folder.chmod(0o755)
        server = Server(folder, free_port())
        server.start()
        stack.callback(server.stop)
        servers = Servers(folder, server)
        stack.callback(servers.stop)
        runners = _runners(subjects, servers, folder, record, works)
        for number in range(rounds):
            for work in works:
                if number and WORKS[work].is_long:
                    continue
                for subject, runner in runners.items():
                    print(f"{WORKS[work].title}, round {number + 1}: {subject}", file=sys.stderr, flush=True)
                    runner(work, arguments.quick)
    return record.rows()


Runner = Callable[[str, bool], None]


def _runners(
    subjects: Sequence[str], servers: Servers, folder: Path, record: Record, works: Sequence[str]
) -> dict[str, Runner]:
    """One for each subject that can be had, by its name; of the others the record says that they are missing."""
    found: dict[str, Runner] = {}
    for name in subjects:
        if name == OURS:
            found[OURS] = partial(_run_ours, servers.postgres, record)
            continue
        try:
            peer = PEERS[name]()
            if peer.on_rabbitmq:
                servers.broker()
        except Missing as error:
            print(f"missing: {name} ({error})", file=sys.stderr)
            for work in works:
                record.note(WORKS[work], name, f"missing: {error}")
        else:
            found[peer.name] = partial(_run_peer, peer, servers, folder, record)
    return found


def _run_ours(server: Server, record: Record, work: str, quick: bool) -> None:
    for metric, unit, value in WORKS[work].ours(server, quick):
        record.add(WORKS[work], OURS, metric, unit, value)


def _run_peer(peer: PeerQueue, servers: Servers, folder: Path, record: Record, work: str, quick: bool) -> None:
    """A peer's failure is its figure."""
    entry = WORKS[work]
    if work in peer.lacks:
        record.note(entry, peer.name, peer.lacks[work])
        return
    try:
        for metric, unit, value in peer_works.WORKS[work](peer, servers, folder, quick):
            record.add(entry, peer.name, metric, unit, value)
    except (PeerFailed, RuntimeError, OSError, ValueError, ArithmeticError, psycopg2.Error) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        print(f"failed: {peer.name} ({said[0]})", file=sys.stderr)
        record.note(entry, peer.name, f"failed: {said[0]}")


class Record:
    """What was measured, by work, metric and subject."""

    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = titles
        self._subjects: dict[str, None] = {}
        self._runs: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
        self._notes: dict[tuple[str, str, str, str], str] = {}

    def add(self, entry: Entry, subject: str, metric: str, unit: str, value: float | str) -> None:
        self._subjects[subject] = None
        if isinstance(value, str):
            self._notes[entry.title, subject, metric, unit] = value
        else:
            self._runs[entry.title, subject, metric, unit].append(value)

    def note(self, entry: Entry, subject: str, text: str) -> None:
        """Why there is no figure."""
        self.add(entry, subject, *entry.main, text)

    def rows(self) -> list[ReportRow]:
        """Figures first; a note where no run has given one. By work, then metric, then subject, each as they came."""
        keys = dict.fromkeys([*self._runs, *self._notes])
        metrics = list(dict.fromkeys(key[2:] for key in keys))
        subjects = list(self._subjects)
        ordered = sorted(
            keys, key=lambda key: (self._titles.index(key[0]), metrics.index(key[2:]), subjects.index(key[1]))
        )
        return [
            ReportRow(
                title, subject, metric, unit, tuple(runs), "" if runs else self._notes[title, subject, metric, unit]
            )
            for title, subject, metric, unit in ordered
            for runs in [self._runs.get((title, subject, metric, unit), [])]
        ]


def chosen(kind: str, text: str | None, known: Collection[str]) -> list[str]:
    """The names in a comma-separated list, or all; ends the program at an unknown one."""
    names = list(known) if text is None else [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            sys.exit(f"there is no {kind} {name}; there are {', '.join(known)}")
    return names
