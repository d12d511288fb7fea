"""/users/{id}/details: one answer made of two services, asked at the same time under one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from api_gateway.errors import status_of
from api_gateway.outcomes import Envelope
from servicekit.wire.errors import AppError

NEWEST_ORDERS = 50


@dataclass(frozen=True, slots=True)
class Part:
    """What one service answered."""

    status: int
    envelope: Envelope
    #: The Retry-After field, of a 503 above all.
    retry_after: bytes | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """Either `data`, or the refusal of the users service, to be passed on as it is."""

    status: int
    data: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    retry_after: bytes | None = None


#: Asks one upstream for one target; raises an AppError when there is no usable answer.
Ask = Callable[[str, str], Awaitable[Part]]


def targets(raw_id: str) -> tuple[str, str]:
    """What to ask users and orders for; the id is the path's own text, so it is encoded anew for a query."""
    value = quote(unquote_to_bytes(raw_id), safe="")
    return f"/users/{raw_id}", f"/orders?user_id={value}&limit={NEWEST_ORDERS}&offset=0"


def merge(user: Part, orders: Part | AppError) -> Details:
    """One document of both answers. Without orders it is partial; without the user there is none."""
    if not user.envelope.success:
        return Details(user.status, error=user.envelope.error, retry_after=user.retry_after)
    if isinstance(orders, AppError):
        return Details(200, _partial(user, orders.code, orders.message))
    if not orders.envelope.success:
        error = orders.envelope.error or {}
        return Details(200, _partial(user, str(error.get("code")), str(error.get("message"))))
    page = orders.envelope.data
    if not isinstance(page, dict) or "orders" not in page or "total" not in page:
        return Details(
            200, _partial(user, "bad_upstream_answer", "The orders service gave an answer that cannot be used.")
        )
    return Details(
        200,
        {"user": user.envelope.data, "orders": page["orders"], "orders_total": page["total"], "partial": False},
    )


async def details(raw_id: str, ask: Ask) -> Details:
    """Ask users and orders at the same time. Raises the AppError of the users service."""
    user_target, orders_target = targets(raw_id)
    orders_task = asyncio.ensure_future(_orders_or_error(ask, orders_target))
    try:
        user = await ask("users", user_target)
        if not user.envelope.success:
            return merge(user, AppError())
        return merge(user, await orders_task)
    finally:
        if not orders_task.done():
            orders_task.cancel()


async def _orders_or_error(ask: Ask, target: str) -> Part | AppError:
    try:
        return await ask("orders", target)
    except AppError as error:
        if status_of(error) == 500:
            raise
        return error


def _partial(user: Part, code: str, message: str) -> dict[str, Any]:
    return {
        "user": user.envelope.data,
        "orders": None,
        "orders_total": None,
        "partial": True,
        "missing": {"orders": {"code": code, "message": message}},
    }
