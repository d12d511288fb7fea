"""An instance with a broker of its own, and the producer that the README tells of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pika
import psutil
import pytest

from scripts.instance.layout import CHECKOUT
from tests.support.rabbitmq import programs
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

pytestmark = [pytest.mark.big, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    programs()
    running = RunningSystem(tmp_path_factory.mktemp("50% #1 ;x Объект") / "data")
    running.start("--workers", "1", "--rabbitmq")
    yield running
    running.stop()


def publish(system: RunningSystem, task: str = '{"status": "New"}') -> None:
    subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "publishing.py", task],
        env={"PATH": os.environ["PATH"], "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{system.port + 11}/%2F"},
        check=True,
        timeout=30,
    )


def completed(system: RunningSystem) -> int:
    return int(system.get("/tasks?status=completed").data["total"])


def test_a_published_task_is_completed_and_a_bad_one_is_to_be_seen(system: RunningSystem) -> None:
    publish(system)
    publish(system, '{"priority": "high"}')

    eventually(lambda: completed(system) == 1, timeout=20, what="the task is completed")
    (rejected,) = eventually(lambda: system.get("/tasks/rejected").data["rejected"], what="the bad one")
    assert rejected["details"][0]["field"] == "priority"


def test_the_broker_comes_back_when_it_is_killed_and_ingestion_with_it(system: RunningSystem) -> None:
    # Not before the old broker is gone, which the killed process leaves behind: it may take one more message.
    system.wait_until_replaced("rabbitmq", system.kill("rabbitmq"), timeout=60)
    before = completed(system)

    def again() -> bool:
        try:
            publish(system)
        except subprocess.CalledProcessError:
            return False
        return completed(system) > before

    eventually(again, timeout=90, what="a task through the new broker")


def deleted_user(system: RunningSystem) -> tuple[str, list[str]]:
    """A user with an open order and a live task, deleted; gives the id, and where the two are."""
    user = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"}).data["id"]
    items = [{"product": "nails", "quantity": 1, "price": 2}]
    order = system.post("/orders", {"user_id": user, "items": items}).data["id"]
    task = system.post("/tasks", {"user_id": user, "execute_at": "2099-01-01T00:00:00Z"}).data["id"]
    assert system.delete(f"/users/{user}").status == 200
    return user, [f"/orders/{order}", f"/tasks/{task}"]


def are_cancelled(system: RunningSystem, paths: list[str]) -> bool:
    return all(system.get(path).data["status"] == "cancelled" for path in paths)


def test_what_a_deleted_user_left_open_is_cancelled_with_the_broker_and_without_it(system: RunningSystem) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{system.port + 11}/%2F"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("siteworks.events", "topic", durable=True)
        channel.queue_declare("told", durable=True)
        channel.queue_bind("told", "siteworks.events", "user.deleted")
    first, left_open = deleted_user(system)
    eventually(lambda: are_cancelled(system, left_open), what="all is cancelled, the broker being there")

    system.cli("stop", "rabbitmq")
    second, left_open = deleted_user(system)
    eventually(lambda: are_cancelled(system, left_open), what="all is cancelled, the broker being away")
    system.cli("start", "rabbitmq")

    told: list[str] = []

    def both_were_told() -> bool:
        try:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                body = connection.channel().basic_get("told", auto_ack=True)[2]
        except (pika.exceptions.AMQPError, OSError):
            return False
        if body is not None:
            told.append(json.loads(body)["subject"])
        return {first, second} <= set(told)

    eventually(both_were_told, timeout=90, what="programs outside hear of both")


def test_a_broker_that_is_frozen_holds_nobody_up_and_goes_on_where_it_stood(system: RunningSystem) -> None:
    master = psutil.Process(int(system.status()["rabbitmq"]["pid"]))
    processes = [master, *master.children(recursive=True)]
    before = completed(system)
    for process in processes:
        process.suspend()
    try:
        _, left_open = deleted_user(system)
        eventually(lambda: are_cancelled(system, left_open), what="events reach the services without the broker")
    finally:
        for process in processes:
            process.resume()
    publish(system)
    eventually(lambda: completed(system) > before, timeout=90, what="a task through the broker")


def test_stopping_leaves_nothing_behind(system: RunningSystem) -> None:
    system.cli("stop")
    left = [p for p in psutil.process_iter() if _environment(p).get("RABBITMQ_BASE") == str(system.data / "rabbitmq")]
    assert left == []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
