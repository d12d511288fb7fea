"""The circuit: when it opens, whom it lets through, what it ignores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pybreaker
import pytest

from servicekit.circuits import Circuit, CircuitOpen, CircuitSettings, Transition


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, *, listener: Callable[[Transition], None] | None = None, **changes: float) -> Circuit:
    """A circuit whose jitter always draws the middle."""
    settings = CircuitSettings(**changes)  # type: ignore[arg-type]  # counts are whole numbers in every test
    listeners = [] if listener is None else [listener]
    return Circuit("users", settings=settings, clock=clock, chance=lambda: 0.5, listeners=listeners)


def fail(circuit: Circuit, times: int = 1) -> None:
    for _ in range(times):
        circuit.acquire().failure(0.01, "timeout")


def succeed(circuit: Circuit, times: int = 1, seconds: float = 0.01) -> None:
    for _ in range(times):
        circuit.acquire().success(seconds)


def is_open(circuit: Circuit) -> bool:
    try:
        circuit.acquire().neutral()
    except CircuitOpen:
        return True
    return False


def opened(clock: Clock, **changes: float) -> Circuit:
    circuit = make(clock, **changes)
    fail(circuit, 5)
    assert circuit.snapshot().state == "open"
    return circuit


class TestOpening:
    def test_five_failures_in_a_row_open_it_while_there_are_few_calls(self, clock: Clock) -> None:
        circuit = make(clock)
        fail(circuit, 4)
        assert circuit.snapshot().state == "closed"
        fail(circuit)
        assert circuit.snapshot().state == "open"

    def test_one_success_starts_the_row_anew(self, clock: Clock) -> None:
        circuit = make(clock)
        fail(circuit, 4)
        succeed(circuit)
        fail(circuit, 4)
        assert circuit.snapshot().state == "closed"

    def test_a_neutral_outcome_neither_counts_nor_breaks_the_row(self, clock: Clock) -> None:
        circuit = make(clock)
        fail(circuit, 4)
        circuit.acquire().neutral()
        assert circuit.snapshot().calls == 4
        fail(circuit)
        assert circuit.snapshot().state == "open"

    @pytest.mark.parametrize(
        ("good", "bad", "state"),
        [
            (11, 9, "closed"),  # 9 of 20 = 45 %
            (10, 10, "open"),  # 10 of 20 = 50 %
            (15, 5, "closed"),  # 25 %, and five in a row say nothing at 20 calls
            (4, 16, "open"),
        ],
    )
    def test_from_twenty_calls_on_the_rate_decides(self, clock: Clock, good: int, bad: int, state: str) -> None:
        circuit = make(clock, consecutive_failures=1000)
        permits = [circuit.acquire() for _ in range(good + bad)]
        for permit in permits[:good]:
            permit.success(0.01)
        for permit in permits[good:]:
            permit.failure(0.01, "timeout")
        assert circuit.snapshot().state == state

    def test_four_of_five_failing_opens_it_though_never_five_in_a_row(self, clock: Clock) -> None:
        circuit = make(clock)
        calls = 0
        while not is_open(circuit) and calls < 100:
            calls += 1
            if calls % 5 == 0:
                succeed(circuit)
            else:
                fail(circuit)
        assert calls == 20  # the first moment at which the rate may speak: 16 of 20

    def test_thirty_percent_failing_never_opens_it(self, clock: Clock) -> None:
        circuit = make(clock)
        for call in range(3000):
            clock.pass_(0.01)
            if call % 10 in (0, 3, 6):
                fail(circuit)
            else:
                succeed(circuit)
        assert circuit.snapshot().state == "closed"

    def test_old_failures_leave_the_window(self, clock: Clock) -> None:
        circuit = make(clock, consecutive_failures=1000)
        fail(circuit, 19)
        clock.pass_(10)
        fail(circuit)
        assert circuit.snapshot().state == "closed"
        assert circuit.snapshot().calls == 1

    def test_a_good_call_long_after_the_failures_does_not_open_it(self, clock: Clock) -> None:
        circuit = make(clock)
        succeed(circuit, 40)
        clock.pass_(6)
        for _ in range(8):  # 32 of 80 at the end of it
            fail(circuit, 4)
            succeed(circuit)
        assert not is_open(circuit)
        clock.pass_(5)  # the 40 good ones have left the window: 32 of 40
        succeed(circuit, 5)
        assert not is_open(circuit), "everything has been well for 5 seconds"
        fail(circuit)
        assert is_open(circuit), "but the next failure opens it"

    @pytest.mark.parametrize(
        ("slow", "state"),
        [(15, "closed"), (16, "open")],  # 75 % and 80 % of 20
    )
    def test_slow_answers_open_it_though_they_are_good(self, clock: Clock, slow: int, state: str) -> None:
        circuit = make(clock)
        succeed(circuit, 20 - slow)
        succeed(circuit, slow, seconds=2.1)
        assert circuit.snapshot().state == state

    def test_an_answer_of_exactly_the_limit_is_not_slow(self, clock: Clock) -> None:
        circuit = make(clock)
        succeed(circuit, 40, seconds=2.0)
        assert circuit.snapshot().slow_share == 0.0


class TestOpen:
    def test_it_refuses_at_once_and_says_for_how_long(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(0.25)
        with pytest.raises(CircuitOpen) as refusal:
            circuit.acquire()
        assert refusal.value.name == "users"
        assert refusal.value.retry_in == pytest.approx(0.75)

    def test_the_snapshot_shows_what_opened_it(self, clock: Clock) -> None:
        snapshot = opened(clock).snapshot()
        assert (snapshot.calls, snapshot.failures, snapshot.failure_rate) == (5, 5, 1.0)
        assert snapshot.opened_at is not None
        assert snapshot.retry_in == pytest.approx(1.0)

    def test_it_shows_half_open_when_its_time_is_over_even_without_traffic(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        assert circuit.snapshot().state == "half_open"

    def test_late_failures_of_calls_admitted_before_do_not_make_it_longer(self, clock: Clock) -> None:
        circuit = make(clock)
        late = [circuit.acquire() for _ in range(3)]
        fail(circuit, 5)
        clock.pass_(0.5)
        for permit in late:
            permit.failure(0.5, "timeout")
        assert circuit.snapshot().retry_in == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("opening", "seconds"),
        [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (8, 60.0), (5000, 60.0)],
    )
    def test_each_opening_in_a_row_lasts_twice_as_long_up_to_a_minute(self, opening: int, seconds: float) -> None:
        assert CircuitSettings().open_time(opening, 0.5) == seconds

    @pytest.mark.parametrize(
        ("opening", "chance", "seconds"),
        [(1, 0.0, 0.8), (1, 1.0, 1.2), (3, 0.0, 3.2), (3, 1.0, 4.8), (9, 0.0, 48.0), (9, 1.0, 60.0)],
    )
    def test_jitter_stays_within_a_fifth_and_below_the_maximum(
        self, opening: int, chance: float, seconds: float
    ) -> None:
        assert CircuitSettings().open_time(opening, chance) == pytest.approx(seconds)

    def test_a_failed_trial_doubles_the_open_time(self, clock: Clock) -> None:
        circuit = opened(clock)
        lasted = []
        for _ in range(4):
            lasted.append(circuit.snapshot().retry_in)
            clock.pass_(lasted[-1] or 0)
            circuit.acquire().failure(0.01, "timeout")
        assert lasted == pytest.approx([1.0, 2.0, 4.0, 8.0])

    def test_the_open_time_is_short_again_after_a_quiet_window(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        circuit.acquire().failure(0.01, "timeout")
        clock.pass_(2.0)
        succeed(circuit)
        clock.pass_(10.0)
        fail(circuit, 5)
        assert circuit.snapshot().retry_in == pytest.approx(1.0)

    def test_closing_for_a_moment_does_not_shorten_it(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        succeed(circuit)
        clock.pass_(1.0)
        fail(circuit, 5)
        assert circuit.snapshot().retry_in == pytest.approx(2.0)

    def test_opened_at_is_when_it_left_closed_not_its_last_failed_trial(self, clock: Clock) -> None:
        circuit = opened(clock)
        first = circuit.snapshot().opened_at
        clock.pass_(1.0)
        circuit.acquire().failure(0.01, "timeout")
        assert circuit.snapshot().opened_at == first


class TestHalfOpen:
    def test_it_lets_two_calls_through_at_a_time(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        first, second = circuit.acquire(), circuit.acquire()
        assert first.is_trial
        with pytest.raises(CircuitOpen) as refusal:
            circuit.acquire()
        assert refusal.value.retry_in == 1.0
        second.neutral()
        assert circuit.acquire().is_trial

    def test_a_good_trial_closes_it_with_an_empty_window(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        succeed(circuit)
        snapshot = circuit.snapshot()
        assert snapshot.state == "closed"
        assert (snapshot.calls, snapshot.opened_at, snapshot.retry_in) == (0, None, None)

    def test_more_good_trials_can_be_asked_for(self, clock: Clock) -> None:
        circuit = opened(clock, trial_successes=3)
        clock.pass_(1.0)
        succeed(circuit, 2)
        assert circuit.snapshot().state == "half_open"
        succeed(circuit)
        assert circuit.snapshot().state == "closed"

    def test_a_slow_trial_does_not_close_it(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        succeed(circuit, seconds=2.5)
        assert circuit.snapshot().state == "open"

    def test_a_trial_that_ends_after_the_other_decided_changes_nothing(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        bad, good = circuit.acquire(), circuit.acquire()
        bad.failure(0.01, "timeout")
        good.success(0.01)
        assert circuit.snapshot().state == "open"

        clock.pass_(2.0)
        bad, good = circuit.acquire(), circuit.acquire()
        good.success(0.01)
        bad.failure(0.01, "timeout")
        assert circuit.snapshot().state == "closed"
        assert circuit.snapshot().calls == 0

    def test_a_result_from_before_the_opening_does_not_close_it(self, clock: Clock) -> None:
        circuit = make(clock)
        old = circuit.acquire()
        fail(circuit, 5)
        clock.pass_(1.0)
        assert circuit.snapshot().state == "half_open"
        old.success(0.5)
        assert circuit.snapshot().state == "half_open"

    def test_a_trial_that_never_reports_gives_its_place_up(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        lost = circuit.acquire(lease=3)
        circuit.acquire(lease=30)
        clock.pass_(2.9)
        assert is_open(circuit)
        clock.pass_(0.1)
        circuit.acquire()
        lost.failure(3.0, "timeout")  # too late to speak
        assert circuit.snapshot().state == "half_open"


class TestPermit:
    def test_only_the_first_report_counts(self, clock: Clock) -> None:
        circuit = make(clock)
        permit = circuit.acquire()
        permit.success(0.01)
        permit.failure(0.01, "timeout")
        permit.neutral()
        assert (circuit.snapshot().calls, circuit.snapshot().failures) == (1, 0)

    def test_a_neutral_report_is_final_too(self, clock: Clock) -> None:
        circuit = make(clock)
        permit = circuit.acquire()
        permit.neutral()
        permit.failure(0.01, "timeout")
        assert circuit.snapshot().calls == 0


class TestForcing:
    def test_forced_open_it_stays_open_whatever_the_time(self, clock: Clock) -> None:
        circuit = make(clock)
        circuit.force("open")
        clock.pass_(1000)
        snapshot = circuit.snapshot()
        assert (snapshot.state, snapshot.forced) == ("open", True)
        with pytest.raises(CircuitOpen):
            circuit.acquire()

    def test_forced_closed_it_counts_but_never_opens(self, clock: Clock) -> None:
        circuit = make(clock)
        circuit.force("closed")
        fail(circuit, 100)
        assert circuit.snapshot().state == "closed"
        assert circuit.snapshot().failures == 100

    def test_auto_starts_again_from_closed(self, clock: Clock) -> None:
        circuit = make(clock)
        circuit.force("open")
        circuit.force("auto")
        assert (circuit.snapshot().state, circuit.snapshot().forced) == ("closed", False)
        fail(circuit, 5)
        assert circuit.snapshot().state == "open"

    def test_results_from_before_do_not_count_after(self, clock: Clock) -> None:
        circuit = make(clock)
        old = circuit.acquire()
        circuit.force("auto")
        old.failure(0.01, "timeout")
        assert circuit.snapshot().calls == 0


class TestProbes:
    def test_an_upstream_seen_away_and_then_ready_is_tried_early(self, clock: Clock) -> None:
        circuit = opened(clock)
        circuit.note_probe(False)
        assert circuit.snapshot().state == "open"
        circuit.note_probe(True)
        snapshot = circuit.snapshot()
        assert snapshot.state == "half_open"
        assert snapshot.last_probe is not None
        assert snapshot.last_probe.ok

    def test_an_upstream_that_is_ready_all_the_time_waits_for_its_time(self, clock: Clock) -> None:
        circuit = opened(clock)
        circuit.note_probe(True)
        circuit.note_probe(True)
        assert circuit.snapshot().state == "open"

    def test_without_calls_a_probe_closes_but_only_after_a_while(self, clock: Clock) -> None:
        circuit = opened(clock)
        for ok, seconds, state in (
            (False, 0.5, "open"),
            (True, 0.0, "half_open"),
            (True, 1.9, "half_open"),  # a call would have been tried by now
            (False, 1.0, "half_open"),
            (True, 0.1, "closed"),
        ):
            clock.pass_(seconds)
            circuit.note_probe(ok)
            assert circuit.snapshot().state == state

    @pytest.mark.parametrize(("first_call", "failures", "state"), [(fail, 0, "open"), (succeed, 4, "closed")])
    def test_after_a_probe_closed_it_the_first_call_decides(
        self, clock: Clock, first_call: Callable[[Circuit], None], failures: int, state: str
    ) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        circuit.note_probe(True)
        clock.pass_(2.0)
        circuit.note_probe(True)
        assert circuit.snapshot().state == "closed"
        first_call(circuit)
        fail(circuit, failures)
        assert circuit.snapshot().state == state
        if state == "open":
            # It counts as one more opening in a row.
            assert circuit.snapshot().retry_in == pytest.approx(2.0, rel=0.2)

    def test_a_probe_leaves_the_verdict_to_a_trial_under_way(self, clock: Clock) -> None:
        circuit = opened(clock)
        clock.pass_(1.0)
        trial = circuit.acquire()
        clock.pass_(5.0)
        circuit.note_probe(True)
        assert circuit.snapshot().state == "half_open"
        trial.failure(5.0, "timeout")
        circuit.note_probe(True)
        assert circuit.snapshot().state == "open"

    def test_what_was_seen_away_counts_until_a_probe_or_a_trial_says_otherwise(self, clock: Clock) -> None:
        circuit = make(clock)
        circuit.note_probe(False)
        assert (circuit.snapshot().state, circuit.snapshot().seen_away) == ("closed", True)
        circuit.note_probe(True)
        assert not circuit.snapshot().seen_away
        circuit.note_probe(False)
        fail(circuit, 5)
        assert circuit.snapshot().seen_away
        clock.pass_(1.0)
        succeed(circuit)
        assert (circuit.snapshot().state, circuit.snapshot().seen_away) == ("closed", False)

    def test_a_probe_does_not_move_a_forced_circuit(self, clock: Clock) -> None:
        circuit = make(clock)
        circuit.force("open")
        circuit.note_probe(False)
        circuit.note_probe(True)
        assert circuit.snapshot().state == "open"


class TestListeners:
    def test_every_transition_is_told_once_and_in_order(self, clock: Clock) -> None:
        told: list[Transition] = []
        circuit = make(clock, listener=told.append)
        fail(circuit, 5)
        clock.pass_(1.0)
        circuit.snapshot()
        succeed(circuit)
        assert [(one.old, one.new, one.reason) for one in told] == [
            ("closed", "open", "consecutive_failures"),
            ("open", "half_open", "open_time_over"),
            ("half_open", "closed", "trial_success"),
        ]
        assert [one.generation for one in told] == [1, 2, 3]

    def test_a_listener_that_raises_stops_neither_the_circuit_nor_the_others(self, clock: Clock) -> None:
        told: list[str] = []

        def broken(transition: Transition) -> None:
            raise RuntimeError("listener")

        circuit = Circuit("users", clock=clock, listeners=[broken, lambda one: told.append(one.new)])
        fail(circuit, 5)
        assert told == ["open"]
        assert is_open(circuit)

    def test_a_listener_may_ask_the_circuit_because_no_lock_is_held(self, clock: Clock) -> None:
        seen: list[str] = []
        circuit = make(clock, listener=lambda _: seen.append(circuit.snapshot().state))
        fail(circuit, 5)
        assert seen == ["open"]


class TestNoLockOverCalls:
    def test_calls_under_way_do_not_wait_for_each_other(self, clock: Clock) -> None:
        circuit = make(clock)
        together = threading.Barrier(8, timeout=5)

        def call() -> None:
            permit = circuit.acquire()
            together.wait()  # passes only when all eight are between acquire and report
            permit.success(0.01)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not together.broken
        assert circuit.snapshot().calls == 8

    def test_a_hanging_trial_lets_others_be_refused_at_once(self, clock: Clock) -> None:
        circuit = opened(clock, trials=1)
        clock.pass_(1.0)
        circuit.acquire()  # hangs: nothing is reported
        refused = threading.Event()

        def ask() -> None:
            if is_open(circuit):
                refused.set()

        threading.Thread(target=ask).start()
        assert refused.wait(5)

    def test_it_can_be_used_from_an_event_loop(self, clock: Clock) -> None:
        circuit = make(clock)

        async def main() -> None:
            inside = asyncio.Event()
            count = 0

            async def call() -> None:
                nonlocal count
                permit = circuit.acquire()
                count += 1
                if count == 3:
                    inside.set()
                await asyncio.wait_for(inside.wait(), 5)
                permit.success(0.01)

            await asyncio.gather(call(), call(), call())

        asyncio.run(main())
        assert circuit.snapshot().calls == 3

    def test_counts_stay_right_under_many_threads(self, clock: Clock) -> None:
        circuit = make(clock, consecutive_failures=10**6, minimum_calls=10**6)

        def work() -> None:
            for number in range(500):
                permit = circuit.acquire()
                if number % 4:
                    permit.success(0.01)
                else:
                    permit.failure(0.01, "timeout")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (circuit.snapshot().calls, circuit.snapshot().failures) == (4000, 1000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"slow_share": 0},
        {"minimum_calls": 0},
        {"trials": 0},
        {"open_seconds": 0},
        {"open_seconds": 61},
        {"jitter": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is"):
        CircuitSettings(**wrong)  # type: ignore[arg-type]  # that is the point


def test_what_pybreaker_offers_is_still_there() -> None:
    """Every public name used here, so that an update which moves one fails loudly."""
    for name in ("open", "half_open", "close", "current_state", "name"):
        assert hasattr(pybreaker.CircuitBreaker, name)
    assert (pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN) == ("closed", "open", "half-open")
    assert hasattr(pybreaker, "CircuitBreakerStorage")
