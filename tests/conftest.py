"""Fixtures for every level of test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from tests.support import guard
from tests.support.postgres import ServiceDatabase, TestServer

_OURS = (
    "ADMIN_TOKEN",
    "ALLOWED_HOSTS",
    "AUDIT_",
    "AUTH",
    "CORS_ORIGINS",
    "LOG_",
    "MAIL_TOKEN",
    "OIDC_",
    "PEOPLE_TOKEN",
    "PUBLIC_URL",
    "SCHEDULES_",
    "TRUSTED_PROXIES",
    "USERS_",
    "ORDERS_",
    "TASKS_",
    "SITES_",
    "EVENTS_",
    "GATEWAY_",
    "WORKER_",
    "RELAY_",
    "RABBITMQ_",
    "INGEST_",
    "MESSAGES_",
    "INTERNAL_TOKEN",
    "TASK_MODULES",
    "TASK_EVENTS",
    "CALLBACK_",
    "HTTP_REQUEST_",
    "PRIVATE_NETWORKS",
    "SERVICE_",
    "SMTP_",
    "SITEWORKS_",
)


#: Without the packages of requirements/browser.txt.
collect_ignore = [] if find_spec("playwright") else ["browser"]

# No test times a speed: a busy machine may take seconds for an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

#: Files that share a running system: one process runs them, in this order, which is that of their names.
_SHARE = (
    ("docs/test_coming_from.py", "docs/test_readme_tour.py"),
    # The seed makes the workers busy, and wrong input more tasks than are counted exactly.
    (
        "e2e/test_events.py", "e2e/test_outages.py", "e2e/test_people_and_orders.py",
        "e2e/test_tasks.py", "e2e/test_the_seed.py", "e2e/test_wrong_input.py",
    ),
)  # fmt: skip
_FIRST = {f"tests/{file}": files[0] for files in _SHARE for file in files}


class _ByFile(LoadFileScheduling):
    """Tests of a file, or of files that share a system, go to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _FIRST.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """Distribute the tests of `./scripts/test` among its processes."""
    return _ByFile(config, log)


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """Keep the caller's own settings out of the tests, in which nobody logs in unless one says so."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_OURS)}
    os.environ["AUTH"] = "off"
    yield
    del os.environ["AUTH"]
    os.environ.update(kept)


@pytest.fixture(autouse=True, scope="session")
def _nothing_stays_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    """End what these tests have started even when they are interrupted or killed."""
    guard.start(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True, scope="session")
def _no_words_of_pika() -> None:
    """Keep out of a failed test's report the hundred lines that pika logs for each connection that is refused."""
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """One real PostgreSQL for this test process."""
    server = TestServer(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def empty_database(postgres_server: TestServer) -> Iterator[str]:
    """Give the URL of a database with nothing in it."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def users_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    """Give a migrated users database."""
    from service_users.app import CONSTRAINTS

    yield from postgres_server.service_database("service_users", dict(CONSTRAINTS))


@pytest.fixture
def orders_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    """Give a migrated orders database."""
    yield from postgres_server.service_database("service_orders")


@pytest.fixture
def sites_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    """Give a migrated sites database."""
    from service_sites.app import CONSTRAINTS

    yield from postgres_server.service_database("service_sites", dict(CONSTRAINTS))


@pytest.fixture
def tasks_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    """Give a migrated tasks database."""
    yield from postgres_server.service_database("service_tasks")
