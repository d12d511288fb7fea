"""A worker process with pages: what it counts can be seen while it runs."""

from __future__ import annotations

import http.client
import json
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service_tasks.domain.task import State
from tests.integration.service_tasks.conftest import WorkerProcess
from tests.support.waiting import eventually


@pytest.fixture
def worker(tmp_path, tasks_database):
    process = WorkerProcess(tmp_path, tasks_database.url, WORKER_BIND="127.0.0.1:0", WORKER_CONCURRENCY="50")
    yield process
    if process.process.poll() is None:
        process.end(signal.SIGKILL)


def port_of(worker: WorkerProcess) -> int:
    """As its log says."""

    def look() -> int | None:
        for line in worker.said().splitlines():
            event = json.loads(line)
            if event["event"] == "worker_pages":
                return event["port"]
        return None

    port = eventually(look, timeout=30)
    assert port is not None
    return port


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(port: int) -> dict[tuple[str, ...], float]:
    """The worker's own samples, each by its name and the values of its labels in the order of their names."""
    _, text = get(port, "/metrics")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(("siteworks_worker", "siteworks_promoter", "siteworks_rescuer"))
    }


def test_what_a_worker_counts_is_on_its_page(bench, worker):
    port = port_of(worker)
    done = [bench.add("noop") for _ in range(5)]
    broken = bench.add("io", payload='{"seconds": 0, "failures": 9}', max_attempts=1)
    long = bench.add("io", payload='{"seconds": 600}')
    for task_id in done:
        bench.wait_for(task_id, State.COMPLETED, timeout=20)
    bench.wait_for(broken, State.FAILED, timeout=20)

    bench.wait_for(long, State.RUNNING, timeout=20)

    def all_counted():
        # The table knows of a claim, and of an end, a little before the worker has counted it.
        found = samples(port)
        least = {
            ("siteworks_worker_tasks_claimed_total", "noop"): 5,
            ("siteworks_worker_attempts_total", "completed", "noop"): 5,
            ("siteworks_worker_run_seconds_count", "noop"): 5,
            ("siteworks_worker_attempts_total", "failed", "io"): 1,
            ("siteworks_worker_claim_tasks_sum",): 7,
            ("siteworks_worker_flush_outcomes_sum",): 6,
            ("siteworks_worker_wait_seconds_count", "io"): 2,
        }
        return (
            found if all(found.get(name, 0) >= count for name, count in least.items()) and is_at_rest(found) else None
        )

    def is_at_rest(found: dict[tuple[str, ...], float]) -> bool:
        """Nothing but the long task is held, and the last beat is not late, as any may be on a slow machine."""
        return (
            found["siteworks_worker_busy_slots", "task"] == 1
            and found["siteworks_worker_unwritten_outcomes",] == 0
            and 0 <= found["siteworks_worker_heartbeat_age_seconds",] < 2
        )

    found = eventually(all_counted)

    assert found["siteworks_worker_tasks_claimed_total", "noop"] == 5
    assert found["siteworks_worker_attempts_total", "completed", "noop"] == 5
    assert found["siteworks_worker_attempts_total", "failed", "io"] == 1
    assert found["siteworks_worker_run_seconds_count", "noop"] == 5
    assert found["siteworks_worker_wait_seconds_count", "io"] == 2
    assert found["siteworks_worker_claim_tasks_sum",] == 7
    assert found["siteworks_worker_flush_outcomes_sum",] == 6
    assert 1 <= found["siteworks_worker_flush_duration_seconds_count",] <= 6
    assert found["siteworks_worker_slots", "task"] == 50
    assert found["siteworks_worker_database_away", "claimer"] == 0
    eventually(lambda: samples(port)["siteworks_worker_leads",] == 1)
    assert worker.end(signal.SIGTERM) == 0


def test_a_worker_is_ready_while_the_database_hears_of_it(bench, worker, tasks_database):
    port = port_of(worker)
    eventually(lambda: get(port, "/readyz")[0] == 200, timeout=20)
    assert get(port, "/livez")[0] == 200


def test_a_scheduled_task_and_a_rescued_one_are_counted_by_the_leader(bench, worker):
    port = port_of(worker)
    # Scheduled in any case: what is due by the time it is stored is ready at once.
    later = bench.sql("SELECT now() + interval '1 hour'")[0][0]
    planned = bench.add("noop", execute_at=later)
    bench.sql("UPDATE tasks SET execute_at = now()")

    bench.wait_for(planned, State.COMPLETED, timeout=20)

    assert eventually(lambda: samples(port).get(("siteworks_promoter_tasks_total",))) == 1
    dead = bench.register(lease_seconds=1.0, types=("crane",))
    lost = bench.add("crane", max_attempts=1)
    bench.claim(dead, "crane")
    bench.silence(dead)
    bench.wait_for(lost, State.FAILED, timeout=30)
    # By the names of their labels: outcome, reason. Counted a little after the table knows of it.
    rescued = ("siteworks_rescuer_tasks_total", "failed", "dead")
    assert eventually(lambda: samples(port).get(rescued)) == 1


def test_a_worker_that_cannot_have_its_port_says_so_and_ends(tmp_path, tasks_database, worker):
    taken = port_of(worker)

    second = WorkerProcess(tmp_path, tasks_database.url, WORKER_BIND=f"127.0.0.1:{taken}")

    assert second.process.wait(30) == 1
    assert second.said().strip().splitlines()[-1].startswith(
        f"task_worker cannot start: it cannot listen on 127.0.0.1:{taken}"
    )  # fmt: skip


def test_without_an_address_a_worker_has_no_pages(bench, tmp_path, tasks_database):
    plain = WorkerProcess(tmp_path, tasks_database.url)
    bench.wait_for(bench.add("noop"), State.COMPLETED, timeout=30)

    assert plain.end(signal.SIGTERM) == 0
    assert "worker_pages" not in plain.said()
