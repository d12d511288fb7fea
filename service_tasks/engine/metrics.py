"""The counts of a worker. Its pages show them, and the heartbeat stores them.

Every number is changed by one thread; others may read it at any time. Counting is by batch, since a worker ends tens of
thousands of tasks a second: in a large batch every task is counted, but only some are timed, each standing for its
neighbours (docs/decisions/0025).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter

from service_tasks.domain.distribution import Distribution
from service_tasks.domain.task import (
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
from service_tasks.engine.ports import AttemptCounts

#: how many tasks of a batch are timed
TIMED = 16
#: upper bounds of batch sizes
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

DEAD, HUNG = "dead", "hung"
_type_of = attrgetter("claimed.task_type")


class TypeMetrics:
    """The counts of one type. `waits`: from when a task was due to its start; `runs`: from there to the end of its
    handler."""

    __slots__ = (
        "cancelled",
        "claimed",
        "completed",
        "failed",
        "handed_back",
        "late",
        "rescued_failed",
        "rescued_retried",
        "retried",
        "runs",
        "waits",
    )

    def __init__(self) -> None:
        self.claimed = 0
        self.waits = Distribution()
        # Outcomes written; all but `late` were accepted.
        self.completed = 0
        self.failed = 0
        self.retried = 0
        self.handed_back = 0
        self.cancelled = 0
        self.late = 0
        self.runs = Distribution()
        # Tasks taken from other workers.
        self.rescued_failed = 0
        self.rescued_retried = 0


class Sizes:
    """The sizes of batches. One thread adds to it."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SIZES) + 1)
        self.total = 0

    def add(self, size: int) -> None:
        self.counts[bisect_left(SIZES, size)] += 1
        self.total += size


class WorkerMetrics:
    def __init__(self, task_types: Iterable[str] = ()) -> None:
        self._types = {name: TypeMetrics() for name in task_types}
        #: durations of claims in seconds, and the sizes of their batches
        self.claims = Distribution()
        self.claim_sizes = Sizes()
        #: the same for writes of outcomes
        self.flushes = Distribution()
        self.flush_sizes = Sizes()
        self.lost_claims = 0
        # Counted while it leads.
        self.promoted = 0
        self.schedules_due = 0
        self.schedule_tasks = 0
        self.schedules_missed = 0
        self.schedules_stopped = 0
        #: rescued tasks, by reason and outcome
        self.rescued: Counter[tuple[str, str]] = Counter(
            {(reason, outcome): 0 for reason in (DEAD, HUNG) for outcome in ("retried", "failed")}
        )
        self.pruned_tasks = 0
        self.pruned_records = 0

    def types(self) -> list[tuple[str, TypeMetrics]]:
        """The counts by type, including types that only others run if this leader has rescued some."""
        return list(self._types.items())

    def claimed(self, tasks: Sequence[ActiveTask], seconds: float) -> None:
        """Count a claim that took `seconds` and returned these tasks."""
        self.claims.add(seconds)
        self.claim_sizes.add(len(tasks))
        for name, count in Counter(map(_type_of, tasks)).items():
            self._of(name).claimed += count
        step = len(tasks) // TIMED + 1
        for index in range(0, len(tasks), step):
            claimed = tasks[index].claimed
            self._of(claimed.task_type).waits.add(claimed.waited_seconds, min(step, len(tasks) - index))

    def written(
        self,
        outcomes: Sequence[Outcome],
        accepted: Collection[Lease],
        tasks: Sequence[ActiveTask | None],
        seconds: float,
    ) -> None:
        """Count a write of outcomes that took `seconds`; `tasks` has their tasks, None for one not held here."""
        self.flushes.add(seconds)
        self.flush_sizes.add(len(outcomes))
        held = [task for task in tasks if task is not None]
        if len(held) == len(accepted) == len(outcomes) and set(map(type, outcomes)) == {Succeeded}:
            for name, count in Counter(map(_type_of, held)).items():
                self._of(name).completed += count
        else:
            for outcome, task in zip(outcomes, tasks, strict=True):
                if task is not None:
                    self._count(self._of(task.claimed.task_type), outcome, outcome.lease in accepted)
        step = len(held) // TIMED + 1
        for index in range(0, len(held), step):
            task = held[index]
            self._of(task.claimed.task_type).runs.add(task.ran_seconds, min(step, len(held) - index))

    def rescue(self, task: LostTask, outcome: Outcome) -> None:
        """Count a task that was taken from its worker."""
        metrics, failed = self._of(task.task_type), isinstance(outcome, FailedForGood)
        if failed:
            metrics.rescued_failed += 1
        else:
            metrics.rescued_retried += 1
        self.rescued[HUNG if task.overdue else DEAD, "failed" if failed else "retried"] += 1

    def counted(self) -> dict[str, AttemptCounts]:
        """The attempts that ended since the worker began, and their times, by type."""
        return {
            name: AttemptCounts(
                completed=one.completed,
                failed=one.failed + one.rescued_failed,
                retried=one.retried + one.rescued_retried,
                waits=tuple(one.waits.counts),
                runs=tuple(one.runs.counts),
            )
            for name, one in self.types()
        }

    def _of(self, task_type: str) -> TypeMetrics:
        found = self._types.get(task_type)
        return self._types.setdefault(task_type, TypeMetrics()) if found is None else found

    @staticmethod
    def _count(metrics: TypeMetrics, outcome: Outcome, accepted: bool) -> None:
        if not accepted:
            metrics.late += 1
        elif isinstance(outcome, Succeeded):
            metrics.completed += 1
        elif isinstance(outcome, FailedForGood):
            metrics.failed += 1
        elif isinstance(outcome, WillRetry):
            metrics.retried += 1
        elif isinstance(outcome, HandedBack):
            metrics.handed_back += 1
        elif isinstance(outcome, StoppedAfterCancel):
            metrics.cancelled += 1


def since(now: Mapping[str, AttemptCounts], before: Mapping[str, AttemptCounts]) -> dict[str, AttemptCounts]:
    """What was added between the two, for types with additions only."""
    added = {name: one if name not in before else one - before[name] for name, one in now.items()}
    return {name: one for name, one in added.items() if one}
