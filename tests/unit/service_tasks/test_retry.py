"""The backoff, with its arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service_tasks.domain.retry import MAX_RETRY_AFTER_SECONDS, Exhausted, RetryAt, RetryPolicy, after_failure

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "chance", "seconds"),
    [
        (1, 0.5, 1.0),  # 1 × 2^0
        (2, 0.5, 2.0),  # 1 × 2^1
        (5, 0.5, 16.0),  # 1 × 2^4
        (9, 0.5, 256.0),  # 1 × 2^8
        (10, 0.5, 300.0),  # 1 × 2^9 = 512, capped
        (25, 0.5, 300.0),  # far over the cap
        (5000, 0.5, 300.0),  # 2^4999 would not fit a float
        (1, 0.0, 0.8),  # 1 × (1 − 0.2)
        (1, 1.0, 1.2),  # 1 × (1 + 0.2)
        (3, 0.75, 4.4),  # 4 × (1 + 0.2 × 0.5)
        (10, 1.0, 360.0),  # the jitter comes after the cap
    ],
)
def test_the_pause_doubles_up_to_the_cap_and_is_spread(attempt, chance, seconds):
    assert RetryPolicy().delay(attempt, chance).total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_failed_attempt_with_others_left_runs_again_after_its_pause(attempt):
    verdict = after_failure(attempt=attempt, max_attempts=3, now=NOW, chance=0.5, policy=RetryPolicy(base_seconds=10.0))

    assert verdict == RetryAt(NOW + timedelta(seconds=10 * 2 ** (attempt - 1)))


@pytest.mark.parametrize("attempt", [3, 4])
def test_the_last_attempt_is_the_last(attempt):
    verdict = after_failure(attempt=attempt, max_attempts=3, now=NOW, chance=0.5, policy=RetryPolicy())

    assert verdict == Exhausted(f"attempt {attempt} of 3 failed")


@pytest.mark.parametrize(
    ("asked", "chance", "seconds"),
    [
        (60, 0.0, 60.0),  # never earlier than asked
        (60, 1.0, 72.0),  # 60 × (1 + 0.2): those who were told the same do not come back together
        (1000, 0.0, 1000.0),  # the cap of 300 is for guesses
        (0, 1.0, 0.0),
        (10**9, 0.0, MAX_RETRY_AFTER_SECONDS),
        (MAX_RETRY_AFTER_SECONDS, 1.0, MAX_RETRY_AFTER_SECONDS),
        (-5, 0.5, 0.0),
    ],
)
def test_a_wait_that_the_handler_asked_for_takes_the_place_of_the_backoff(asked, chance, seconds):
    verdict = after_failure(
        attempt=1, max_attempts=3, now=NOW, chance=chance, policy=RetryPolicy(base_seconds=5.0), retry_after=asked
    )

    assert verdict == RetryAt(NOW + timedelta(seconds=seconds))


def test_nobody_can_ask_for_another_attempt_after_the_last():
    verdict = after_failure(attempt=3, max_attempts=3, now=NOW, chance=0.5, policy=RetryPolicy(), retry_after=1.0)

    assert verdict == Exhausted("attempt 3 of 3 failed")


@pytest.mark.parametrize(
    "wrong", [{"base_seconds": -1}, {"factor": 0.5}, {"cap_seconds": float("nan")}, {"jitter": 1.5}, {"jitter": -0.1}]
)
def test_a_policy_that_makes_no_sense_is_refused_by_the_name_of_its_part(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        RetryPolicy(**wrong)
