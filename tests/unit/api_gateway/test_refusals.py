"""Refusals, counted and told."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from api_gateway.refusals import Refusals

HOME, AWAY = "198.51.100.7", "203.0.113.9"


class Users:
    """The users service, as far as it takes what is told."""

    def __init__(self) -> None:
        self.told: list[list[dict[str, Any]]] = []
        self.status = 200
        self.loop = SimpleNamespace(time=lambda: 0.0)

    async def exchange(self, method: str, target: bytes, fields: bytes, body: bytes, **_: object) -> SimpleNamespace:
        assert (method, target) == ("POST", b"/internal/audit")
        assert b"authorization: Bearer secret\r\n" in fields
        told = json.loads(body)
        self.told.append(told.get("refusals", []) + told.get("circuits", []))

        async def read(limit: int) -> bytes:
            return b"{}"

        return SimpleNamespace(status=self.status, read=read, close=lambda: None)


def counts(entries: list[dict[str, Any]]) -> dict[tuple[str, str | None, str], int]:
    return {(one["minute"], one["address"], one["reason"]): one["count"] for one in entries}


def test_a_minute_is_told_once_it_is_over_and_until_it_is_taken() -> None:
    asyncio.run(_tell_a_minute())


async def _tell_a_minute() -> None:
    users, now = Users(), 1_800_000_030.0
    refusals = Refusals(users, "secret", now=lambda: now)
    for status, code, address in (
        *[(401, "invalid_token", HOME)] * 3,
        (401, "invalid_token", AWAY),
        (403, "foreign_page", HOME),
        (429, "too_many_attempts", HOME),
        # Refuses nobody in particular.
        (404, "not_found", HOME),
        (429, "too_many_requests", HOME),
        (503, "circuit_open", HOME),
    ):
        refusals.note(status, code, lambda address=address: address)
    await refusals.tell()
    assert users.told == []
    now += 60
    refusals.note(421, "misdirected_request", lambda: AWAY)
    users.status = 503
    await refusals.tell()
    users.status = 200
    await refusals.tell()
    assert users.told[0] == users.told[1]
    minute = "2027-01-15T08:00:00Z"
    assert counts(users.told[1]) == {
        (minute, HOME, "invalid_token"): 3,
        (minute, AWAY, "invalid_token"): 1,
        (minute, HOME, "foreign_page"): 1,
        (minute, HOME, "too_many_attempts"): 1,
    }
    await refusals.tell()
    assert len(users.told) == 2
    await refusals.tell_all()
    assert counts(users.told[2]) == {("2027-01-15T08:01:00Z", AWAY, "misdirected_request"): 1}
    refusals.forced(UUID(int=7), HOME, "orders", "open")
    await refusals.tell()
    ((forced,),) = users.told[3:]
    del forced["id"]
    assert forced == {
        "at": "2027-01-15T08:01:30Z",
        "actor": str(UUID(int=7)),
        "address": HOME,
        "circuit": "orders",
        "state": "open",
    }


def test_a_flood_from_everywhere_is_a_few_entries_however_long_users_is_away() -> None:
    asyncio.run(_flood())


async def _flood() -> None:
    users, now = Users(), 0.0
    refusals = Refusals(users, "secret", now=lambda: now)
    users.status = 503
    for minute in range(1, 200):
        now = minute * 60.0
        for client in range(500):
            refusals.note(401, "invalid_token", lambda client=client: f"2001:db8:{client:x}::/64")
        await refusals.tell()
    users.status, users.told = 200, []
    await refusals.tell_all()
    assert len(users.told) == 60
    for entries in users.told:
        assert len(entries) == 51
        assert sum(one["count"] for one in entries) == 500
        assert [one["count"] for one in entries if one["address"] is None] == [450]
    # The newest are kept.
    assert users.told[-1][0]["minute"] == "1970-01-01T03:19:00Z"
