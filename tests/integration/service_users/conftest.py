"""One clone for a whole file of tests, emptied after each: making and dropping one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from service_users.app import CONSTRAINTS
from tests.support.postgres import ServiceDatabase, TestServer


@pytest.fixture(scope="module")
def cloned_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_users", dict(CONSTRAINTS))


@pytest.fixture
def users_database(cloned_database: ServiceDatabase) -> Iterator[ServiceDatabase]:
    """Give a migrated users database with nothing in it."""
    yield cloned_database
    with cloned_database.database.transaction() as session:
        for table in ("users", "outbox", "idempotency_keys"):
            session.execute(text(f"DELETE FROM {table}"))
