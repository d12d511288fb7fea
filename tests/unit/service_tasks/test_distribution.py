"""Durations in buckets, and what can be said of them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from service_tasks.domain.distribution import BOUNDS, BUCKETS, Distribution, quantile


def test_each_bound_is_twice_the_one_before_from_a_millisecond_to_hours():
    assert BOUNDS[0] == 0.001
    assert all(later == 2 * earlier for earlier, later in pairwise(BOUNDS))
    assert BOUNDS[-1] > 4.5 * 3600
    assert len(BOUNDS) + 1 == BUCKETS


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(-5.0, 0), (0.0, 0), (0.001, 0), (0.0011, 1), (0.002, 1), (1.024, 10), (1.03, 11), (1e9, BUCKETS - 1)],
)
def test_a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(seconds, bucket):
    distribution = Distribution()

    distribution.add(seconds, 3)

    assert distribution.counts == [3 if place == bucket else 0 for place in range(BUCKETS)]
    assert distribution.total == pytest.approx(max(0.0, seconds) * 3)


def test_of_nothing_nothing_is_said():
    assert quantile([], 0.5) is None
    assert quantile([0] * BUCKETS, 0.5) is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seconds", [0.0004, 0.0015, 0.3, 7.0, 240.0])
def test_a_quantile_of_equal_durations_is_right_to_a_factor_of_two(seconds, share):
    distribution = Distribution()
    distribution.add(seconds, 1000)

    found = quantile(distribution.counts, share)

    assert found is not None
    # Below a millisecond nothing is told apart.
    assert found <= max(2 * seconds, 0.001)
    assert found >= seconds / 2 or seconds < 0.001


def test_quantiles_of_two_kinds_are_where_each_lies():
    distribution = Distribution()
    distribution.add(0.010, 90)
    distribution.add(10.0, 10)

    assert quantile(distribution.counts, 0.5) == pytest.approx(0.008 + 0.008 * 50 / 90)
    assert quantile(distribution.counts, 0.95) == pytest.approx(8.192 + 8.192 * 5 / 10)


def test_beyond_the_last_bound_nothing_is_known_but_that_bound():
    distribution = Distribution()
    distribution.add(1e9)

    assert quantile(distribution.counts, 0.5) == BOUNDS[-1]
