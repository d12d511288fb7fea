"""The soak of messages: a producer with confirms, while consumer, broker and database are killed.

- Each message_id is exactly one task, and that of a bad message exactly one rejection.
- Nothing else is in the tables, and nothing is left in the queue.
- Ingestion goes on after each kill: some message is written every STUCK_SECONDS.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from scripts.instance.command_line import exit_status, say
from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT
from scripts.instance.own_broker import OwnBroker
from scripts.instance.ports import HOST, free_base
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.rabbitmq import installed
from service_tasks.ingest.topology import SURE, declare
from servicekit.database import migrations
from servicekit.database.engine import is_unavailable
from servicekit.events.broker import BrokerAway, BrokerLink, Message

#: Ingestion must make progress within this time, in seconds, whatever was killed.
STUCK_SECONDS = 60.0
#: One message in so many is bad, and one in so many is published twice.
_BAD, _TWICE = 50, 10
_LOOK_SECONDS = 0.05
_SHOWN = 10


@dataclass(frozen=True)
class MessagePlan:
    """`every`: how long a consumer lives after it is ready, in seconds. Each server is killed `rounds` times, evenly
    spread over the messages."""

    messages: int = 50_000
    every: float = 2.0
    rounds: int = 2


@dataclass(frozen=True)
class MessageOutcome:
    """`published` includes repetitions, deliberate or after the broker's death."""

    plan: MessagePlan
    seconds: float
    published: int
    kills: dict[str, int]
    tasks: int
    rejected: int
    faults: list[str]


def soak_messages(
    plan: MessagePlan,
    *,
    broker: OwnBroker,
    postgres: EmbeddedPostgres,
    database_url: str,
    folder: Path,
    say: Callable[[str], None],
) -> MessageOutcome:
    """Send the messages through a broker and a database, both killed and restarted meanwhile."""
    began = time.monotonic()
    producer = _Producer(broker.url, plan.messages)
    consumer = _Consumer(database_url, broker.url, free_base(), folder / "ingest.log")
    table = _Table(database_url)
    kills: Counter[str] = Counter()
    servers: Sequence[tuple[str, OwnBroker | EmbeddedPostgres]] = [("broker", broker), ("postgres", postgres)]
    due = [
        (plan.messages * (number + 1) / (len(servers) * plan.rounds + 1), *servers[number % len(servers)])
        for number in range(len(servers) * plan.rounds)
    ]
    most, moved_at = 0, began
    try:
        consumer.start()
        producer.start()
        consumer.wait_until_ready()
        broker.wait_until_kept()
        while most < plan.messages and time.monotonic() - moved_at < STUCK_SECONDS:
            time.sleep(_LOOK_SECONDS)
            written = table.written()
            if written is not None and written > most:
                most, moved_at = written, time.monotonic()
            if consumer.lived() > plan.every:
                consumer.kill()
                kills["consumer"] += 1
                consumer.start()
            if due and most >= due[0][0]:
                _, name, server = due.pop(0)
                say(f"{time.monotonic() - began:6.1f} s  {most} messages written; killing {name}")
                server.kill()
                kills[name] += 1
                server.start()
                moved_at = time.monotonic()
        lasted = time.monotonic() - began
        faults = (
            [] if most >= plan.messages else [f"nothing was written for {STUCK_SECONDS:.0f} s after {most} messages"]
        )
        producer.stop()
        faults += [f"the producer has failed: {producer.crash!r}"] if producer.crash else []
        # One started a moment ago would die of SIGTERM before it can stop gracefully.
        consumer.wait_until_ready()
        # Repetitions may still be in the queue; they make no tasks, but must be consumed.
        left = _left(broker.url)
        faults += [f"{left} messages are left in {SURE.name}"] if left else []
        status = consumer.stop()
        faults += [f"the last consumer ended with {status}"] if status else []
        faults += table.faults(plan.messages)
        return MessageOutcome(
            plan,
            lasted,
            producer.published,
            dict(kills),
            table.count("tasks"),
            table.count("rejected_messages"),
            faults,
        )
    finally:
        producer.stop()
        consumer.kill()


def _is_bad(number: int) -> bool:
    return number % _BAD == _BAD - 1


class _Producer:
    """Publishes each message until it is confirmed."""

    def __init__(self, url: str, count: int) -> None:
        self.published = 0
        self.crash: BaseException | None = None
        self._url = url
        self._count = count
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak producer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _run(self) -> None:
        number = 0
        try:
            while number < self._count and not self._stopped.is_set():
                with (
                    contextlib.suppress(BrokerAway),
                    contextlib.closing(BrokerLink(self._url, name="soak producer")) as link,
                ):
                    declare(link)
                    while number < self._count and not self._stopped.is_set():
                        for _ in range(2 if number % _TWICE == 0 else 1):
                            self.published += 1
                            body = b"not JSON" if _is_bad(number) else json.dumps({"title": str(number)}).encode()
                            link.publish([Message("", SURE.name, body, message_id=str(number))])
                        number += 1
                self._stopped.wait(_LOOK_SECONDS)
        except BaseException as error:  # a fault of the soak itself must not end it quietly
            self.crash = error


