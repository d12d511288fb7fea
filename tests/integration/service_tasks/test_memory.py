"""The largest requests that are allowed, all at once, take no more memory than the container has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service_tasks.domain.task import Succeeded
from servicekit.identity.reach import Reach
from tests.integration.service_tasks.conftest import new_task
from tests.support.memory import Contained, contained, limit_of, peak
from tests.support.task_workers import ForkedWorker
from tests.support.waiting import eventually

KIB = 1024
#: As few bytes as values can have.
NESTED = b"[" + b",".join([b"[]"] * 80_000) + b"]"


@pytest.fixture
def service(tasks_database, tmp_path: Path) -> Iterator[Contained]:
    with contained("service_tasks", tmp_path / "log", TASKS_DATABASE_URL=tasks_database.url) as service:
        yield service


def batch(payload: str, count: int) -> bytes:
    return json.dumps({"tasks": [{"payload": payload}] * count}, ensure_ascii=False).encode()


def test_the_largest_batches_at_once_stay_below_the_limit(service: Contained) -> None:
    assert service.at_once(service.post("/tasks/batch", batch("x" * 255 * KIB, 60))) == {201: 1}
    four = [service.post("/tasks/batch", batch("x" * 255 * KIB, 30))] * 4
    assert service.at_once(*four)[201] >= 1
    # A comma inside a text is not one more value.
    assert service.at_once(service.post("/tasks/batch", batch("Привет, мир! " * 9000, 70))) == {201: 1}
    # A quarter is left, because each batch's memory went back to the system before the next.
    assert peak(service.process.pid) < 0.75 * limit_of("service_tasks")


def test_a_batch_of_more_values_than_fit_is_refused_before_it_is_read(service: Contained) -> None:
    body = b'{"tasks":[' + b",".join([b'{"payload":' + NESTED + b"}"] * 60) + b"]}"
    assert service.at_once(*[service.post("/tasks/batch", body)] * 3)[201] == 0
    assert service.at_once(*[service.post("/tasks", b'{"payload":' + NESTED + b"}")] * 8)[201] >= 1
    assert peak(service.process.pid) < limit_of("service_tasks")


def test_tasks_with_much_to_show_stay_below_the_limit(service: Contained, bench) -> None:
    tasks = [new_task(payload=NESTED.decode()) for _ in range(8)]
    bench.store.add_many(tasks, reach=Reach.all())
    result = "[" + ",".join(["[]"] * 340_000) + "]"
    bench.engine.write([Succeeded(task.lease, result) for task in bench.claim(bench.register())], "a worker")
    error = {"attempt": 1, "type": "E", "message": "😀" * 2000, "failed_at": "2026-01-31T15:00:00Z", "worker": "w"}
    set_errors = "UPDATE tasks SET errors = (SELECT jsonb_agg(%s::jsonb) FROM generate_series(1, 50))"
    bench.sql(set_errors, json.dumps(error))
    each = [service.get(f"/tasks/{task.id}") for task in tasks]
    assert service.at_once(*each)[200] >= 1
    bench.store.add_many([new_task(payload=json.dumps("😀" * 4000)) for _ in range(100)], reach=Reach.all())
    bench.sql(set_errors, json.dumps(error))
    assert service.at_once(*[service.get("/tasks?limit=100")] * 8)[200] >= 1
    assert peak(service.process.pid) < limit_of("service_tasks")


def test_a_list_names_the_errors_of_a_task_that_has_too_many_to_be_shown(service: Contained, bench) -> None:
    few, many = bench.add(), bench.add()
    error = {"attempt": 1, "type": "E", "message": "x" * 1000, "failed_at": "2026-01-31T15:00:00Z", "worker": "w"}
    for task, times in ((few, 2), (many, 20)):
        bench.sql("UPDATE tasks SET errors = %s::jsonb WHERE id = %s", json.dumps([error] * times), str(task))
    shown = {task["id"]: task for task in service.client.get("/tasks").json["data"]["tasks"]}
    assert (len(shown[str(few)]["errors"]), shown[str(few)]["omitted"]) == (2, [])
    assert (shown[str(many)]["errors"], shown[str(many)]["omitted"]) == ([], ["errors"])
    assert len(service.client.get(f"/tasks/{many}").json["data"]["errors"]) == 20


def test_a_worker_begins_no_more_tasks_than_it_has_memory_for(bench, tasks_database, tmp_path: Path) -> None:
    bench.add("waits_with_much", payload=json.dumps({"folder": str(tmp_path), "values": [[]] * 80_000}))
    bench.sql(
        "INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)"
        " SELECT gen_random_uuid(), state, task_type, payload, priority, max_attempts, execute_at"
        " FROM tasks, generate_series(2, 120)"
    )
    # Heartbeats may be late on a busy machine: none of its tasks is to be taken for lost.
    worker = ForkedWorker(tmp_path, tasks_database.url, ("waits_with_much",), WORKER_LEASE_SECONDS="60")
    try:
        began = "SELECT count(*) FROM tasks WHERE attempts > 0"
        eventually(lambda: bench.sql(began)[0][0], what="it claimed some")
        eventually(lambda: (tmp_path / "journal").exists() and bench.sql(began)[0][0] < 50, what="it kept what fits")
        (tmp_path / "release").touch()
        completed = "SELECT count(*) FROM tasks WHERE state = 'completed' AND attempts = 1 AND result = '80000'"
        eventually(lambda: bench.sql(completed)[0][0] >= 40, timeout=60, what="it goes on, a few at a time")
        assert peak(worker.pid) < limit_of("task_worker")
    finally:
        worker.end()
