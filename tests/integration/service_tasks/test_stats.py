"""How things stand, counted in a real PostgreSQL, told by real workers and shown over HTTP."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service_tasks.app import create_app
from service_tasks.domain.distribution import BUCKETS
from service_tasks.domain.task import State
from service_tasks.engine.ports import AttemptCounts, Load
from service_tasks.persistence.maintenance_store import MaintenanceStore
from service_tasks.persistence.queries import load_queries
from service_tasks.persistence.stats_store import StatsStore
from service_tasks.settings import TasksSettings
from service_tasks.task_types import GiveUp, RetryAfter, TaskContext, task_type
from service_tasks.use_cases.stats import Stats
from servicekit.identity.reach import Reach
from tests.support.plans import scans_of
from tests.support.waiting import eventually

LOAD = Load(slots=10, busy=3, threads=4, busy_threads=1)


def counted(*, completed=0, failed=0, retried=0, wait=0, run=0) -> AttemptCounts:
    """With so many in the first bucket of each."""
    rest = (0,) * (BUCKETS - 1)
    return AttemptCounts(completed, failed, retried, (wait, *rest), (run, *rest))


def one_of_each(bench) -> None:
    """Of the type a: two ready, one running, completed, failed and cancelled; of the type b: one for later."""
    worker = bench.register(types=("a",))
    ids = [bench.add("a") for _ in range(4)]
    leases = {task.lease.task_id: task.lease for task in bench.claim(worker, "a")}
    bench.sql("UPDATE tasks SET state = 'completed', result = 'null', completed_at = now(), deadline_at = NULL,"
              " worker_id = NULL WHERE id = %s", str(ids[0]))  # fmt: skip
    bench.sql("UPDATE tasks SET state = 'failed', completed_at = now(), deadline_at = NULL, worker_id = NULL"
              " WHERE id = %s", str(ids[1]))  # fmt: skip
    bench.store.cancel(ids[2], reach=Reach.all())
    assert len(leases) == 4
    bench.add("a")
    oldest = bench.add("a", priority=0)
    bench.sql("UPDATE tasks SET execute_at = now() - interval '90 seconds' WHERE id = %s", str(oldest))
    later = bench.sql("SELECT now() + interval '1 hour'")[0][0]
    bench.add("b", execute_at=later)


# Counting


@pytest.mark.parametrize("small_pages", [4096, 0], ids=["a small table", "as in a large one"])
def test_all_statuses_and_types_are_counted(bench, small_pages):
    one_of_each(bench)

    found = Stats(StatsStore(bench.database, small_pages=small_pages)).show(reach=Reach.all())

    assert found.counts.model_dump() == {"pending": 3, "processing": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert {one.task_type: sum(one.counts.model_dump().values()) for one in found.types} == {"a": 6, "b": 1}
    assert found.oldest_ready_seconds == pytest.approx(90, abs=30)
    assert found.types[0].oldest_ready_seconds == found.oldest_ready_seconds
    # No index holds the completed ones, so of a large table they are told by a sample, here of all pages.
    assert found.estimated == ([] if small_pages else ["completed"])


def fill(bench, state: str, many: int, task_type: str = "a") -> None:
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, attempts, lease_no, execute_at,
                              worker_id, started_at, deadline_at, completed_at, result)
           SELECT gen_random_uuid(), s.state, s.task_type, '{}', 50, 3, 1, 1, now() - interval '1 minute',
                  CASE WHEN s.state = 'running' THEN gen_random_uuid() END, now(),
                  CASE WHEN s.state = 'running' THEN now() END,
                  CASE WHEN s.state IN ('completed', 'failed', 'cancelled') THEN now() END,
                  CASE WHEN s.state = 'completed' THEN 'null'::jsonb END
           FROM (SELECT %s AS state, %s AS task_type) s, generate_series(1, %s)""",
        state,
        task_type,
        many,
    )


def test_of_a_large_table_few_are_exact_and_many_are_estimated_and_said_to_be(bench):
    fill(bench, "completed", 20_000)
    fill(bench, "ready", 3000)
    fill(bench, "ready", 1000, "b")
    fill(bench, "failed", 50)
    fill(bench, "scheduled", 40)
    store = StatsStore(bench.database, small_pages=0, most=500, sampled_pages=100)

    census = store.figures(reach=Reach.all()).census

    assert census.estimated == {State.COMPLETED, State.READY}
    assert (census.states[State.FAILED], census.states[State.SCHEDULED]) == (50, 40)
    # A quarter of the pages: the same ones each time, so that this is no matter of chance.
    assert census.states[State.COMPLETED] == pytest.approx(20_000, rel=0.3)
    assert census.states[State.READY] == pytest.approx(4000, rel=0.5)
    again = store.figures(reach=Reach.all()).census
    assert (again.states, again.types) == (census.states, census.types)
    assert set(census.oldest) == {"a", "b"}
    assert census.oldest["b"] == pytest.approx(60, abs=30)


