"""From RabbitMQ to the table: a real broker, a real database, the real process, and what happens when one dies."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import psycopg2
import pytest
import requests

from scripts.soaking.messages import MessagePlan, soak_messages
from service_tasks.client import enqueue
from tests.integration.service_tasks.conftest import Bench
from tests.support.markdown import Document
from tests.support.memory import limit_of, peak
from tests.support.ports import free_ports
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.rabbitmq import PrivateBroker
from tests.support.waiting import eventually

pytestmark = pytest.mark.big

CHECKOUT = Path(__file__).resolve().parents[3]


class Ingest:
    """The process under test, started the way people start it."""

    def __init__(self, database_url: str, broker: PrivateBroker, log: Path) -> None:
        self.port = free_ports(1)
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service_tasks.cli", "ingest"],
                cwd=CHECKOUT,
                env={
                    "PATH": os.environ["PATH"],
                    "TASKS_DATABASE_URL": database_url,
                    "RABBITMQ_URL": broker.url,
                    "INGEST_BIND": f"127.0.0.1:{self.port}",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def is_ready(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def wait_until_ready(self) -> Ingest:
        eventually(self.is_ready, timeout=30, what="ingestion is ready")
        return self

    def metric(self, name: str) -> float:
        text = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text
        (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
        return float(line.split()[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.splitlines() if line.startswith("{")]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


@pytest.fixture(scope="module")
def _broker(tmp_path_factory) -> Iterator[PrivateBroker]:
    broker = PrivateBroker(tmp_path_factory.mktemp("rabbitmq") / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(_broker) -> PrivateBroker:
    """The broker, its queues gone."""
    with _broker.connect() as connection:
        for queue in ("task_queue", "tasks.ingest", "tasks.dead"):
            connection.channel().queue_delete(queue)
    return _broker


StartIngest = Callable[[], Ingest]


@pytest.fixture
def start(broker, tasks_database, tmp_path) -> Iterator[StartIngest]:
    started: list[Ingest] = []

    def begin() -> Ingest:
        started.append(Ingest(tasks_database.url, broker, tmp_path / f"log{len(started)}"))
        return started[-1].wait_until_ready()

    yield begin
    for one in started:
        one.stop()


def plain_program(broker: PrivateBroker) -> None:
    """What people have today: declare plain, publish, close."""
    connection = broker.connect()
    channel = connection.channel()
    channel.queue_declare(queue="task_queue")
    channel.basic_publish(exchange="", routing_key="task_queue", body=json.dumps({"status": "New"}))
    connection.close()


def publish(broker: PrivateBroker, bodies, *, queue: str = "task_queue", ids=None) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        if queue == "tasks.ingest":
            channel.confirm_delivery()
        for number, body in enumerate(bodies):
            properties = pika.BasicProperties(message_id=None if ids is None else ids[number], delivery_mode=2)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            channel.basic_publish("", queue, raw, properties, mandatory=queue == "tasks.ingest")


def count(bench) -> int:
    return bench.sql("SELECT count(*) FROM tasks")[0][0]


def test_a_queue_full_of_large_messages_takes_no_more_memory_than_the_container_has(start, broker, bench):
    body = json.dumps({"payload": "x" * 255 * 1024}).encode()
    with broker.connect() as connection:
        connection.channel().queue_declare("task_queue")
    publish(broker, [body] * 800)
    ingest = start()
    eventually(lambda: count(bench) == 800, timeout=60, what="all are tasks")
    assert peak(ingest.pid) < limit_of("task_ingest")
    assert ingest.events.count("consuming") == 1


def eventually_count(bench, expected: int, *, timeout: float = 20) -> None:
    eventually(lambda: count(bench) >= expected, timeout=timeout, what=f"{expected} tasks")
    assert count(bench) == expected


def test_the_plain_program_works_before_while_and_after_ingestion_runs(bench, broker, start):
    plain_program(broker)
    ingest = start()
    eventually_count(bench, 1)
    plain_program(broker)
    eventually_count(bench, 2)
    assert ingest.stop() == 0
    plain_program(broker)
    start()
    eventually_count(bench, 3)


def test_the_program_in_the_readme_makes_a_task(bench, broker, start):
    blocks = [block.text for block in Document(CHECKOUT / "README.md").blocks if block.language == "python"]
    (program,) = [text for text in blocks if "pika" in text]
    start()

    exec(program.replace("amqp://guest:guest@127.0.0.1:8011/%2F", broker.url), {})
    subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "publishing.py", '{"title":', '"from a script"}'],
        env={"PATH": os.environ["PATH"], "RABBITMQ_URL": broker.url},
        check=True,
        timeout=30,
    )

    eventually_count(bench, 2)
    assert [row[0] for row in bench.sql("SELECT title FROM tasks ORDER BY id")] == [None, "from a script"]


def test_under_the_policy_plain_programs_go_on_and_what_is_refused_is_kept(bench, broker, start):
    broker.server.set_policy()
    plain_program(broker)
    ingest = start()
    eventually_count(bench, 1)
    plain_program(broker)
    eventually_count(bench, 2)
    assert ingest.stop() == 0

    assert "reject-publish" in broker.control("--quiet", "list_policies")
    publish(broker, [b"refused by somebody else"])
    with broker.connect() as connection:
        channel = connection.channel()
        method, _, _ = channel.basic_get("task_queue")
        channel.basic_nack(method.delivery_tag, requeue=False)
        dead = lambda: channel.basic_get("tasks.dead", auto_ack=True)[2]  # noqa: E731
        assert eventually(dead, timeout=10, what="the dead letter") == b"refused by somebody else"


def test_bad_messages_reach_the_dead_letters_with_their_reason_and_the_good_ones_the_table(bench, broker, start):
    start()
    bodies = [
        {},
        b"no",
        {"priority": "x"},
        {},
        {"execute_at": "2001-01-01T00:00:00Z"},
        b"\x00" * 5_000_000,
        {"odd": 1},
        b"\x89PNG\xff\x00",
        {},
    ]
    publish(broker, bodies)
    eventually_count(bench, 3)
    reasons = [row[0] for row in bench.sql("SELECT reason FROM rejected_messages ORDER BY id")]
    said = ("Invalid JSON", "priority", "must be in the future", "5000000 bytes; 1048576 are allowed", "odd", "UTF-8")
    assert len(reasons) == len(said)
    assert all(text in reason for text, reason in zip(said, reasons, strict=True)), reasons
    with broker.connect() as connection:
        channel = connection.channel()
        copies = []
        while len(copies) < len(said):
            method, properties, body = channel.basic_get("tasks.dead", auto_ack=True)
            if method is not None:
                copies.append((properties.headers["x-rejected-reason"], body))
        assert [reason for reason, _ in copies] == reasons
        assert copies[3][1] == bodies[5]
        assert channel.queue_declare("task_queue", passive=True).method.message_count == 0


class Raw(pika.BasicProperties):
    """Properties as other programs write them: bytes that pika would not."""

    def __init__(self, flags: int, *parts: bytes) -> None:
        super().__init__()
        self._encoded = [struct.pack(">H", flags), *parts]

    def encode(self) -> list[bytes]:
        return [*self._encoded]


def short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def headers(kind: bytes, value: bytes) -> bytes:
    field = short(b"x") + kind + value
    return struct.pack(">I", len(field)) + field


#: The types of a header's value, and the bytes that one has.
KINDS = {b"V": 0, b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8, b"d": 8, b"D": 5}


def test_whatever_other_programs_write_into_properties_stops_nobody(bench, broker, start):
    ingest = start()
    with_headers, with_id = pika.BasicProperties.FLAG_HEADERS, pika.BasicProperties.FLAG_MESSAGE_ID
    eight = struct.Struct(">Q").pack
    # What RabbitMQ itself refuses, such as a float that is no number, cannot come here.
    tables = [
        headers(b"T", eight(1_795_225_080_516)),  # milliseconds
        headers(b"T", b"\xff" * 8),
        headers(b"D", b"\xff\x80\0\0\0"),
        headers(b"S", struct.pack(">I", 2) + b"\xff\xfe"),
        headers(b"A", struct.pack(">I", 9) + b"T" + b"\xff" * 8),
        headers(b"F", struct.pack(">I", 11) + short(b"y") + b"T" + b"\xff" * 8),
        *(headers(kind, b"\x81" * size) for kind, size in KINDS.items()),
    ]
    good = [Raw(with_headers | with_id, table, short(b"good-%d" % number)) for number, table in enumerate(tables)]
    flags = pika.BasicProperties
    good += [
        Raw(flags.FLAG_TIMESTAMP, b"\xff" * 8),
        Raw(flags.FLAG_DELIVERY_MODE | flags.FLAG_PRIORITY, b"\x02\xff"),
        Raw(flags.FLAG_CORRELATION_ID | flags.FLAG_REPLY_TO, short(b"\xff"), short(b"\0")),
        Raw(flags.FLAG_TYPE | flags.FLAG_APP_ID, short(b"\xfe"), short(b"\xfd" * 255)),
        Raw(flags.FLAG_CONTENT_TYPE, short(b"\xc0\xc1")),
    ]
    bad = [
        Raw(with_id, short("заявка".encode("cp1251"))),
        Raw(with_id, short(b"\xff" * 255)),
        Raw(pika.BasicProperties.FLAG_CONTENT_ENCODING, short(b"\xe3\xe7")),
    ]
    for queue in ("task_queue", "tasks.ingest"):
        with broker.connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for properties in (*good, *bad):
                channel.basic_publish("", queue, b"{}", properties)
    publish(broker, [{}])

    eventually_count(bench, 2 * len(good) + 1)
    eventually(lambda: bench.sql("SELECT count(*) FROM rejected_messages") == [(2 * len(bad),)], what="rejections")
    with broker.connect() as connection:
        channel = connection.channel()
        for queue in ("task_queue", "tasks.ingest"):
            eventually(
                lambda name=queue: channel.queue_declare(name, passive=True).method.message_count == 0,
                what=f"{queue} is empty",
            )
    assert ingest.events.count("consuming") == 1
    assert ingest.stop() == 0


def test_a_key_in_an_open_transaction_of_somebody_else_keeps_no_other_message_waiting(
    bench, broker, start, tasks_database
):
    ingest = start()
    holder = psycopg2.connect(tasks_database.url.replace("+psycopg2", "", 1))
    enqueue(holder, "noop", {}, unique_key="held")
    bodies = [{"title": "free"}, {"unique_key": "held", "title": "waits"}] * 3
    publish(broker, bodies, queue="tasks.ingest", ids=[f"first-{n}" for n in range(6)])
    eventually_count(bench, 3)
    eventually(lambda: "message_locked" in ingest.events, what="it is said")
    publish(broker, [{"title": "free"}] * 200, queue="tasks.ingest", ids=[f"second-{n}" for n in range(200)])
    eventually_count(bench, 203)
    # Told with the consumer's next turn.
    eventually(lambda: ingest.metric("siteworks_ingest_in_hand_messages") == 3, what="only those are in hand")
    assert ingest.events.count("consuming") == 1

    holder.rollback()
    holder.close()

    eventually_count(bench, 204)
    assert bench.sql("SELECT DISTINCT title, unique_key FROM tasks WHERE unique_key IS NOT NULL") == [("waits", "held")]
    with broker.connect() as connection:
        left = lambda: connection.channel().queue_declare("tasks.ingest", passive=True).method.message_count  # noqa: E731
        eventually(lambda: ingest.metric("siteworks_ingest_in_hand_messages") == 0, what="nothing is in hand")
        assert ingest.stop() == 0
        assert left() == 0


def test_a_message_without_work_to_do_is_acknowledged_and_not_delivered_again(bench, broker, start):
    publish_ids = [str(n) for n in range(300)]
    start()
    publish(broker, [{}] * 300, queue="tasks.ingest", ids=publish_ids)
    publish(broker, [{}] * 300, queue="tasks.ingest", ids=publish_ids)
    eventually_count(bench, 300)
    with broker.connect() as connection:
        left = lambda: connection.channel().queue_declare("tasks.ingest", passive=True).method.message_count  # noqa: E731
        eventually(lambda: left() == 0, timeout=10, what="the queue is empty")


def test_a_deleted_queue_is_noticed_and_declared_anew(bench, broker, start):
    ingest = start()
    with broker.connect() as connection:
        connection.channel().queue_delete("task_queue")
    eventually(lambda: ingest.events.count("consuming") == 2, timeout=20, what="it consumes again")
    assert all(" " not in event for event in ingest.events), "pika's own words are not in the log"
    plain_program(broker)
    eventually_count(bench, 1)


@pytest.fixture
def own_server(tmp_path) -> Iterator[TestServer]:
    """A PostgreSQL that a test may stop and kill."""
    server = TestServer(tmp_path, durable=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_database(own_server) -> Iterator[ServiceDatabase]:
    yield from own_server.service_database("service_tasks")


@pytest.mark.parametrize("away", [TestServer.stopped, TestServer.read_only], ids=["stopped", "read-only"])
def test_while_the_database_is_away_nothing_is_taken_and_afterwards_nothing_is_missing(
    own_server, own_database, broker, tmp_path, away
):
    ingest = Ingest(own_database.url, broker, tmp_path / "ingest.log").wait_until_ready()
    with ExitStack() as outage:
        outage.enter_context(away(own_server))
        _loses_nothing(outage, ingest, own_database, broker)
    assert ingest.events.count("database_away") == 1
    assert ingest.stop() == 0


def _loses_nothing(outage: ExitStack, ingest: Ingest, own_database: ServiceDatabase, broker) -> None:
    publish(broker, [{}] * 5)
    eventually(lambda: "database_away" in ingest.events, what="it has noticed")
    with broker.connect() as connection:
        channel = connection.channel()
        consumers = lambda: channel.queue_declare("task_queue", passive=True).method.consumer_count  # noqa: E731
        eventually(lambda: consumers() == 0, what="it takes nothing more")
        publish(broker, [{}] * 5)
        waiting = lambda: channel.queue_declare("task_queue", passive=True).method.message_count  # noqa: E731
        eventually(lambda: waiting() == 10, what="what it had taken is given back")
        assert not ingest.is_ready()
        outage.close()
        eventually_count(Bench(own_database.database), 10)
        eventually(lambda: consumers() == 1, what="it takes messages again")


def test_large_messages_are_given_back_once_while_the_database_is_away(own_server, own_database, broker, tmp_path):
    ingest = Ingest(own_database.url, broker, tmp_path / "ingest.log").wait_until_ready()
    with own_server.read_only():
        publish(broker, [json.dumps({"payload": "x" * 255 * 1024}).encode()] * 250)
        with broker.connect() as connection:
            channel = connection.channel()
            waiting = lambda: channel.queue_declare("task_queue", passive=True).method.message_count  # noqa: E731
            eventually(lambda: "database_away" in ingest.events and waiting() == 250, what="all are given back")
        assert not ingest.is_ready()
        assert ingest.events.count("consuming") == 1
    eventually_count(Bench(own_database.database), 250, timeout=60)
    assert ingest.events.count("consuming") == 2
    assert ingest.stop() == 0


def test_every_message_id_is_one_task_whatever_is_killed(own_server, own_database, broker, tmp_path):
    outcome = soak_messages(
        MessagePlan(messages=4000, every=1.0, rounds=1),
        broker=broker,
        postgres=own_server.postgres,
        database_url=own_database.url,
        folder=tmp_path,
        say=print,
    )

    assert outcome.faults == []
    assert (outcome.tasks, outcome.rejected) == (3920, 80)
    assert outcome.kills.keys() == {"consumer", "broker", "postgres"}
    assert outcome.published > 4000
