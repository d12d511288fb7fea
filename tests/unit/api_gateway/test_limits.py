"""The bulkhead, the retry budget and the quota of a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from api_gateway import shared_quotas
from api_gateway.limits import (
    Allowance,
    Bulkhead,
    BulkheadFull,
    EventLoopLag,
    LagWatch,
    Quota,
    RateLimiter,
    RetryBudget,
)
from api_gateway.shared_quotas import PLACES, QuotaMemory, SharedRateLimiter

Limit = Callable[[Quota], RateLimiter]


def test_places_are_given_until_there_are_none() -> None:
    bulkhead = Bulkhead(places=2)
    assert [bulkhead.try_enter() for _ in range(3)] == [True, True, False]
    bulkhead.leave()
    assert bulkhead.try_enter()


def test_the_longest_waiting_gets_the_next_place() -> None:
    async def main() -> list[int]:
        bulkhead = Bulkhead(places=1)
        assert bulkhead.try_enter()
        order: list[int] = []

        async def wait(number: int) -> None:
            await bulkhead.enter(5)
            order.append(number)
            bulkhead.leave()

        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert bulkhead.waiting == 3
        bulkhead.leave()
        await asyncio.gather(*tasks)
        assert bulkhead.in_use == 0
        return order

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_full_line_refuses_at_once() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(places=1, max_waiting=1)
        assert bulkhead.try_enter()
        waiting = asyncio.create_task(bulkhead.enter(5))
        await asyncio.sleep(0)
        with pytest.raises(BulkheadFull):
            await bulkhead.enter(5)
        bulkhead.leave()
        await waiting

    asyncio.run(main())


def test_waiting_too_long_leaves_the_line() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(places=1)
        assert bulkhead.try_enter()
        with pytest.raises(BulkheadFull):
            await bulkhead.enter(0.01)
        assert bulkhead.waiting == 0
        bulkhead.leave()
        assert bulkhead.in_use == 0

    asyncio.run(main())


def test_a_client_that_leaves_the_line_costs_no_place() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(places=1)
        assert bulkhead.try_enter()
        waiting = asyncio.create_task(bulkhead.enter(5))
        await asyncio.sleep(0)
        bulkhead.leave()  # hands the place over …
        waiting.cancel()  # … to somebody who leaves in the same moment
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert bulkhead.in_use == 0
        assert bulkhead.try_enter()

    asyncio.run(main())


def test_retries_are_a_tenth_of_the_calls_plus_a_reserve() -> None:
    budget = RetryBudget(share=0.1, reserve=3)
    assert [budget.try_retry() for _ in range(4)] == [True, True, True, False]
    for _ in range(20):
        budget.called()
    assert [budget.try_retry() for _ in range(3)] == [True, True, False]  # 20 × 0.1 = 2


def test_a_long_good_time_saves_up_no_more_than_the_ceiling() -> None:
    budget = RetryBudget(share=0.1, reserve=0, ceiling=5)
    for _ in range(1000):
        budget.called()
    assert sum(budget.try_retry() for _ in range(100)) == 5


def of_all_processes(quota: Quota) -> RateLimiter:
    return SharedRateLimiter(quota, QuotaMemory(rows=1))


@pytest.fixture(params=[RateLimiter, of_all_processes], ids=["of one process", "of all"])
def limit(request: pytest.FixtureRequest) -> Limit:
    """Makes a limiter of either kind: they keep one contract."""
    made: Limit = request.param
    return made


def test_a_client_may_use_its_quota_at_once_and_gets_it_back_evenly(limit: Limit) -> None:
    limiter = limit(Quota(4, 60))  # one every 15 s
    seen = [limiter.take("a", 0) for _ in range(5)]
    assert seen == [
        Allowance(True, 3, 15),
        Allowance(True, 2, 30),
        Allowance(True, 1, 45),
        Allowance(True, 0, 60),
        Allowance(False, 0, 15),
    ]
    assert not limiter.take("a", 14.9).allowed
    assert limiter.take("a", 15) == Allowance(True, 0, 60)
    assert limiter.take("a", 45) == Allowance(True, 1, 45)
    assert limiter.take("a", 1000) == Allowance(True, 3, 15)


def test_whatever_is_refused_costs_nothing(limit: Limit) -> None:
    limiter = limit(Quota(1, 10))
    assert limiter.take("a", 0).allowed
    assert [limiter.take("a", now).allowed for now in (1, 2, 3, 9.9, 10)] == [False, False, False, False, True]


@pytest.mark.parametrize(("requests", "seconds"), [(100, 60), (3, 1), (7, 3), (1000, 1), (1, 3600)])
def test_no_window_sees_more_than_twice_the_quota_and_the_long_run_no_more_than_the_rate(
    limit: Limit, requests: int, seconds: int
) -> None:
    limiter = limit(Quota(requests, seconds))
    steps = requests * 40
    taken = sum(limiter.take("a", number * seconds * 10 / steps).allowed for number in range(steps))
    # Ten windows long: the quota at the start, and what flowed back since.
    assert requests * 11 - 2 <= taken <= requests * 11


def test_clients_do_not_share(limit: Limit) -> None:
    limiter = limit(Quota(1, 60))
    assert [limiter.take(client, 0).allowed for client in ("a", "b", "a", "b")] == [True, True, False, False]


def test_the_memory_is_bounded_and_the_quietest_is_forgotten_first() -> None:
    limiter = RateLimiter(Quota(1, 60), clients=3)
    for client in ("a", "b", "c", "a", "d"):
        limiter.take(client, 0)
    assert len(limiter) == 3
    assert not limiter.take("a", 1).allowed  # it was heard of last but one
    for number in range(1000):
        limiter.take(str(number), 2)
    assert len(limiter) == 3


def test_limiters_over_one_memory_count_together() -> None:
    memory = QuotaMemory()
    first, second = (SharedRateLimiter(Quota(4, 60), memory) for _ in range(2))
    seen = [(first, second)[number % 2].take("a", 0) for number in range(5)]
    assert [(one.allowed, one.remaining) for one in seen] == [(True, 3), (True, 2), (True, 1), (True, 0), (False, 0)]
    assert second.take("b", 0).remaining == 3


def test_in_a_full_row_the_client_that_loses_least_is_forgotten() -> None:
    limiter = SharedRateLimiter(Quota(2, 60), QuotaMemory(rows=1))
    for number in range(PLACES):
        limiter.take(str(number), 0)
    for number in range(1, PLACES):
        limiter.take(str(number), 0)
    assert limiter.take("one more", 1).allowed
    assert [limiter.take(str(number), 1).allowed for number in range(1, PLACES)] == [False] * (PLACES - 1)
    assert limiter.take("0", 1).remaining == 1


def test_without_shared_memory_each_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> QuotaMemory:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_quotas, "_inherited", None)
    monkeypatch.setattr(shared_quotas, "QuotaMemory", no_room)
    shared_quotas.prepare_quotas()
    assert type(shared_quotas.limiter_for(Quota(1, 60))) is RateLimiter


def test_preparing_a_second_time_forgets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_quotas, "_inherited", None)
    for allowed in (True, False):
        shared_quotas.prepare_quotas()
        assert shared_quotas.limiter_for(Quota(1, 60)).take("a", 0).allowed is allowed


@pytest.mark.parametrize(
    "text", ["", "100", "100/", "/60", "0/60", "100/0", "-1/60", "1.5/60", "100/60/1", "²/60", " 1/1"]
)
def test_a_quota_is_two_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="not a quota"):
        Quota.parse(text)


def test_a_quota_says_what_it_is_in_the_words_of_the_draft() -> None:
    assert Quota.parse("100/60").policy == '"default";q=100;w=60'
    assert Allowance(True, 50, 30).field == '"default";r=50;t=30'


def test_late_again_and_again_is_overload_and_one_appointment_in_time_ends_it() -> None:
    lag = EventLoopLag(1.0)
    seen = []
    # Late by:       0    1.0  1.1  5    0.5  1.1  1.1  1.1  9    0
    for due, now in [
        (0, 0),
        (1, 2),
        (2, 3.1),
        (4, 9),
        (9, 9.5),
        (10, 11.1),
        (12, 13.1),
        (14, 15.1),
        (16, 25),
        (26, 26),
    ]:
        lag.tick(due, now)
        seen.append(lag.overloaded)
    assert seen == [False] * 7 + [True, True, False]


def test_without_a_limit_nothing_is_late() -> None:
    lag = EventLoopLag(0)
    for _ in range(5):
        lag.tick(0, 100)
    assert (lag.overloaded, lag.seconds) == (False, 100)


def test_the_watch_sees_a_loop_that_is_held_up() -> None:
    async def main() -> None:
        lag = EventLoopLag(0.05)
        watch = LagWatch(lag)
        watch.start()
        ends_at = time.monotonic() + 10
        while not lag.overloaded:
            assert time.monotonic() < ends_at
            # Holds the loop up longer than the appointment and the limit together.
            time.sleep(EventLoopLag.EVERY + 0.1)
            await asyncio.sleep(0)
        while lag.overloaded:
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.01)
        watch.stop()
        watch.stop()

    asyncio.run(main())