class _Consumer:
    """`ingest` processes, one after another on the same port."""

    def __init__(self, database_url: str, broker_url: str, port: int, log: Path) -> None:
        self._settings = {
            "TASKS_DATABASE_URL": database_url,
            "RABBITMQ_URL": broker_url,
            "INGEST_BIND": f"{HOST}:{port}",
            "LOG_LEVEL": "info",
        }
        self._port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_at: float | None = None

    def start(self) -> None:
        self._ready_at = None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service_tasks.cli", "ingest"],
                cwd=CHECKOUT,
                env={**os.environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def lived(self) -> float:
        """Seconds since it was ready; 0 before that. Raises InstanceError if it has ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise InstanceError(f"ingestion ended with {self._process.returncode}; its log is {self._log}")
        if self._ready_at is None:
            if not self._is_ready():
                return 0.0
            self._ready_at = time.monotonic()
        return time.monotonic() - self._ready_at

    def wait_until_ready(self) -> None:
        """Raises InstanceError if it does not become ready."""
        until = time.monotonic() + STUCK_SECONDS
        while not self.lived():
            if time.monotonic() > until:
                raise InstanceError(f"ingestion is not ready after {STUCK_SECONDS:.0f} s; its log is {self._log}")
            time.sleep(_LOOK_SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Its exit status, -9 if it did not end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class _Table:
    """The tables that messages end in. The server may be away, except for `count` and `faults`."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url.replace("+psycopg2", "", 1)

    def written(self) -> int | None:
        """How many messages have become a task or a rejection; None while the server is away."""
        try:
            return int(
                self._ask("SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM rejected_messages)")[0][0]
            )
        except psycopg2.Error as exc:
            if is_unavailable(exc):
                return None
            raise

    def count(self, table: str) -> int:
        return int(self._ask(f"SELECT count(*) FROM {table}")[0][0])

    def faults(self, count: int) -> list[str]:
        bad = Counter(str(number) for number in range(count) if _is_bad(number))
        good = Counter(str(number) for number in range(count) if not _is_bad(number))
        return [
            *_differences("task", good, self._texts("SELECT title FROM tasks")),
            *_differences(
                "known id with its task",
                good,
                self._texts(
                    "SELECT i.message_id FROM ingested_messages i"
                    " JOIN tasks t ON t.id = i.task_id AND t.title = i.message_id"
                ),
            ),
            *_differences("rejection", bad, self._texts("SELECT message_id FROM rejected_messages")),
        ]

    def _texts(self, statement: str) -> Counter[str]:
        return Counter(row[0] for row in self._ask(statement))

    def _ask(self, statement: str) -> list[Any]:
        connection = psycopg2.connect(self._url, application_name="soak", connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()


def _differences(what: str, wanted: Counter[str], found: Counter[str]) -> list[str]:
    missing, more = sorted((wanted - found).elements(), key=int), sorted((found - wanted).elements())
    return [
        f"{len(names)} messages have {text} {what}: {', '.join(names[:_SHOWN])}"
        for text, names in (("no", missing), ("one more", more))
        if names
    ]


def _left(url: str) -> int:
    """How many messages are left in the queue after some time."""
    link = BrokerLink(url, name="soak")
    try:
        until = time.monotonic() + STUCK_SECONDS
        while (left := link.waiting([SURE.name])) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        return left
    finally:
        link.close()


def message_lines(outcome: MessageOutcome) -> list[str]:
    """The outcome as text."""
    plan = outcome.plan
    killed = ", ".join(f"{name} {number} times" for name, number in outcome.kills.items())
    return [
        f"{plan.messages} messages ({outcome.published} publications) in {outcome.seconds:.0f} s",
        f"killed: {killed or 'nobody'}",
        f"tasks: {outcome.tasks}, rejected: {outcome.rejected}",
        f"faults: {len(outcome.faults)}",
        *outcome.faults,
    ]


def main(given: Sequence[str]) -> int:
    """`./scripts/soak messages`: the exit status is 0 without a fault, 1 with one."""
    rules = (__doc__ or "").partition("\n\n")[2].replace("STUCK_SECONDS", f"{STUCK_SECONDS:.0f} seconds")
    parser = argparse.ArgumentParser(
        prog="./scripts/soak messages",
        description="Publish messages to a RabbitMQ of its own while the consumer is killed every few seconds, and the"
        " broker and PostgreSQL now and then; then look for the task of each.",
        epilog="what must hold:\n" + rules,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = MessagePlan()
    parser.add_argument(
        "--messages", type=int, default=usual.messages, metavar="N", help=f"how many messages ({usual.messages})"
    )
    parser.add_argument(
        "--every", type=float, default=usual.every, metavar="S", help=f"how long a consumer lives ({usual.every:g})"
    )
    parser.add_argument(
        "--rounds", type=int, default=usual.rounds, metavar="N", help=f"kills of each server ({usual.rounds})"
    )
    options = parser.parse_args(given)
    # SIGTERM must still stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return exit_status("soak", lambda: _act(options))


def _act(options: argparse.Namespace) -> int:
    programs = installed()
    if programs is None:
        raise InstanceError("the soak of messages needs RabbitMQ: install rabbitmq-server")
    plan = MessagePlan(options.messages, options.every, options.rounds)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL may run as another user.
        folder.chmod(0o755)
        base = free_base()
        postgres = EmbeddedPostgres(folder / "postgres", base, "of a soak")
        broker = OwnBroker(folder / "rabbitmq", base + 1, programs)
        try:
            postgres.start()
            url = postgres.url("postgres")
            postgres.tool("psql", "-X", "-q", "-d", "postgres", "-c", "CREATE ROLE tasks")
            migrations.upgrade("service_tasks", url)
            broker.start()
            outcome = soak_messages(plan, broker=broker, postgres=postgres, database_url=url, folder=folder, say=say)
        finally:
            broker.stop()
            postgres.stop()
    for line in message_lines(outcome):
        say(line)
    return 1 if outcome.faults else 0
