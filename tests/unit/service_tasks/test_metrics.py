"""What a worker counts of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from service_tasks.domain.task import (
    AttemptError,
    ClaimedTask,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Outcome,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.active_tasks import ActiveTask
from service_tasks.engine.context import TaskContext
from service_tasks.engine.metrics import DEAD, HUNG, TIMED, TypeMetrics, WorkerMetrics, since
from service_tasks.task_types.noop import noop

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ERROR = AttemptError("Broken", "the pump")


def task(task_type: str = "noop", *, waited: float = 0.0, ran: float = 0.0) -> ActiveTask:
    claimed = ClaimedTask(Lease(uuid4(), 1), task_type, "{}", 1, 3, 60.0, NOW, waited)
    active = ActiveTask(claimed, noop, TaskContext(claimed, lambda progress: None))
    active.ran_seconds = ran
    return active


def write(metrics: WorkerMetrics, tasks: Sequence[ActiveTask], outcomes: Sequence[Outcome], refused=()) -> None:
    accepted = {outcome.lease for outcome in outcomes} - set(refused)
    metrics.written(outcomes, accepted, tasks, 0.002)


def of(metrics: WorkerMetrics, task_type: str) -> TypeMetrics:
    return dict(metrics.types())[task_type]


def test_a_type_that_this_worker_runs_is_shown_before_any_task_of_it():
    assert [name for name, _ in WorkerMetrics(["noop", "io"]).types()] == ["noop", "io"]


def test_claimed_tasks_are_counted_by_type_with_the_time_each_waited():
    metrics = WorkerMetrics()

    metrics.claimed([task(waited=0.0005), task(waited=0.3), task("io", waited=5.0)], 0.01)
    metrics.claimed([], 0.01)

    assert (of(metrics, "noop").claimed, of(metrics, "io").claimed) == (2, 1)
    assert of(metrics, "noop").waits.total == pytest.approx(0.3005)
    assert sum(of(metrics, "io").waits.counts) == 1
    assert sum(metrics.claims.counts) == 2
    assert metrics.claim_sizes.total == 3


@pytest.mark.parametrize(
    ("outcome", "counter"),
    [
        (lambda lease: Succeeded(lease, "null"), "completed"),
        (lambda lease: FailedForGood(lease, ERROR), "failed"),
        (lambda lease: WillRetry(lease, NOW, ERROR), "retried"),
        (HandedBack, "handed_back"),
        (StoppedAfterCancel, "cancelled"),
    ],
)
def test_each_outcome_has_its_own_count_and_one_that_was_refused_is_late(outcome, counter):
    metrics = WorkerMetrics()
    good, late = task(ran=1.0), task(ran=2.0)
    outcomes = [outcome(good.lease), outcome(late.lease)]

    write(metrics, [good, late], outcomes, refused={late.lease})

    one = of(metrics, "noop")
    counts = {
        name: getattr(one, name) for name in ("completed", "failed", "retried", "handed_back", "cancelled", "late")
    }
    assert {name for name, count in counts.items() if count} == {counter, "late"}
    assert counts[counter] == counts["late"] == 1
    assert one.runs.total == pytest.approx(3.0)


def test_what_nobody_here_held_is_not_counted():
    metrics = WorkerMetrics()
    known, lease = task(), Lease(uuid4(), 1)

    write(metrics, [known, None], [Succeeded(known.lease, "null"), HandedBack(lease)])

    assert [(name, one.completed, one.handed_back) for name, one in metrics.types()] == [("noop", 1, 0)]
    assert metrics.flush_sizes.total == 2


@pytest.mark.parametrize("size", [1, TIMED, TIMED + 1, 500, 1000])
def test_of_a_large_batch_each_is_counted_and_some_are_timed_for_their_neighbours_too(size):
    metrics = WorkerMetrics()
    tasks = [task("io" if number % 4 == 0 else "noop", waited=0.1, ran=0.5) for number in range(size)]

    metrics.claimed(tasks, 0.01)
    write(metrics, tasks, [Succeeded(item.lease, "null") for item in tasks])

    assert sum(one.claimed for _, one in metrics.types()) == size
    assert of(metrics, "io").completed == (size + 3) // 4
    assert sum(sum(one.waits.counts) for _, one in metrics.types()) == size
    assert sum(sum(one.runs.counts) for _, one in metrics.types()) == size
    assert sum(one.runs.total for _, one in metrics.types()) == pytest.approx(size * 0.5)


def test_rescued_tasks_are_counted_by_why_and_what_became_of_them():
    metrics = WorkerMetrics(["noop"])

    def lost(*, overdue: bool) -> LostTask:
        return LostTask(Lease(uuid4(), 1), 1, 3, overdue, NOW, "io", uuid4())

    dead, hung = lost(overdue=False), lost(overdue=True)
    metrics.rescue(dead, WillRetry(dead.lease, NOW, ERROR))
    metrics.rescue(hung, FailedForGood(hung.lease, ERROR))

    assert {key: count for key, count in metrics.rescued.items() if count} == {
        (DEAD, "retried"): 1,
        (HUNG, "failed"): 1,
    }
    counted = metrics.counted()["io"]
    assert (counted.failed, counted.retried, counted.completed) == (1, 1, 0)


def test_only_what_has_been_added_since_is_told():
    metrics = WorkerMetrics(["noop", "io"])
    first = task(ran=1.0)
    write(metrics, [first], [Succeeded(first.lease, "null")])
    before = metrics.counted()
    assert set(since(before, {})) == {"noop"}
    assert since(before, before) == {}

    second = task("io", ran=1.0)
    write(metrics, [second], [FailedForGood(second.lease, ERROR)])

    added = since(metrics.counted(), before)
    assert set(added) == {"io"}
    assert (added["io"].failed, sum(added["io"].runs)) == (1, 1)
