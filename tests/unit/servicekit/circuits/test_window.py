"""The sliding window: what it counts, and when it forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.circuits.window import SlidingWindow, WindowTotals


def test_an_empty_window_has_no_rate() -> None:
    totals = SlidingWindow().totals(0.0)
    assert totals == WindowTotals(0, 0, 0)
    assert totals.failure_rate == 0.0
    assert totals.slow_share == 0.0


def test_calls_failures_and_slow_calls_are_counted_apart() -> None:
    window = SlidingWindow()
    window.add(1.0)
    window.add(1.5, failed=True)
    window.add(2.0, slow=True)
    window.add(2.5, failed=True, slow=True)
    totals = window.totals(2.5)
    assert totals == WindowTotals(calls=4, failures=2, slow=2)
    assert totals.failure_rate == 0.5
    assert totals.slow_share == 0.5


@pytest.mark.parametrize(
    ("added_at", "asked_at", "seen"),
    [
        (0.0, 9.99, 1),  # second 0 is the oldest of 0…9
        (0.0, 10.0, 0),  # now 1…10
        (0.99, 10.0, 0),  # the whole second goes at once
        (1.0, 10.99, 1),
        (5.0, 1000.0, 0),  # a long silence empties it
    ],
)
def test_a_call_is_forgotten_when_its_second_leaves_the_window(added_at: float, asked_at: float, seen: int) -> None:
    window = SlidingWindow(10)
    window.add(added_at)
    assert window.totals(asked_at).calls == seen


def test_a_time_read_before_waiting_for_the_lock_counts_into_the_newest_second() -> None:
    window = SlidingWindow(10)
    window.add(5.0)
    window.add(4.9, failed=True)
    assert window.totals(14.9) == WindowTotals(2, 1, 0)
    assert window.totals(15.0) == WindowTotals(0, 0, 0)


def test_clearing_forgets_everything() -> None:
    window = SlidingWindow()
    window.add(1.0, failed=True)
    window.clear()
    assert window.totals(1.0) == WindowTotals(0, 0, 0)


def test_a_window_without_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one second"):
        SlidingWindow(0)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=60))
def test_the_running_totals_equal_a_count_of_what_is_young_enough(steps: list[tuple[float, bool, bool]]) -> None:
    window = SlidingWindow(5)
    now = 0.0
    added: list[tuple[float, bool, bool]] = []
    for pause, failed, slow in steps:
        now += pause
        window.add(now, failed=failed, slow=slow)
        added.append((now, failed, slow))
        young = [one for one in added if int(one[0]) > int(now) - 5]
        assert window.totals(now) == WindowTotals(
            len(young), sum(one[1] for one in young), sum(one[2] for one in young)
        )