def test_running_tasks_beyond_counting_are_as_many_as_the_workers_say(bench, monkeypatch):
    monkeypatch.setattr("service_tasks.persistence.stats_store.MOST_RUNNING", 20)
    fill(bench, "running", 30)
    worker = bench.register()
    bench.engine.report_load(worker, Load(slots=100, busy=42, threads=0, busy_threads=0), {})

    census = StatsStore(bench.database, small_pages=0).figures(reach=Reach.all()).census

    assert census.states[State.RUNNING] == 42
    assert State.RUNNING in census.estimated


def test_in_a_large_table_nothing_but_indexes_and_the_sample_is_read(bench, tasks_database):
    for state in ("completed", "ready", "running", "scheduled", "failed", "cancelled"):
        fill(bench, state, 4000)
    tasks_database.administer("ANALYZE tasks")
    queries = load_queries("stats.sql")
    expected = {
        "count_some": {
            "ix_tasks_ready", "ix_tasks_scheduled", "ix_tasks_worker", "ix_tasks_ended_badly", "ix_tasks_cancelled_at",
        },
        "sample": {"Sample Scan"},
        "oldest_ready": {"ix_tasks_ready"},
        "cancelled": {"ix_tasks_cancelled_at"},
    }  # fmt: skip
    parameters = {
        "groups": 500, "most": 500, "most_running": 500, "percent": 1.0, "types": 100, "heads": 100, "minutes": 10,
    }  # fmt: skip
    found, read = {}, Counter()
    with bench.database.transaction() as session:
        connection = session.connection()
        for name in expected:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            statement = "EXPLAIN (ANALYZE, FORMAT JSON) " + queries[name]
            (plan,) = connection.exec_driver_sql(statement, parameters).scalar_one()
            scans = scans_of(plan["Plan"])
            found[name] = {scan.get("Index Name", scan["Node Type"]) for scan in scans}
            read[name] = sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans)

    assert found == expected
    assert read["count_some"] <= 5 * 500
    assert read["oldest_ready"] <= 100 + 2
    assert read["cancelled"] <= 500


# What ended


def test_workers_add_up_what_they_count_in_the_same_minute(bench):
    first, second = bench.register(), bench.register()
    bench.engine.report_load(first, LOAD, {"a": counted(completed=3, wait=3, run=3), "b": counted(failed=1, run=1)})
    bench.engine.report_load(first, LOAD, {"a": counted(completed=2, retried=1, wait=2, run=3)})
    bench.engine.report_load(second, LOAD, {"a": counted(completed=10, wait=10, run=10)})
    # So that a turn of the minute between them is no matter.
    bench.sql("UPDATE task_minutes SET minute = date_trunc('minute', now()) - interval '2 minutes'"
              " WHERE worker_id = %s", str(second))  # fmt: skip

    found = Stats(StatsStore(bench.database)).show(reach=Reach.all())

    assert {one.task_type: (one.completed, one.failed, one.retried) for one in found.types} == {
        "a": (15, 0, 1),
        "b": (0, 1, 0),
    }
    assert sum(one.completed for one in found.throughput.minutes) == 15
    assert found.throughput.per_minute.completed >= 2
    assert found.run.p50 == pytest.approx(0.0005, rel=0.1)
    rows = bench.sql("SELECT sum(completed), max(cardinality(waits)) FROM task_minutes WHERE task_type = 'a'")
    assert rows == [(15, BUCKETS)]


def test_cancels_are_counted_by_the_minute_whoever_cancelled(bench):
    for _ in range(3):
        bench.store.cancel(bench.add(), reach=Reach.all())
    bench.sql("UPDATE tasks SET completed_at = now() - interval '1 hour' WHERE id IN (SELECT id FROM tasks LIMIT 1)")

    found = Stats(StatsStore(bench.database)).show(reach=Reach.all())

    assert sum(one.cancelled for one in found.throughput.minutes) == 2
    assert found.counts.cancelled == 3


def test_minutes_that_nobody_asks_for_any_more_are_removed(bench):
    worker = bench.register()
    for name in ("a", "b", "c"):
        bench.engine.report_load(worker, LOAD, {name: counted(completed=1)})
    bench.sql("UPDATE task_minutes SET minute = now() - interval '25 hours' WHERE task_type <> 'c'")
    store = MaintenanceStore(bench.database)

    assert [store.prune_minutes(keep_seconds=86_400, limit=1) for _ in range(3)] == [1, 1, 0]
    assert bench.sql("SELECT task_type FROM task_minutes") == [("c",)]


