"""Many who look at the same cost the database what one does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from service_tasks.engine.registry import Registry
from service_tasks.persistence.stats_store import StatsStore
from service_tasks.routes.stats import stats_routes
from service_tasks.routes.tasks import task_routes
from service_tasks.use_cases.stats import Stats
from service_tasks.use_cases.tasks import Tasks
from servicekit.database.engine import Database
from servicekit.events.backlog import outbox_routes
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.web.app import make_app


def principal(field: str | None) -> Principal:
    """From an Authorization such as "auditor 018f…"."""
    role, _, user = (field or "").partition(" ")
    return Principal(UUID(user), Role(role))


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """The statements that are sent to PostgreSQL."""
    statements: list[str] = []
    send = Database._in_time
    monkeypatch.setattr(
        Database,
        "_in_time",
        lambda self, connection, text, *more: statements.append(text) or send(self, connection, text, *more),
    )
    return statements


def test_what_twenty_people_see_of_all_tasks_is_read_once_and_what_one_has_is_theirs_alone(bench, sent):
    owner, own, other = uuid4(), bench.add("a"), bench.add("a")
    bench.sql("UPDATE tasks SET user_id = %s WHERE id = %s", str(owner), str(own))
    tasks = Tasks(bench.store, Registry([]), announce=lambda word: None)
    routes = [
        stats_routes(Stats(StatsStore(bench.database))),
        task_routes(tasks),
        outbox_routes("tasks", bench.database),
    ]
    app = make_app("service_tasks", routes=routes, checks={}, identify=principal)

    def ask(path: str, who: str, cache_control: str = "max-age=60"):
        return app.test_client().get(path, headers={"Authorization": who, "Cache-Control": cache_control})

    auditors = [f"auditor {uuid4()}" for _ in range(20)]
    for path in (
        "/tasks?light=true",
        "/tasks/stats",
        "/task-types?limit=100",
        f"/tasks/{other}?light=true",
        "/outbox/tasks",
    ):
        sent.clear()
        alone = ask(path, auditors[0], "no-cache")
        cost = len(sent)
        assert alone.status_code == 200
        assert "Age" not in alone.headers
        sent.clear()
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda who, path=path: ask(path, who), auditors))
        assert len(sent) <= cost, path
        assert len({answer.data for answer in answers}) == 1
        assert all("Age" in answer.headers for answer in answers)
        assert len({answer.headers["X-Request-ID"] for answer in answers}) == 20

    theirs = ask("/tasks?light=true", f"user {owner}").json["data"]["tasks"]
    assert [task["id"] for task in theirs] == [str(own)]
    assert ask(f"/tasks/{other}?light=true", f"user {owner}").status_code == 404
    assert ask("/outbox/tasks", f"user {owner}").status_code == 403
