"""Merging users and orders into one answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from api_gateway.details import Details, Part, details, merge, targets
from api_gateway.errors import UpstreamUnavailable
from api_gateway.outcomes import Envelope
from servicekit.wire.errors import AppError

USER = Part(200, Envelope(True, data={"id": "1", "name": "Белов Ярослав"}))
ORDERS = Part(200, Envelope(True, data={"orders": [{"id": "7"}], "total": 120, "limit": 50, "offset": 0}))
NO_USER = Part(404, Envelope(False, error={"code": "user_not_found", "message": "No such user."}))


def test_both_parts_make_one_document() -> None:
    assert merge(USER, ORDERS) == Details(
        200,
        {"user": {"id": "1", "name": "Белов Ярослав"}, "orders": [{"id": "7"}], "orders_total": 120, "partial": False},
    )


@pytest.mark.parametrize(
    ("orders", "code"),
    [
        (UpstreamUnavailable("orders"), "orders_unavailable"),
        (Part(503, Envelope(False, error={"code": "database_unavailable", "message": "m"})), "database_unavailable"),
        (Part(400, Envelope(False, error={"code": "invalid_input", "message": "m"})), "invalid_input"),
        (Part(200, Envelope(True, data=[])), "bad_upstream_answer"),
        (Part(200, Envelope(True, data={"orders": []})), "bad_upstream_answer"),
    ],
)
def test_without_orders_the_document_is_partial_and_says_why(orders: Part | AppError, code: str) -> None:
    made = merge(USER, orders)
    assert made.status == 200
    assert made.data is not None
    assert made.data["user"] == USER.envelope.data
    assert (made.data["orders"], made.data["orders_total"], made.data["partial"]) == (None, None, True)
    assert made.data["missing"]["orders"]["code"] == code
    assert made.data["missing"]["orders"]["message"]


def test_without_the_user_there_is_no_document() -> None:
    assert merge(NO_USER, ORDERS) == Details(404, error={"code": "user_not_found", "message": "No such user."})


@pytest.mark.parametrize(
    ("raw_id", "user", "orders"),
    [
        ("1", "/users/1", "/orders?user_id=1&limit=50&offset=0"),
        ("1&limit=9", "/users/1&limit=9", "/orders?user_id=1%26limit%3D9&limit=50&offset=0"),
        ("a%20b", "/users/a%20b", "/orders?user_id=a%20b&limit=50&offset=0"),
        ("%D0%91", "/users/%D0%91", "/orders?user_id=%D0%91&limit=50&offset=0"),
    ],
)
def test_an_id_cannot_change_the_question(raw_id: str, user: str, orders: str) -> None:
    assert targets(raw_id) == (user, orders)


def asking(users: Callable[[], Part], orders: Callable[[], Part]) -> Details:
    async def ask(name: str, target: str) -> Part:
        await asyncio.sleep(0)
        return users() if name == "users" else orders()

    return asyncio.run(details("1", ask))


def raising(error: Exception) -> Callable[[], Part]:
    def answer() -> Part:
        raise error

    return answer


def test_users_failing_is_the_whole_answer() -> None:
    with pytest.raises(UpstreamUnavailable):
        asking(raising(UpstreamUnavailable("users")), lambda: ORDERS)


def test_users_refusing_before_orders_is_even_asked_leaves_nothing_behind() -> None:
    async def ask(name: str, target: str) -> Part:
        raise UpstreamUnavailable(name)

    with pytest.raises(UpstreamUnavailable):
        asyncio.run(details("1", ask))
    gc.collect()  # a coroutine that nobody awaited would warn here, and a warning is an error


def test_orders_failing_is_a_part_missing() -> None:
    made = asking(lambda: USER, raising(UpstreamUnavailable("orders")))
    assert made.data is not None
    assert made.data["partial"] is True


def test_a_fault_of_ours_is_never_taken_for_a_missing_part() -> None:
    with pytest.raises(AppError):
        asking(lambda: USER, raising(AppError()))


def test_both_are_asked_at_the_same_time() -> None:
    async def main() -> Details:
        both = asyncio.Event()
        asked: list[str] = []

        async def ask(name: str, target: str) -> Part:
            asked.append(name)
            if len(asked) == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 5)
            return USER if name == "users" else ORDERS

        return await details("1", ask)

    assert asyncio.run(main()).status == 200


def test_no_such_user_is_told_without_waiting_for_orders() -> None:
    async def main() -> tuple[Details, bool]:
        left = False

        async def ask(name: str, target: str) -> Part:
            nonlocal left
            if name == "users":
                await asyncio.sleep(0)
                return NO_USER
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                left = True
                raise
            raise AssertionError

        made = await details("1", ask)
        await asyncio.sleep(0)
        return made, left

    made, left = asyncio.run(main())
    assert made.status == 404
    assert left