# Workers


def test_a_worker_that_stops_has_told_all_that_it_counted(bench, start_worker):
    @task_type("fine")
    async def fine(ctx: TaskContext, payload: object) -> None:
        await asyncio.sleep(0.02)

    @task_type("bad")
    async def bad(ctx: TaskContext, payload: object) -> None:
        raise RetryAfter(0.01) if ctx.attempt == 1 else GiveUp("no")

    worker = start_worker(fine, bad, lease_seconds=21_600.0)
    ids = [bench.add("fine") for _ in range(20)]
    failing = bench.add("bad")
    for task_id in ids:
        bench.wait_for(task_id, State.COMPLETED)
    bench.wait_for(failing, State.FAILED)
    assert worker.stop() == 0

    found = {one.task_type: one for one in Stats(StatsStore(bench.database)).show(reach=Reach.all()).types}

    assert (found["fine"].completed, found["fine"].failed, found["fine"].retried) == (20, 0, 0)
    assert (found["bad"].completed, found["bad"].failed, found["bad"].retried) == (0, 1, 1)
    assert 0.008 <= found["fine"].run.p50 <= 1.0
    assert found["fine"].wait.p95 is not None


def test_a_worker_shows_its_places_and_who_leads(bench, start_worker):
    release = asyncio.Event()

    @task_type("patient")
    async def patient(ctx: TaskContext, payload: object) -> None:
        await release.wait()

    worker = start_worker(patient, concurrency=7, threads=2)
    bench.wait_for(bench.add("patient"), State.RUNNING)
    silent = bench.register(types=("a", "b"))
    # Beyond its lease, and not yet so long that it is forgotten.
    bench.sql("UPDATE workers SET heartbeat_at = now() - interval '60 s' WHERE id = %s", str(silent))
    store = StatsStore(bench.database)

    def look():
        found = Stats(store).show(reach=Reach.all()).workers
        mine = next((one for one in found.workers if one.name == worker.worker.info.name), None)
        # Alive: on a slow machine any beat may be late.
        return found if mine is not None and mine.busy and mine.leads and mine.alive else None

    found = eventually(look)

    assert (found.alive, found.silent, found.slots, found.busy, found.threads) == (1, 1, 7, 1, 2)
    by_name = {one.name: one for one in found.workers}
    mine, other = by_name[worker.worker.info.name], by_name["a worker"]
    assert (mine.task_types, mine.alive) == (["patient"], True)
    assert mine.last_beat_seconds < 45 < 60 <= other.last_beat_seconds
    assert (other.task_types, other.alive, other.leads) == (["a", "b"], False, False)


def test_tasks_taken_from_a_dead_worker_are_counted_by_who_took_them(bench, start_worker):
    @task_type("crane")
    async def crane(ctx: TaskContext, payload: object) -> None:
        return None

    dead = bench.register(lease_seconds=1.0, types=("crane",))
    poison = bench.add("crane", max_attempts=1)
    bench.claim(dead, "crane")
    bench.silence(dead)
    worker = start_worker(crane, lease_seconds=1.0)

    bench.wait_for(poison, State.FAILED)

    eventually(lambda: worker.worker.metrics.rescued["dead", "failed"] == 1)
    assert worker.stop() == 0
    (found,) = Stats(StatsStore(bench.database)).show(reach=Reach.all()).types
    assert (found.task_type, found.failed, found.completed) == ("crane", 1, 0)


# Over HTTP


def test_over_http_it_is_all_there_and_the_metrics_of_the_service_have_it_too(bench, tasks_database):
    one_of_each(bench)
    bench.engine.report_load(bench.register(), LOAD, {"a": counted(completed=3, wait=3, run=3)})
    client = create_app(TasksSettings(tasks_database_url=tasks_database.url, _env_file=None)).test_client()

    answer = client.get("/tasks/stats")
    page = client.get("/metrics").get_data(as_text=True)

    data = answer.get_json()["data"]
    assert answer.status_code == 200
    assert data["counts"]["pending"] == 3
    assert data["workers"]["slots"] == 10
    assert data["types"][0]["completed"] == 3
    # A worker runs the one; nobody knows the other.
    assert 'siteworks_tasks{status="pending",task_type="a"} 2.0' in page
    assert 'siteworks_tasks{status="pending",task_type="other"} 1.0' in page
    assert 'siteworks_task_workers{state="alive"} 2.0' in page
