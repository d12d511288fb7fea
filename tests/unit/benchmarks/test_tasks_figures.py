"""The pace of a constant load, and what is said about churn."""

from __future__ import annotations

import pytest

from benchmarks.tasks.figures import HAS_NONE, Churned, Size, churn_figures, keep_pace


class Clock:
    """Moves when somebody sleeps, or when a creation takes time."""

    def __init__(self):
        self.now = 64.0

    def sleep(self, seconds):
        self.now += seconds


def _pace(clock, create, **also):
    also = {"per_second": 300, "seconds": 1.0, "each_turn": lambda passed: None, **also}
    return keep_pace(create, now=lambda: clock.now, sleep=clock.sleep, **also)


def test_a_tenth_of_a_second_brings_a_tenth_of_the_tasks():
    clock, made = Clock(), []
    assert _pace(clock, made.append) == 300
    assert sum(made) == 300
    assert max(made) <= 31
    assert clock.now == pytest.approx(65, abs=0.11)


def test_a_slow_creation_is_caught_up_with():
    clock, made = Clock(), []

    def create(count):
        made.append(count)
        if len(made) == 1:
            clock.sleep(0.5)

    assert _pace(clock, create) == 300
    # It waited half a second: 0.5 s of 300 a second, less what was due before.
    assert 115 <= made[1] <= 150


def test_who_is_far_behind_creates_no_more_than_the_most_at_once_and_stops_in_time():
    clock, made = Clock(), []

    def create(count):
        made.append(count)
        clock.sleep(0.5)

    # 30 were due at first, then 150, then 210.
    assert _pace(clock, create, most=60, seconds=1.0) == sum(made) < 300
    assert made[1:] == [60, 60]
    assert clock.now < 66


def test_each_turn_is_told_how_much_time_has_passed():
    clock, told = Clock(), []
    # Halves of halves, so that the sums of the clock are exact.
    _pace(clock, lambda count: None, each_turn=told.append, seconds=0.375, turn=0.125)
    assert told == [0, 0.125, 0.25, 0.375]


def test_nothing_is_created_after_the_end():
    clock, made = Clock(), []
    assert _pace(clock, made.append, per_second=7, seconds=1.5) == 10  # 10.5 rounded down
    assert sum(made) == 10


def test_what_a_subject_has_not_is_said_and_not_counted_as_zero():
    figures = churn_figures("at the end", Churned(size=None, claim=None, resident=40.0))
    assert [value for _, _, value in figures] == [HAS_NONE, HAS_NONE, HAS_NONE, HAS_NONE, 40.0]


def test_early_and_late_figures_have_the_same_units_and_different_names():
    seen = Churned(Size(1.0, 2.0, 3.0), 4.0, 5.0)
    early, late = churn_figures("early", seen), churn_figures("at the end", seen)
    assert [unit for _, unit, _ in early] == [unit for _, unit, _ in late]
    assert not {metric for metric, _, _ in early} & {metric for metric, _, _ in late}
    assert [value for _, _, value in late] == [1.0, 2.0, 3.0, 4.0, 5.0]
