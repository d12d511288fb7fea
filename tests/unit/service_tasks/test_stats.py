"""How things stand: kept for a while, summed up, and shown as metrics."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from service_tasks.domain.distribution import BUCKETS
from service_tasks.domain.task import State
from service_tasks.metrics.stats import FROM_THE_DATABASE, StatsCollector
from service_tasks.use_cases.stats import Census, EndedAttempts, Figures, Stats, Timed, WorkerState
from servicekit.identity.reach import Reach
from servicekit.wire import deadline
from servicekit.wire.errors import DatabaseUnavailable, Unavailable

NOW = datetime(2026, 1, 31, 12, 30, 20, tzinfo=UTC)
MINUTE = NOW.replace(second=0)


def figures(**changes) -> Figures:
    whole = {
        "now": NOW,
        "census": Census(
            states={State.READY: 3, State.SCHEDULED: 2, State.COMPLETED: 10, State.FAILED: 1},
            types={("noop", State.READY): 2, ("crane", State.READY): 1, ("noop", State.COMPLETED): 10},
            oldest={"noop": 7.25, "crane": 3.0},
            estimated=frozenset(),
        ),
        "minutes": {},
        "types": {},
        "timed": {},
        "workers": [],
        "alive": 0,
        "silent": 0,
        "slots": 0,
        "busy": 0,
        "threads": 0,
        "busy_threads": 0,
    }
    return Figures(**{**whole, **changes})


class Repository:
    """Takes as long as it is told, by the clock of the test."""

    def __init__(self, found: Figures | None = None) -> None:
        self.now = 100.0
        self.asked = 0
        self.takes = 0.0
        self.found = found or figures()
        self.away = False

    def figures(self, *, reach: Reach) -> Figures:
        self.asked += 1
        self.now += self.takes
        if self.away:
            raise DatabaseUnavailable
        return self.found

    def clock(self) -> float:
        return self.now


def stats(repository: Repository) -> Stats:
    return Stats(repository, monotonic=repository.clock)


def test_within_a_second_nobody_counts_again():
    repository = Repository()
    asked = stats(repository)

    first = asked.show(reach=Reach.all())
    repository.now += 0.9
    assert asked.show(reach=Reach.all()) is first
    repository.now += 0.2
    assert asked.show(reach=Reach.all()) is not first
    assert repository.asked == 2


def test_counting_takes_a_twentieth_of_the_time_at_most():
    repository = Repository()
    repository.takes = 0.5
    asked = stats(repository)

    asked.show(reach=Reach.all())
    repository.now += 9.9
    asked.show(reach=Reach.all())
    assert repository.asked == 1
    repository.now += 0.2
    asked.show(reach=Reach.all())
    assert repository.asked == 2


def test_a_database_that_is_away_is_asked_again_the_next_time():
    repository = Repository()
    repository.away = True
    asked = stats(repository)
    with pytest.raises(DatabaseUnavailable):
        asked.show(reach=Reach.all())

    repository.away = False
    assert asked.show(reach=Reach.all()).counts.pending == 5


def test_who_asks_while_another_counts_waits_no_longer_than_the_request_has(monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    class Slow(Repository):
        def figures(self, *, reach: Reach) -> Figures:
            began.set()
            assert go_on.wait(20)
            return self.found

    asked = Stats(Slow())
    first = threading.Thread(target=asked.show, kwargs={"reach": Reach.all()})
    first.start()
    assert began.wait(20)

    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with deadline.within(0.05), pytest.raises(Unavailable, match="being counted"):
        asked.show(reach=Reach.all())

    go_on.set()
    first.join(20)
    assert asked.show(reach=Reach.all()).counts.completed == 10


def test_states_are_shown_as_the_statuses_that_people_know():
    census = Census({State.SCHEDULED: 2, State.READY: 3}, {}, {}, frozenset({State.READY, State.COMPLETED}))

    found = stats(Repository(figures(census=census))).show(reach=Reach.all())

    assert found.counts.pending == 5
    assert found.estimated == ["pending", "completed"]
    assert found.oldest_ready_seconds is None


def test_the_minutes_are_all_there_and_the_rates_are_of_whole_ones():
    minutes = {
        MINUTE: EndedAttempts(completed=1000),
        MINUTE - timedelta(minutes=1): EndedAttempts(10, 1, 2, 3),
        MINUTE - timedelta(minutes=5): EndedAttempts(completed=5),
        MINUTE - timedelta(minutes=6): EndedAttempts(completed=700),
    }

    found = stats(Repository(figures(minutes=minutes))).show(reach=Reach.all()).throughput

    assert [one.minute for one in found.minutes] == [MINUTE - timedelta(minutes=back) for back in range(9, -1, -1)]
    assert [one.completed for one in found.minutes] == [0, 0, 0, 700, 5, 0, 0, 0, 10, 1000]
    # Five whole minutes: 10 + 0 + 0 + 0 + 5, and the one with the other ends.
    assert found.per_minute.model_dump() == {"completed": 3.0, "failed": 0.2, "retried": 0.4, "cancelled": 0.6}


def test_each_type_has_its_own_figures_the_largest_first():
    timed = {"noop": Timed([0, 4] + [0] * (BUCKETS - 2), [8] + [0] * (BUCKETS - 1))}

    found = stats(Repository(figures(types={"gone": EndedAttempts(completed=4)}, timed=timed))).show(reach=Reach.all())

    assert [one.task_type for one in found.types] == ["noop", "crane", "gone"]
    noop, crane, gone = found.types
    assert (noop.counts.pending, noop.counts.completed, noop.oldest_ready_seconds) == (2, 10, 7.25)
    assert (noop.wait.p50, noop.run.p95) == (0.0015, pytest.approx(0.00095, abs=0.0001))
    assert (crane.wait.p50, gone.completed, gone.oldest_ready_seconds) == (None, 4, None)
    assert (found.wait, found.run) == (noop.wait, noop.run)
    assert found.oldest_ready_seconds == 7.25


def worker(name: str, **changes) -> WorkerState:
    whole = WorkerState(name, ["crane"], 10, 4, 3, 1, NOW, NOW, 2.5, True, False)
    return whole._replace(**changes)


def test_as_metrics_a_type_that_nobody_knows_is_one_of_the_others():
    states = {State.READY: 100, State.COMPLETED: 5}
    types = {("noop", State.READY): 60, ("crane", State.READY): 30, ("made up", State.READY): 4}
    found = figures(
        census=Census(states, types, {"noop": 2.0}, frozenset()),
        workers=[worker("a"), worker("b", heartbeat_age=40.0, alive=False)],
        alive=1,
        silent=1,
        slots=10,
        busy=4,
        threads=3,
        busy_threads=1,
    )
    registry = CollectorRegistry()

    StatsCollector(stats(Repository(found)), ["noop"], registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    by_type = {
        sample.labels["task_type"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "siteworks_tasks" and sample.labels["status"] == "pending"
    }
    assert by_type == {"noop": 60, "crane": 30, "other": 10}
    assert value("siteworks_tasks", status="completed", task_type="other") == 5
    assert value("siteworks_tasks_oldest_ready_seconds") == 2.0
    assert value("siteworks_task_workers", state="alive") == 1
    assert value("siteworks_task_slots", kind="task", state="free") == 6
    assert value("siteworks_task_slots", kind="thread", state="busy") == 1
    assert value("siteworks_task_last_beat_seconds") == 40.0
    assert {family.name for family in registry.collect()} == set(FROM_THE_DATABASE)


def test_without_a_database_the_page_of_metrics_is_there_without_these():
    repository = Repository()
    repository.away = True
    registry = CollectorRegistry()

    StatsCollector(stats(repository), ["noop"], registry)

    assert list(registry.collect()) == []
