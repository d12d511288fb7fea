"""The sites that `./scripts/seed` makes: six months of work, taken by the rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from scripts.seeding import PEOPLE
from scripts.seeding_sites import PLANS, fill
from service_sites.users_client import Person
from tests.support.postgres import ServiceDatabase, TestServer

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_sites")


def test_two_sites_have_people_of_each_role_and_a_history_of_six_months(database):
    people = [Person(uuid4(), name) for name, _, _ in PEOPLE]

    def rows(statement: str) -> list[tuple]:
        return database.database.once(statement, {})

    assert fill(database.url, people, 1, items=80, now=NOW) == (80, 0)
    assert fill(database.url, people, 1, items=80, now=NOW) == (80, 80)

    assert rows("SELECT count(DISTINCT role) FROM memberships GROUP BY site_id") == [(5,)] * len(PLANS)
    ((first, last),) = rows("SELECT min(at), max(at) FROM history")
    assert first < NOW - timedelta(150)
    assert NOW - timedelta(5) < last <= NOW
    # Work of every kind, and history in the order of its times.
    states = dict(rows("SELECT state, count(*) FROM work_items GROUP BY state"))
    assert len(states) > 3
    assert states["closed"] > 25
    assert rows("""
        SELECT count(*) FROM (SELECT at < lag(at) OVER (PARTITION BY site_id ORDER BY seq) AS back FROM history) x
        WHERE back""") == [(0,)]
