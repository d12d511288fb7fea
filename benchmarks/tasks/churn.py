"""Our own churn: a constant rate of creation and completion, with a pruner that removes what has ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from uuid import uuid4

from benchmarks.tasks import figures
from benchmarks.tasks.figures import BATCH, CHURN_RATE, CLAIM, Churned, Figure, churn_figures, keep_pace
from benchmarks.tasks.subjects import Server, TaskPlace, new_tasks
from service_tasks.engine.ports import Offer, Retention
from service_tasks.engine.pruner import Pruner
from service_tasks.persistence.engine_store import EngineStore
from service_tasks.persistence.maintenance_store import MaintenanceStore
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach

#: Ended tasks go at the next walk.
_KEPT_SECONDS = 1.0


def churn(server: Server, quick: bool) -> Iterator[Figure]:
    seconds = 60.0 if quick else 600.0
    fresh = server.place()
    early_claim = claim(fresh)
    server.drop(fresh)
    place = server.place()
    early: Churned | None = None
    database = Database(place.url, application_name="bench pruner", pool_size=1)
    died: list[str] = []
    pruner = Pruner(
        store=MaintenanceStore(database),
        # The worker has one too, with the production's five minutes between two walks and nothing to remove.
        retention=Retention(_KEPT_SECONDS, _KEPT_SECONDS, _KEPT_SECONDS),
        leads=lambda: True,
        on_death=lambda: died.append("the pruner died"),
        round_seconds=figures.PRUNE_SECONDS,
    )
    with place.workers(1) as (worker,), place.use_cases() as tasks:

        def each_turn(passed: float) -> None:
            nonlocal early
            if died:
                raise RuntimeError(died[0])
            if early is None and passed >= seconds * figures.CHURN_START:
                early = Churned(place.size(), early_claim, worker.used().resident_mib)

        pruner.start()
        try:
            made = keep_pace(
                lambda count: tasks.create_many(new_tasks(count), reach=Reach.all()),
                per_second=CHURN_RATE,
                seconds=seconds,
                each_turn=each_turn,
            )
            (waiting,) = place.ask("SELECT count(*) FROM tasks WHERE state IN ('scheduled', 'ready', 'running')")
        finally:
            pruner.stop()
            database.dispose()
        size, resident = place.size(), worker.used().resident_mib
    late = Churned(size, claim(place, settled=False), resident)
    server.drop(place)
    yield *figures.ENDED, (made - waiting) / seconds
    yield *figures.WAITING, waiting
    if early is not None:
        yield from churn_figures("early", early)
    yield from churn_figures("at the end", late)


def claim(place: TaskPlace, times: int = 5, *, fill: int = BATCH, settled: bool = True) -> float:
    """The median of some claims of 100 of `fill` ready tasks, in milliseconds; nobody works on the claimed ones.

    Not settled is a table as churn leaves it, dead rows and all.
    """
    database = Database(place.url, application_name="bench claimer", pool_size=2)
    store = EngineStore(database)
    with place.use_cases() as tasks:
        tasks.create_many(new_tasks(fill), reach=Reach.all())
    if settled:
        # Some plans need statistics.
        place.settle()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        assert len(store.claim(uuid4(), [Offer("noop", 60.0)], CLAIM)) == CLAIM
        found.append((time.perf_counter() - began) * 1000)
    database.dispose()
    return statistics.median(found)
