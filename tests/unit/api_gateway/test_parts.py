"""Merging the answers of several services into one page."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from api_gateway.errors import UpstreamUnavailable
from api_gateway.parts import merge_parts
from api_gateway.route_table import Part
from servicekit.wire.envelope import Envelope
from servicekit.wire.errors import AppError

PARTS = (
    Part("users", "/users/{id}", {"user": None}),
    Part("orders", "/orders", {"orders": "orders", "orders_total": "total"}, optional=True),
)
USER = Envelope(200, {"id": "1", "name": "Белов Ярослав"})
ORDERS = Envelope(200, {"orders": [{"id": "7"}], "total": 120, "limit": 50, "offset": 0})
NO_USER = Envelope(404, error={"code": "user_not_found", "message": "No such user."})


def merging(users: Callable[[], Envelope], orders: Callable[[], Envelope]) -> Envelope:
    async def ask(part: Part) -> Envelope:
        await asyncio.sleep(0)
        return users() if part.upstream == "users" else orders()

    return asyncio.run(merge_parts(PARTS, ask))


def raising(error: Exception) -> Callable[[], Envelope]:
    def answer() -> Envelope:
        raise error

    return answer


def test_both_parts_make_one_document() -> None:
    assert merging(lambda: USER, lambda: ORDERS) == Envelope(
        200,
        {"user": {"id": "1", "name": "Белов Ярослав"}, "orders": [{"id": "7"}], "orders_total": 120, "partial": False},
    )


@pytest.mark.parametrize(
    ("orders", "code"),
    [
        (raising(UpstreamUnavailable("orders")), "orders_unavailable"),
        (lambda: Envelope(503, error={"code": "database_unavailable", "message": "m"}), "database_unavailable"),
        (lambda: Envelope(400, error={"code": "invalid_input", "message": "m"}), "invalid_input"),
        (lambda: Envelope(200, []), "bad_upstream_answer"),
        (lambda: Envelope(200, {"orders": []}), "bad_upstream_answer"),
    ],
)
def test_without_orders_the_document_is_partial_and_says_why(orders: Callable[[], Envelope], code: str) -> None:
    made = merging(lambda: USER, orders)
    assert made.status == 200
    assert made.data["user"] == USER.data
    assert (made.data["orders"], made.data["orders_total"], made.data["partial"]) == (None, None, True)
    assert made.data["missing"]["orders"]["code"] == code
    assert made.data["missing"]["orders"]["message"]


def test_without_the_user_there_is_no_document() -> None:
    assert merging(lambda: NO_USER, lambda: ORDERS) == NO_USER


def test_users_failing_is_the_whole_answer() -> None:
    with pytest.raises(UpstreamUnavailable):
        merging(raising(UpstreamUnavailable("users")), lambda: ORDERS)


def test_users_refusing_before_orders_is_even_asked_leaves_nothing_behind() -> None:
    async def ask(part: Part) -> Envelope:
        raise UpstreamUnavailable(part.upstream)

    with pytest.raises(UpstreamUnavailable):
        asyncio.run(merge_parts(PARTS, ask))
    gc.collect()  # a coroutine that nobody awaited would warn here, and a warning is an error


def test_a_fault_of_ours_is_never_taken_for_a_missing_part() -> None:
    with pytest.raises(AppError):
        merging(lambda: USER, raising(AppError()))


def test_both_are_asked_at_the_same_time() -> None:
    async def main() -> Envelope:
        both = asyncio.Event()
        asked: list[str] = []

        async def ask(part: Part) -> Envelope:
            asked.append(part.upstream)
            if len(asked) == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 5)
            return USER if part.upstream == "users" else ORDERS

        return await merge_parts(PARTS, ask)

    assert asyncio.run(main()).status == 200


@pytest.mark.parametrize("parts", [PARTS, PARTS[::-1]], ids=["users first", "orders first"])
def test_no_such_user_is_told_without_waiting_for_orders(parts: tuple[Part, ...]) -> None:
    async def main() -> tuple[Envelope, bool]:
        left = False

        async def ask(part: Part) -> Envelope:
            nonlocal left
            if part.upstream == "users":
                await asyncio.sleep(0)
                return NO_USER
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                left = True
                raise
            raise AssertionError

        made = await merge_parts(parts, ask)
        await asyncio.sleep(0)
        return made, left

    made, left = asyncio.run(main())
    assert made.status == 404
    assert left
