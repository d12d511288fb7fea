"""One clone for a whole file of tests, emptied before each: making and dropping one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service_sites.app import CONSTRAINTS
from service_sites.tables import Base
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.sites import SitesSystem

_EMPTY = "; ".join(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables))


@pytest.fixture(scope="module")
def cloned_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_sites", dict(CONSTRAINTS))


@pytest.fixture
def sites_database(cloned_database: ServiceDatabase) -> ServiceDatabase:
    """Give a migrated sites database with nothing in it."""
    cloned_database.administer(_EMPTY)
    return cloned_database


@pytest.fixture
def system(sites_database: ServiceDatabase) -> SitesSystem:
    """Give the service on that database."""
    return SitesSystem(sites_database)
