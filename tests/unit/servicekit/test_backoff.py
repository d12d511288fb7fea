"""How long to wait before the next try."""

from __future__ import annotations

import pytest

from servicekit.process.backoff import Backoff, backoff, jittered


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (10**9, 3.0)]
)
def test_the_wait_doubles_with_each_failure_up_to_the_longest(failures: int, seconds: float) -> None:
    assert backoff(failures, first=0.5, longest=3.0) == seconds


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 6.0), (0.5, 10.0), (1.0, 14.0)])
def test_jitter_spreads_a_wait_both_ways(chance: float, seconds: float) -> None:
    assert jittered(10.0, 0.4, chance) == pytest.approx(seconds)
    assert 6.0 <= jittered(10.0, 0.4) <= 14.0


def test_a_success_begins_anew() -> None:
    waits = Backoff(first=1.0, longest=60.0)
    for base in (1.0, 2.0, 4.0):
        assert 0.75 * base <= waits.next() <= 1.25 * base
    waits.reset()
    assert 0.75 <= waits.next() <= 1.25
    assert waits.failures == 1
