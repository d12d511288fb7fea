"""What the claimer does on a thread that is not its own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from service_tasks.domain.task import ClaimedTask, Lease
from service_tasks.engine import claimer
from service_tasks.engine.active_tasks import ActiveTasks
from service_tasks.engine.claimer import LARGEST_BATCH, LARGEST_WEIGHT, Claimer
from service_tasks.engine.registry import Registry
from service_tasks.engine.reporter import Reporter
from service_tasks.engine.runner import ThreadSlots
from service_tasks.task_types.noop import noop
from servicekit.wire.errors import DatabaseUnavailable
from servicekit.wire.json_reader import weight
from tests.support.waiting import eventually


class Store:
    """Gives tasks as they are laid ready; may be told to wait, or to be away."""

    def __init__(self) -> None:
        self.ready = 0
        self.payload = "{}"
        self.claims: list[str] = []
        self.away = False
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def claim(self, worker_id: UUID, offers, limit: int) -> list[ClaimedTask]:
        self.claims.append(threading.current_thread().name)
        self.entered.set()
        assert self.go_on.wait(10)
        if self.away:
            raise DatabaseUnavailable
        count, self.ready = min(self.ready, limit), max(0, self.ready - limit)
        return [
            ClaimedTask(Lease(str(uuid4()), 1), "noop", self.payload, 1, 3, 60.0, datetime.now(UTC))
            for _ in range(count)
        ]

    def limits_apply(self) -> bool:
        return False


class Bench:
    def __init__(self) -> None:
        self.store = Store()
        self.active_tasks = ActiveTasks(5000)
        self.given: list = []
        self.term: int | None = 1
        self.reporter = Reporter(
            store=self.store,
            worker_name="w",
            active_tasks=self.active_tasks,
            on_written=lambda retried: None,
            on_death=pytest.fail,
        )
        self.claimer = Claimer(
            store=self.store,
            worker_id=uuid4(),
            registry=Registry([noop]),
            active_tasks=self.active_tasks,
            threads=ThreadSlots(4),
            reporter=self.reporter,
            term=lambda: self.term,
            unstarted=lambda: 0,
            hand_over=self.given.extend,
            poll_seconds=3600.0,
            on_death=pytest.fail,
        )

    def wait_for_claims(self, *threads: str) -> None:
        """Wait until these threads have claimed, and until the last of them could be followed by another."""
        eventually(lambda: self.store.claims == [*threads] and not self.claimer._turn.locked())


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.store.go_on.set()
    made.claimer.stop()


HERE = threading.current_thread().name


def test_an_idle_worker_claims_on_the_thread_that_heard_of_the_task(bench):
    bench.store.ready = 1

    bench.claimer.claim_at_once()

    assert len(bench.given) == len(bench.active_tasks) == 1
    assert bench.store.claims == [HERE]


def test_what_one_claim_leaves_is_claimed_by_the_claimers_own_thread(bench):
    bench.claimer.start()
    bench.wait_for_claims("claimer")
    bench.store.ready = LARGEST_BATCH + 1

    bench.claimer.claim_at_once()

    eventually(lambda: len(bench.given) == LARGEST_BATCH + 1)
    assert bench.store.claims[1:] == [HERE, "claimer"]


def test_a_busy_worker_claims_on_its_own_thread(bench):
    bench.store.ready = 1
    bench.claimer.claim_at_once()
    bench.claimer.start()
    bench.wait_for_claims(HERE, "claimer")
    bench.store.ready = 1

    bench.claimer.claim_at_once()

    eventually(lambda: len(bench.given) == 2)
    assert bench.store.claims == [HERE, "claimer", "claimer"]


def test_a_task_heard_of_while_a_claim_is_under_way_is_claimed_by_the_next(bench):
    bench.store.go_on.clear()
    bench.claimer.start()
    assert bench.store.entered.wait(10)

    # The claim under way may have looked already.
    bench.claimer.claim_at_once()
    bench.store.go_on.set()

    eventually(lambda: bench.store.claims == ["claimer", "claimer"])


def test_a_database_that_is_away_is_left_to_the_claimers_own_thread(bench):
    bench.store.away = True
    bench.claimer.claim_at_once()
    assert bench.store.claims == [HERE]

    bench.store.away, bench.store.ready = False, 1
    bench.claimer.start()
    eventually(lambda: len(bench.given) == 1)


def test_a_worker_that_looks_dead_claims_nothing_until_a_beat_has_arrived(bench):
    bench.store.ready = 1
    bench.term = None
    bench.claimer.claim_at_once()
    bench.claimer.start()
    assert bench.store.claims == []

    bench.term = 2
    eventually(lambda: len(bench.given) == 1)
    assert [task.term for task in bench.given] == [2]


def test_nothing_is_claimed_after_the_claimer_was_stopped(bench):
    bench.store.go_on.clear()
    bench.store.ready = 1
    hearing = threading.Thread(target=bench.claimer.claim_at_once, name="hearing")
    hearing.start()
    assert bench.store.entered.wait(10)
    stopping = threading.Thread(target=lambda: bench.claimer.stop(None))
    stopping.start()
    eventually(lambda: bench.claimer.stopping)
    # A claim is under way, so it has not stopped yet.
    assert stopping.is_alive()

    bench.store.go_on.set()
    stopping.join(10)
    hearing.join(10)
    assert not stopping.is_alive()
    assert len(bench.given) == 1

    bench.claimer.claim_at_once()
    assert bench.store.claims == ["hearing"]


def test_no_more_is_claimed_than_there_is_memory_for_and_the_rest_is_handed_back(bench):
    bench.store.payload = "[" + ",".join(["[]"] * 80_000) + "]"
    own = weight(bench.store.payload.encode())
    bench.store.ready = 100
    bench.claimer.claim_at_once()

    held = LARGEST_WEIGHT // own
    assert 1 < held < 100
    assert len(bench.given) == len(bench.active_tasks) == held
    assert bench.active_tasks.weight == held * own
    assert bench.reporter.waiting() == 100 - held

    # As long as nothing ends, it does not try again; then, for what fits.
    bench.store.ready = 100
    assert bench.claimer.work() > 0
    assert bench.store.ready == 100
    bench.active_tasks.remove([task.lease for task in bench.given[:2]])
    bench.claimer.work()
    assert bench.store.ready == 98
    assert len(bench.active_tasks) == held


def test_a_task_too_large_for_any_worker_is_run_alone(bench, monkeypatch):
    monkeypatch.setattr(claimer, "LARGEST_WEIGHT", 1)
    bench.store.payload = '"%s"' % ("x" * 2000)
    bench.store.ready = 2
    bench.claimer.claim_at_once()
    assert (len(bench.active_tasks), bench.reporter.waiting()) == (1, 1)
