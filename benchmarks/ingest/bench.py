"""Tasks from RabbitMQ: messages a second from queue to table, and the time from publishing to the running handler.

On a RabbitMQ and a PostgreSQL of its own with synchronous commit; CPU times are told beside the rates, since they
disturb less. RabbitMQ has to be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pika

from benchmarks.processes import cpu_seconds, free_port
from benchmarks.report import CHECKOUT, OURS, ReportRow
from benchmarks.tasks.subjects import Server, TaskPlace, started_at
from scripts.instance.own_broker import OwnBroker
from scripts.instance.ports import HOST, free_base
from scripts.instance.rabbitmq import installed
from service_tasks.engine.ports import ANNOUNCE_SECONDS
from service_tasks.ingest.topology import PLAIN, SURE, declare
from servicekit.events.broker import BrokerLink, Queue

#: metric, unit, value
Figure = tuple[str, str, float]
_BODY = b'{"status": "New"}'
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Scene:
    """One run's own database on the servers of the whole benchmark."""

    place: TaskPlace
    broker: OwnBroker

    @contextlib.contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        with pika.BlockingConnection(pika.URLParameters(self.broker.url)) as connection:
            yield connection.channel()

    def declare(self) -> None:
        """Declare every queue, and empty it."""
        link = BrokerLink(self.broker.url, name="bench")
        declare(link)
        link.close()
        with self.channel() as channel:
            for queue in (PLAIN, SURE):
                channel.queue_purge(queue.name)

    def fill(self, queue: Queue, count: int, *, named: bool) -> None:
        with self.channel() as channel:
            if queue is SURE:
                # Without confirms, a quorum queue takes them only after the publisher is gone.
                channel.confirm_delivery()
            for number in range(count):
                properties = pika.BasicProperties(message_id=str(number) if named else None)
                channel.basic_publish("", queue.name, _BODY, properties)
            until = time.monotonic() + _START_SECONDS
            while (there := channel.queue_declare(queue.name, passive=True).method.message_count) < count:
                if time.monotonic() > until:
                    raise RuntimeError(f"{queue.name} has {there} of {count} messages after {_START_SECONDS:g} s")
                time.sleep(0.02)

    @contextlib.contextmanager
    def ingestion(self) -> Iterator[int]:
        """The consuming process; gives its pid."""
        settings = {
            "TASKS_DATABASE_URL": self.place.url,
            "RABBITMQ_URL": self.broker.url,
            "INGEST_BIND": f"{HOST}:{free_port()}",
            "LOG_LEVEL": "warning",
        }
        with (self.place.folder / "worker.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "service_tasks.cli", "ingest"],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT), **settings},
                stdout=log,
                stderr=log,
            )
        try:
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(15)
            child.kill()
            child.wait()


Work = Callable[[Scene, bool], Iterator[Figure]]


def _through(queue: Queue, *, named: bool) -> Work:
    def run(scene: Scene, quick: bool) -> Iterator[Figure]:
        count = 10_000 if quick else 50_000
        scene.declare()
        scene.fill(queue, count, named=named)
        postgres = scene.place.backends_cpu
        broker_before = scene.broker.cpu_seconds()
        with scene.ingestion() as pid:
            used, database = [0.0, 0.0], 0.0

            def begun() -> bool:
                used[0] = cpu_seconds(pid)
                return bool(scene.place.ask("SELECT EXISTS (SELECT FROM tasks)")[0])

            def done() -> bool:
                nonlocal database
                database = max(database, postgres("task_ingest%"))
                used[1] = cpu_seconds(pid)
                return bool(scene.place.ask("SELECT count(*) >= %s FROM tasks", (count,))[0])

            scene.place.wait(begun, _START_SECONDS)
            scene.place.wait(done, 300)
        (seconds,) = scene.place.ask("SELECT extract(epoch FROM max(created_at) - min(created_at))::float8 FROM tasks")
        yield "messages", "1/s", count / seconds
        yield "CPU of ingestion, without its start", "µs/message", (used[1] - used[0]) / count * 1e6
        yield "CPU of PostgreSQL", "µs/message", database / count * 1e6
        yield "CPU of RabbitMQ", "µs/message", (scene.broker.cpu_seconds() - broker_before) / count * 1e6

    return run


def _start(scene: Scene, quick: bool) -> Iterator[Figure]:
    scene.declare()
    waits = []
    with scene.place.workers(1), scene.ingestion(), scene.channel() as channel:

        def consumed() -> bool:
            return bool(channel.queue_declare(PLAIN.name, passive=True).method.consumer_count)

        scene.place.wait(consumed, _START_SECONDS)
        for number in range(30 if quick else 200):
            # Longer than the pause between two announcements: everybody is idle.
            time.sleep(2 * ANNOUNCE_SECONDS)
            began = time.time()
            channel.basic_publish("", PLAIN.name, b'{"task_type": "bench_clock", "title": "%d"}' % number)

            def result(title: str = str(number)) -> str | None:
                found: str | None = scene.place.ask("SELECT max(result::text) FROM tasks WHERE title = %s", (title,))[0]
                return found

            scene.place.wait(lambda: result() is not None, 20)
            waits.append((started_at(result() or "0") - began) * 1000)
    yield "median", "ms", statistics.median(waits)
    yield "p95", "ms", statistics.quantiles(waits, n=20)[-1]


WORKS: dict[str, tuple[str, Work]] = {
    "plain": ("task_queue, batches", _through(PLAIN, named=False)),
    "plain-id": ("task_queue, message_id, batches", _through(PLAIN, named=True)),
    "quorum": ("tasks.ingest (quorum), batches", _through(SURE, named=False)),
    "quorum-id": ("tasks.ingest (quorum), message_id, batches", _through(SURE, named=True)),
    "start": ("from publishing to the start of the handler, idle worker", _start),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", metavar="A,B", help=f"only these of: {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each work (3)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    names = list(WORKS) if arguments.works is None else [name for name in arguments.works.split(",") if name]
    for name in names:
        if name not in WORKS:
            sys.exit(f"there is no work {name}; there are {', '.join(WORKS)}")
    programs = installed()
    if programs is None:
        sys.exit("RabbitMQ is not installed here; Debian and Ubuntu: apt install rabbitmq-server")
    runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-ingest-", ignore_cleanup_errors=True) as folder:
        # PostgreSQL may run as another user than we do.
        Path(folder).chmod(0o755)
        server = Server(Path(folder), free_port())
        broker = OwnBroker(Path(folder) / "rabbitmq", free_base(), programs)
        try:
            server.start()
            broker.start()
            for number in range(max(arguments.rounds, 1)):
                for name in names:
                    text, work = WORKS[name]
                    print(f"{text}, round {number + 1}", file=sys.stderr, flush=True)
                    for metric, unit, value in work(Scene(server.place(), broker), arguments.quick):
                        runs[text, metric, unit].append(value)
        finally:
            broker.stop()
            server.stop()
    order = {WORKS[name][0]: at for at, name in enumerate(names)}
    return [
        ReportRow(text, OURS, metric, unit, tuple(values))
        for (text, metric, unit), values in sorted(runs.items(), key=lambda item: order[item[0][0]])
    ]
