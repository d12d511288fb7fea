"""Duties by hand, with a store and a clock of the test: what a real database shows only by luck."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import (
    ClaimedTask,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Progress,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.active_tasks import ActiveTask, ActiveTasks, StopReason
from service_tasks.engine.canceller import Canceller
from service_tasks.engine.claimer import Claimer
from service_tasks.engine.context import TaskContext
from service_tasks.engine.heartbeat import Heartbeat
from service_tasks.engine.ports import Promotion, WorkerInfo
from service_tasks.engine.promoter import Promoter
from service_tasks.engine.registry import Registry
from service_tasks.engine.reporter import Reporter
from service_tasks.engine.rescuer import Rescuer
from service_tasks.engine.runner import ThreadSlots, decide_lost
from service_tasks.task_types.noop import noop
from servicekit.wire.errors import DatabaseUnavailable

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


class ScriptedStore:
    """Answers what the test has laid ready and keeps what it was told."""

    def __init__(self) -> None:
        self.away = False
        self.written: list = []
        self.progress: list[Progress] = []
        #: what came in which order
        self.log: list[str] = []
        self.refused: set[Lease] = set()
        self.held: set[Lease] = set()
        self.cancelled: set[Lease] = set()
        self.promotions: list[Promotion] = []
        self.ready: list[ClaimedTask] = []
        self.rescues = 0
        self.beats = 0
        self.on_beat = lambda: None

    def _answer(self) -> None:
        if self.away:
            raise DatabaseUnavailable

    def beat(self, worker: WorkerInfo) -> None:
        self._answer()
        self.beats += 1
        self.on_beat()

    def claim(self, worker_id: UUID, offers, limit: int) -> list[ClaimedTask]:
        claimed, self.ready = self.ready, []
        return claimed

    def limits_apply(self) -> bool:
        return False

    def forget_dead_workers(self) -> int:
        self._answer()
        return 0

    def write(self, outcomes, worker_name: str) -> set[Lease]:
        self._answer()
        self.written.extend(outcomes)
        self.log.extend("outcome" for _ in outcomes)
        return {outcome.lease for outcome in outcomes} - self.refused

    def write_progress(self, reports) -> None:
        self._answer()
        self.progress.extend(reports)
        self.log.extend(f"progress {report.percent}" for report in reports)

    def held_by(self, worker_id: UUID) -> set[Lease]:
        return set(self.held)

    def cancelled_under(self, worker_id: UUID) -> set[Lease]:
        return set(self.cancelled)

    def promote(self, limit: int) -> Promotion:
        self._answer()
        return self.promotions.pop(0)

    def rescue(self, **_: object) -> list:
        self._answer()
        self.rescues += 1
        return []


class Hand:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store():
    return ScriptedStore()


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def active_tasks():
    return ActiveTasks(10)


@pytest.fixture
def reporter(store, active_tasks, hand):
    return Reporter(
        store=store,
        worker_name="w",
        active_tasks=active_tasks,
        on_written=lambda retried: None,
        on_death=lambda: pytest.fail("died"),
        monotonic=hand,
    )


def put_on(active_tasks: ActiveTasks, reporter: Reporter, lease: Lease | None = None) -> ActiveTask:
    lease = lease or Lease(uuid4(), 1)
    claimed = ClaimedTask(lease, "noop", "{}", 1, 3, 60.0, NOW)
    task = ActiveTask(claimed, noop, TaskContext(claimed, reporter.note_progress))
    active_tasks.add([task])
    return task


# Reporting


def test_outcomes_stay_in_memory_in_their_order_while_the_database_is_away(store, active_tasks, reporter):
    tasks = [put_on(active_tasks, reporter) for _ in range(3)]
    store.away = True
    for task in tasks:
        reporter.report(Succeeded(task.lease, "1"))
    reporter.run_once(NOW)
    reporter.run_once(NOW)
    assert (reporter.waiting(), len(active_tasks), reporter.is_away) == (3, 3, True)

    store.away = False
    reporter.run_once(NOW)

    assert [outcome.lease for outcome in store.written] == [task.lease for task in tasks]
    assert (reporter.waiting(), len(active_tasks), reporter.is_away) == (0, 0, False)


def test_a_refused_outcome_frees_its_place_too(store, active_tasks, reporter):
    task = put_on(active_tasks, reporter)
    store.refused = {task.lease}
    reporter.report(Succeeded(task.lease, "1"))
    reporter.run_once(NOW)

    assert len(active_tasks) == 0


def test_an_outcome_is_not_called_late_when_only_the_answer_to_its_writing_was_lost(
    store, active_tasks, reporter, hand
):
    first, second = put_on(active_tasks, reporter), put_on(active_tasks, reporter)
    with capture_logs() as said:
        store.away = True
        reporter.report(Succeeded(first.lease, "1"))
        reporter.run_once(NOW)
        # It had been written.
        store.away, store.refused = False, {first.lease, second.lease}
        reporter.run_once(NOW)
        assert "late_result_refused" not in [line["event"] for line in said]

        hand.now += 1
        reporter.report(Succeeded(second.lease, "1"))
        reporter.run_once(NOW)
    late = [line["task_id"] for line in said if line["event"] == "late_result_refused"]
    assert late == [str(second.lease.task_id)]


def test_of_many_progress_reports_the_latest_is_written_and_not_too_often(store, active_tasks, reporter, hand):
    task = put_on(active_tasks, reporter)
    for percent in (10, 20, 30):
        task.context.progress(percent)
    reporter.run_once(NOW)
    assert [report.percent for report in store.progress] == [30]

    task.context.progress(40)
    hand.now += 0.4
    reporter.run_once(NOW)
    assert len(store.progress) == 1
    hand.now += 0.2
    reporter.run_once(NOW)
    assert [report.percent for report in store.progress] == [30, 40]


def test_the_last_progress_of_a_task_is_written_before_its_end_and_none_after_it(store, active_tasks, reporter, hand):
    task = put_on(active_tasks, reporter)
    task.context.progress(90)
    reporter.report(Succeeded(task.lease, "1"))
    reporter.run_once(NOW)
    assert store.log == ["progress 90", "outcome"]

    hand.now += 1
    reporter.run_once(NOW)
    assert store.log == ["progress 90", "outcome"]


# Heartbeat


def heartbeat(store, active_tasks, reporter, **more) -> Heartbeat:
    return Heartbeat(
        **more,
        store=store,
        worker=WorkerInfo(uuid4(), "w", ("noop",), 45.0),
        active_tasks=active_tasks,
        reporter=reporter,
        seconds=5.0,
        check_health=lambda: None,
        on_death=lambda: pytest.fail("died"),
    )


def test_a_term_ends_when_no_beat_has_come_through_for_a_lease_and_nothing_brings_it_back(
    store, active_tasks, reporter, hand
):
    beat = heartbeat(store, active_tasks, reporter, monotonic=hand)
    assert beat.term() is None, "nobody knows us yet"
    beat.run_once(NOW)
    first = beat.term()
    assert first is not None

    hand.now += 44.0  # of 45
    assert beat.holds(first, hand())
    beat.run_once(NOW)
    hand.now += 44.0
    assert (beat.term(), beat.holds(first, hand())) == (first, True)

    store.away = True
    beat.run_once(NOW)
    hand.now += 2.0
    assert (beat.term(), beat.holds(first, hand())) == (None, False)

    store.away = False
    beat.run_once(NOW)
    second = beat.term()
    assert second is not None
    assert (beat.holds(first, hand()), beat.holds(second, hand())) == (False, True)


def test_a_beat_that_took_longer_than_what_was_left_of_the_lease_ends_the_term(store, active_tasks, reporter, hand):
    beat = heartbeat(store, active_tasks, reporter, monotonic=hand)
    beat.run_once(NOW)
    first = beat.term()
    hand.now += 44.0

    # Sent in time, but perhaps written after the lease was over.
    store.on_beat = lambda: setattr(hand, "now", hand.now + 2.0)
    beat.run_once(NOW)

    assert beat.term() not in {None, first}


def test_a_worker_that_looks_dead_claims_nothing_until_a_beat_has_come_through(store, active_tasks, reporter):
    terms = [None, 7]
    handed_over: list[ActiveTask] = []
    store.ready = [ClaimedTask(Lease(uuid4(), 1), "noop", "{}", 1, 3, 60.0, NOW)]
    claimer = Claimer(
        store=store,
        worker_id=uuid4(),
        registry=Registry([noop]),
        active_tasks=active_tasks,
        threads=ThreadSlots(4),
        reporter=reporter,
        term=lambda: terms.pop(0),
        unstarted=lambda: 0,
        hand_over=handed_over.extend,
        poll_seconds=60.0,
        on_death=lambda: pytest.fail("died"),
    )

    claimer.run_once(NOW)
    assert (handed_over, claimer.next_pause() < 1) == ([], True), "and looks again soon"

    claimer.run_once(NOW)
    assert [task.term for task in handed_over] == [7]


def test_a_task_no_longer_held_is_stopped_and_one_unknown_is_handed_back(store, active_tasks, reporter):
    kept, lost = put_on(active_tasks, reporter), put_on(active_tasks, reporter)
    unknown = Lease(uuid4(), 4)
    store.held = {kept.lease, unknown}

    beat = heartbeat(store, active_tasks, reporter)
    beat.run_once(NOW)
    beat.run_once(NOW)
    reporter.run_once(NOW)

    assert (kept.stop_reason, lost.stop_reason) == (None, StopReason.LEASE_LOST)
    assert lost.context.cancelled
    assert store.written == [HandedBack(unknown)]


def test_a_claim_that_is_just_coming_in_is_not_taken_for_a_lost_one(store, active_tasks, reporter):
    beat = heartbeat(store, active_tasks, reporter)
    late, lost = Lease(uuid4(), 1), Lease(uuid4(), 1)
    store.held = {late, lost}
    beat.run_once(NOW)
    assert reporter.waiting() == 0

    # Its answer has come between the two beats.
    put_on(active_tasks, reporter, late)
    beat.run_once(NOW)
    reporter.run_once(NOW)
    assert store.written == [HandedBack(lost)]


def test_a_claim_that_is_under_way_for_many_beats_is_not_taken_for_a_lost_one(store, active_tasks, reporter):
    coming = Lease(uuid4(), 1)
    beat = heartbeat(store, active_tasks, reporter)
    store.held = {coming}

    with active_tasks.claim_under_way():
        for _ in range(3):
            beat.run_once(NOW)
        assert reporter.waiting() == 0

    # It has ended, and its answer was lost.
    beat.run_once(NOW)
    assert reporter.waiting() == 1


def test_a_strange_claim_that_is_gone_at_the_next_beat_is_forgotten(store, active_tasks, reporter):
    beat = heartbeat(store, active_tasks, reporter)
    for held in ({Lease(UUID(int=7), 1)}, set(), {Lease(UUID(int=7), 1)}):
        store.held = held
        beat.run_once(NOW)

    assert reporter.waiting() == 0


def test_a_task_whose_outcome_waits_to_be_written_is_left_alone(store, active_tasks, reporter):
    task = put_on(active_tasks, reporter)
    assert active_tasks.settle([(task, None)]) == [(task, None)]
    assert active_tasks.settle([(task, None)]) == []

    heartbeat(store, active_tasks, reporter).run_once(NOW)

    assert task.stop_reason is None


# Cancelling


def test_a_cancelled_task_that_nobody_runs_here_is_told_so_unless_it_is_just_being_claimed(
    store, active_tasks, reporter
):
    put_on(active_tasks, reporter)
    gone, late = Lease(uuid4(), 2), Lease(uuid4(), 2)
    store.cancelled = {gone, late}
    canceller = Canceller(
        store=store,
        worker_id=uuid4(),
        active_tasks=active_tasks,
        reporter=reporter,
        on_death=lambda: pytest.fail("died"),
    )

    canceller.run_once(NOW)
    assert reporter.waiting() == 0
    claimed = put_on(active_tasks, reporter, late)
    canceller.run_once(NOW)
    reporter.run_once(NOW)
    assert store.written == [StoppedAfterCancel(gone)]
    assert claimed.stop_reason is StopReason.CANCELLED


def test_a_cancelled_task_that_came_and_went_between_two_looks_is_told_so_too(store, active_tasks, reporter):
    canceller = Canceller(
        store=store,
        worker_id=uuid4(),
        active_tasks=active_tasks,
        reporter=reporter,
        on_death=lambda: pytest.fail("died"),
    )
    canceller.run_once(NOW)
    # Its result was refused, since it had been cancelled without a word.
    task = put_on(active_tasks, reporter)
    active_tasks.remove([task.lease])
    store.cancelled = {task.lease}

    canceller.run_once(NOW)
    canceller.run_once(NOW)
    reporter.run_once(NOW)

    assert store.written == [StoppedAfterCancel(task.lease)]


def test_a_cancel_goes_before_a_hand_back_and_is_not_undone_by_one(active_tasks, reporter):
    first, second = put_on(active_tasks, reporter), put_on(active_tasks, reporter)
    first.stop(StopReason.HAND_BACK)
    first.stop(StopReason.CANCELLED)
    second.stop(StopReason.CANCELLED)
    second.stop(StopReason.HAND_BACK)

    assert first.stop_reason is second.stop_reason is StopReason.CANCELLED


# Rescuing and promoting


def rescuer(store, hand, leads=lambda: True) -> Rescuer:
    return Rescuer(
        store=store,
        leads=leads,
        worker_name="w",
        lease_seconds=45.0,
        registry=Registry([noop]),
        policy=RetryPolicy(),
        on_death=lambda: pytest.fail("died"),
        monotonic=hand,
    )


def test_a_rescuer_acts_only_after_a_whole_lease_of_connection(store, hand):
    duty = rescuer(store, hand)
    for _ in range(9):  # 9 × 5 s = 45 s, seen at 0, 5, … 40
        duty.run_once(NOW)
        hand.now += 5
    assert store.rescues == 0
    duty.run_once(NOW)
    assert store.rescues == 1


@pytest.mark.parametrize("trouble", ["away", "frozen"])
def test_a_rescuer_that_was_cut_off_or_frozen_begins_anew(store, hand, trouble):
    duty = rescuer(store, hand)
    for _ in range(10):
        duty.run_once(NOW)
        hand.now += 5
    assert store.rescues == 1

    if trouble == "away":
        store.away = True
        duty.run_once(NOW)
        store.away = False
    else:
        hand.now += 30
    duty.run_once(NOW)
    assert store.rescues == 1


@pytest.mark.parametrize(
    ("attempt", "overdue", "kind", "error_type"),
    [
        (1, False, WillRetry, "WorkerLost"),
        (3, False, FailedForGood, "WorkerLost"),
        (1, True, WillRetry, "TimedOut"),
    ],
)
def test_a_lost_attempt_counts_when_nothing_else_can_be_why(attempt, overdue, kind, error_type):
    outcome = decide_lost(LostTask(Lease(uuid4(), 1), attempt, 3, overdue, NOW, "noop", uuid4()), 0.5, RetryPolicy())

    assert isinstance(outcome, kind)
    assert outcome.error.type == error_type


@pytest.mark.parametrize(
    ("attempt", "suspects", "company", "becomes"),
    [
        # Of 13 each gets its attempt back, even the last one.
        (1, None, 13, 13),
        (3, None, 13, 13),
        # Then five run at once, a third rounded up.
        (1, 13, 5, 5),
        # However many there are by chance, half as many as before at most.
        (1, 13, 13, 6),
        (1, 13, 1, 1),
        (1, 3, 2, 1),
        (1, 1, 1, 1),
        (1, None, 1, None),
    ],
)
def test_an_attempt_lost_with_others_is_given_back_and_the_suspects_get_fewer(attempt, suspects, company, becomes):
    task = LostTask(Lease(uuid4(), 1), attempt, 3, False, NOW, "noop", uuid4(), suspects, company)
    outcome = decide_lost(task, 0.5, RetryPolicy())

    assert isinstance(outcome, WillRetry)
    assert outcome.suspects == becomes
    assert ("does not count" in outcome.error.message) == (becomes is not None and becomes > 1)


def test_no_task_gets_its_attempt_back_more_often_than_log2_of_the_tasks_that_died_with_it():
    suspects, given_back = None, 0
    while suspects != 1:
        task = LostTask(Lease(uuid4(), 1), 1, 3, False, NOW, "noop", uuid4(), suspects, 5000)
        suspects = decide_lost(task, 0.5, RetryPolicy()).suspects
        given_back += suspects > 1

    assert given_back == 12


def test_the_promoter_goes_on_while_batches_are_full_and_sleeps_until_the_next_is_due(store):
    promoted = []
    duty = Promoter(
        store=store,
        leads=lambda: True,
        poll_seconds=1.0,
        on_promoted=lambda: promoted.append(1),
        on_death=lambda: pytest.fail("died"),
    )
    store.promotions = [Promotion(1000, 0.0), Promotion(3, 0.2)]
    assert duty.work() == 0.2
    assert len(promoted) == 2

    store.promotions = [Promotion(0, None)]
    assert 0.75 <= duty.work() <= 1.25
    store.promotions = [Promotion(0, 3600.0)]
    assert 0.75 <= duty.work() <= 1.25


# Threads


def test_threads_are_free_until_taken_and_hang_only_when_left_behind(hand):
    threads = ThreadSlots(2, monotonic=hand)
    first, second = Lease(uuid4(), 1), Lease(uuid4(), 1)
    threads.take(first)
    threads.take(second)
    assert threads.free() == 0

    threads.abandon(first)
    threads.give_back(second)
    threads.abandon(second)
    hand.now += 9
    assert (threads.free(), threads.hung(10)) == (1, 0)
    hand.now += 1
    assert threads.hung(10) == 1
    threads.give_back(first)
    assert (threads.free(), threads.hung(10)) == (2, 0)


# An outage


@pytest.mark.parametrize(
    ("seconds", "longest"),
    [
        # the shorter of the heartbeat's interval and 2 s, and a quarter more by chance
        (0.2, 0.2 * 1.25),
        (1.0, 1.0 * 1.25),
        (5.0, 2.0 * 1.25),
    ],
)
def test_a_heartbeat_asks_for_the_database_at_least_as_often_as_it_beats(
    store, active_tasks, reporter, seconds, longest
):
    beat = Heartbeat(
        store=store,
        worker=WorkerInfo(uuid4(), "w", ("noop",), 3 * seconds),
        active_tasks=active_tasks,
        reporter=reporter,
        seconds=seconds,
        check_health=lambda: None,
        on_death=lambda: pytest.fail("died"),
    )
    store.away = True
    pauses = []
    for _ in range(20):
        beat.run_once(NOW)
        pauses.append(beat.next_pause())

    assert beat.is_away
    assert max(pauses) <= longest
    assert max(pauses) >= longest * 0.6
