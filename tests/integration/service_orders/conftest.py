"""One clone for a whole file of tests, emptied after each: making and dropping one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import ServiceDatabase, TestServer


@pytest.fixture(scope="module")
def cloned_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_orders", {})


@pytest.fixture
def orders_database(cloned_database: ServiceDatabase) -> Iterator[ServiceDatabase]:
    """Give a migrated orders database with nothing in it."""
    yield cloned_database
    for table in ("orders", "outbox", "processed_events", "tombstones", "idempotency_keys"):
        # Its own role may not take back a tombstone.
        cloned_database.administer(f"DELETE FROM {table}")
