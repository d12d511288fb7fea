"""The waiting line and the retry budget."""

from __future__ import annotations

import asyncio

import pytest

from api_gateway.limits import Bulkhead, LineFull, RetryBudget


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
        assert bulkhead.taken == 0
        return order

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_full_line_refuses_at_once() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(places=1, line=1)
        assert bulkhead.try_enter()
        waiting = asyncio.create_task(bulkhead.enter(5))
        await asyncio.sleep(0)
        with pytest.raises(LineFull):
            await bulkhead.enter(5)
        bulkhead.leave()
        await waiting

    asyncio.run(main())


def test_waiting_too_long_leaves_the_line() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(places=1)
        assert bulkhead.try_enter()
        with pytest.raises(LineFull):
            await bulkhead.enter(0.01)
        assert bulkhead.waiting == 0
        bulkhead.leave()
        assert bulkhead.taken == 0

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
        assert bulkhead.taken == 0
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
