"""The health check of a worker's container, against PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from service_tasks.engine.ports import WorkerInfo
from service_tasks.persistence.engine_store import EngineStore
from service_tasks.worker_probe import worker_problem
from servicekit.process.ids import new_id
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase


@pytest.fixture
def worker_of_host_a(tasks_database: ServiceDatabase) -> ServiceDatabase:
    worker = WorkerInfo(id=new_id(), name="a:7", task_types=("noop",), lease_seconds=45.0)
    EngineStore(tasks_database.database).beat(worker)
    return tasks_database


def test_a_host_whose_worker_beats_is_well(worker_of_host_a: ServiceDatabase) -> None:
    assert worker_problem("a", worker_of_host_a.url) is None


def test_another_hosts_worker_does_not_count(worker_of_host_a: ServiceDatabase) -> None:
    assert worker_problem("b", worker_of_host_a.url) == "no worker of b has been heard of within its lease"


def test_a_worker_silent_for_its_whole_lease_does_not_count(worker_of_host_a: ServiceDatabase) -> None:
    with worker_of_host_a.database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '46 seconds'"))
    assert worker_problem("a", worker_of_host_a.url) is not None


def test_a_database_that_is_away_is_a_problem_and_not_a_crash() -> None:
    problem = worker_problem("a", f"postgresql+psycopg2://tasks:secret@127.0.0.1:{free_port()}/tasks")
    assert problem is not None
    assert problem.startswith("the database does not answer")
    assert "secret" not in problem
