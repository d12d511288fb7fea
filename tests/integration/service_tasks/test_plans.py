"""Every statement that workers, watchers and maintenance repeat goes through its index, whatever the table holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from service_tasks.persistence.queries import load_queries
from servicekit.database.engine import Database
from tests.support.plans import scans_of
from tests.support.postgres import TestServer

WORKER = "a0000000-0000-4000-8000-000000000000"
#: Of the oldest tenth.
OWNER = "b0000000-0000-4000-8000-000000000000"
#: Ids of version 7, a minute apart, so that the oldest are two years old; fifty workers.
MILLION = f"""
    INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, attempts, lease_no, execute_at, user_id,
                       worker_id, started_at, deadline_at, completed_at, result)
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - (1000000 - n) * 60000::bigint), 12, '0')
            || '70008000000000000000')::uuid,
           s.state, 'noop', '{{}}', n % 100, 3, 1, 1, now() + n * interval '1 s',
           CASE WHEN n < 100000 THEN '{OWNER}'::uuid END,
           CASE WHEN s.state = 'running' THEN
               ('a0000000-0000-4000-8000-' || lpad((n / 100 % 50)::text, 12, '0'))::uuid END, now(),
           CASE WHEN s.state = 'running' THEN now() END,
           CASE WHEN s.state IN ('completed', 'cancelled') THEN now() END,
           CASE WHEN s.state = 'completed' THEN 'null'::jsonb END
    FROM generate_series(1, 1000000) n, LATERAL (SELECT CASE
        WHEN n % 100 = 0 THEN 'ready' WHEN n % 100 = 1 THEN 'running' WHEN n % 100 < 20 THEN 'scheduled'
        WHEN n % 100 < 25 THEN 'cancelled' ELSE 'completed' END AS state) s
"""


@pytest.fixture(scope="module")
def million(postgres_server: TestServer) -> Iterator[Database]:
    """A million tasks in every state: the indexes made after them, and nothing written ahead, to have them sooner."""
    with contextmanager(postgres_server.service_database)("service_tasks") as own:
        # Makes the indexes, too.
        database = Database(own.superuser_url, application_name="a million", pool_size=1, statement_timeout_ms=100_000)
        with database.transaction() as session:
            connection = session.connection()
            indexes = connection.exec_driver_sql(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'tasks' AND indexname <> 'tasks_pkey'"
            ).all()
            connection.exec_driver_sql("ALTER TABLE tasks SET UNLOGGED")
            for name, _ in indexes:
                connection.exec_driver_sql(f"DROP INDEX {name}")
            connection.exec_driver_sql(MILLION.replace("%", "%%"))
            for _, definition in indexes:
                connection.exec_driver_sql(definition.replace("%", "%%"))
            connection.exec_driver_sql("ANALYZE tasks")
        yield database
        database.dispose()


def some_leases(number: int) -> dict[str, str]:
    return {
        "ids": "{" + ",".join(str(uuid4()) for _ in range(number)) + "}",
        "leases": "{" + ",".join(["1"] * number) + "}",
    }


FIVE_HUNDRED = some_leases(500)
ONES = "{" + ",".join(["1"] * 500) + "}"
NULLS = "{" + ",".join(["NULL"] * 500) + "}"
ERRORS = {
    "types": ONES,
    "messages": ONES,
    "traces": NULLS,
    "retries": NULLS,
    "suspects": NULLS,
    "worker": "w",
    "kept": 50,
}
CLAIM = {"types": ["noop"], "timeouts": [60.0], "limit": 500, "worker_id": WORKER}
DAY = 86_400.0

#: Parameters, and the ways by which the rows of tasks are found: an index, or `ctid` for rows that are locked already.
STATEMENTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "claim": (CLAIM, {"ix_tasks_ready", "ctid"}),
    "claim_limited": (
        {**CLAIM, "most": [None], "most_per_user": [None]},
        {"ix_tasks_ready", "ix_tasks_ready_of_user", "ix_tasks_worker", "ctid"},
    ),
    "promote": ({"limit": 500}, {"ix_tasks_scheduled", "ctid"}),
    "promote_suspects": ({"limit": 500}, {"ix_tasks_suspects", "ctid"}),
    "next_scheduled": ({}, {"ix_tasks_scheduled"}),
    "lost": ({"lease_seconds": 30.0, "slack_seconds": 15.0, "limit": 500}, {"ix_tasks_worker"}),
    "held_by": ({"worker_id": WORKER}, {"ix_tasks_worker"}),
    "cancelled_under": ({"worker_id": WORKER}, {"ix_tasks_worker"}),
    "forget_worker": ({"worker_id": WORKER}, {"ix_tasks_worker"}),
    "forget_dead_workers": ({}, {"ix_tasks_worker"}),
    "lock_leases": (FIVE_HUNDRED, {"tasks_pkey"}),
    "locked": (FIVE_HUNDRED, {"tasks_pkey"}),
    "complete": ({**FIVE_HUNDRED, "results": "[" + ",".join(["null"] * 500) + "]"}, {"tasks_pkey"}),
    "complete_for_callbacks": ({**FIVE_HUNDRED, "results": "[" + ",".join(["null"] * 500) + "]"}, {"tasks_pkey"}),
    "completed_under": (FIVE_HUNDRED, {"tasks_pkey"}),
    "ended": ({"ids": [str(uuid4()) for _ in range(500)], "largest": 16_384}, {"tasks_pkey"}),
    "link_callbacks": ({"ids": FIVE_HUNDRED["ids"], "callbacks": FIVE_HUNDRED["ids"]}, {"tasks_pkey"}),
    "fail": ({**FIVE_HUNDRED, **ERRORS}, {"tasks_pkey"}),
    "hand_back": (FIVE_HUNDRED, {"tasks_pkey"}),
    "stopped_after_cancel": (FIVE_HUNDRED, {"tasks_pkey"}),
    "write_progress": ({**FIVE_HUNDRED, "percents": ONES, "messages": NULLS}, {"tasks_pkey"}),
    "cancel_many": ({"ids": [str(uuid4()) for _ in range(500)], "reason": None, "reach": None}, {"tasks_pkey"}),
    "retry": ({"id": WORKER, "reach": None}, {"tasks_pkey"}),
    "purge": ({"id": WORKER, "reach": WORKER}, {"tasks_pkey"}),
    "cancel_of_user": ({"user_id": WORKER, "reason": "gone"}, {"ix_tasks_user", "tasks_pkey"}),
    "seen_type": ({"name": "invented"}, {"ix_tasks_ready", "ix_tasks_scheduled", "task_minutes_pkey"}),
    "live_keys": ({"keys": ["a", "b"], "reach": WORKER}, {"uq_tasks_unique_key"}),
    # As many as there may be event streams.
    "watched": (
        {"ids": [str(uuid4()) for _ in range(5000)], "seen": [None] * 5000, "reach": [None] * 5000, "largest": 16_384},
        {"tasks_pkey"},
    ),
    "prune_tasks": (
        {"after": None, "shortest": DAY, "limit": 1000, "completed": DAY, "failed": None, "cancelled": DAY},
        {"tasks_pkey"},
    ),
}
STATEMENTS["count_some"] = (
    {"most": 2001, "most_running": 10_001, "groups": 500},
    {"ix_tasks_ready", "ix_tasks_scheduled", "ix_tasks_worker", "ix_tasks_ended_badly", "ix_tasks_cancelled_at"},
)
LIST = {
    "states": ["failed"],
    "state": "cancelled",
    "task_type": "rare",
    "reach": OWNER,
    "after": None,
    "limit": 51,
    "offset": 0,
    "look": 10_001,
    "most": 10_000,
    "largest": 16_384,
    "error_characters": 2000,
    "waits": "{}",
}
#: Lists, and the index in whose order their tasks are looked at, before those of the page are read.
LISTS = {
    "list_of_all": set(),
    "list_of_all_that_match": set(),
    "list_of_owner": {"ix_tasks_user"},
    "list_of_owner_that_match": {"ix_tasks_user"},
    "list_of_state": {"ix_tasks_ended_badly"},
}
STATEMENTS |= {name: (LIST, {"tasks_pkey", *found}) for name, found in LISTS.items()}
#: Without a filter, since others have indexes of their own.
CHOICE = dict.fromkeys(
    ("task_type", "user_id", "ids", "created_from", "created_before", "ended_from", "ended_before", "after", "reach")
)
STATEMENTS["choose"] = (
    {**CHOICE, "states": ["cancelled"], "callback": "callback", "limit": 10_001},
    {"ix_tasks_ended_badly"},
)
STATEMENTS["choose_any"] = (
    {**STATEMENTS["choose"][0], "states": ["ready", "scheduled", "running", "cancelled"], "task_type": "rare"},
    {"ix_tasks_ready", "ix_tasks_scheduled", "ix_tasks_worker", "ix_tasks_ended_badly_of_type"},
)
#: Those that are told to go through the ids, as the store does.
BY_ID = {
    "lock_leases",
    "complete",
    "complete_for_callbacks",
    "completed_under",
    "link_callbacks",
    "fail",
    "hand_back",
    "stopped_after_cancel",
    "write_progress",
}


def plan_of(database: Database, name: str) -> dict[str, Any]:
    queries = {**load_queries("stats.sql"), **load_queries("maintenance.sql"), **load_queries()}
    with database.transaction() as session:
        connection = session.connection()
        if name == "count_some":
            connection.exec_driver_sql(queries["by_index"])
        if name in BY_ID:
            connection.exec_driver_sql(queries["by_id"])
        if name == "choose":
            connection.exec_driver_sql(queries["oldest_first"])
        if LISTS.get(name) or name == "choose_any":
            connection.exec_driver_sql(queries["in_index_order"])
        explained = connection.exec_driver_sql("EXPLAIN (FORMAT JSON) " + queries[name], STATEMENTS[name][0])
        (plan,) = explained.scalar_one()
        return plan["Plan"]


def ways(plan: dict[str, Any]) -> set[str]:
    return {
        scan.get("Index Name", "ctid" if scan["Node Type"] == "Tid Scan" else scan["Node Type"])
        for scan in scans_of(plan)
    }


@pytest.mark.parametrize("name", STATEMENTS)
def test_at_a_million_tasks_a_statement_goes_through_its_index(million, name):
    assert ways(plan_of(million, name)) == STATEMENTS[name][1]


@pytest.fixture(scope="module")
def only_ready(postgres_server: TestServer) -> Iterator[Database]:
    """Thousands of tasks none of which ran at the last ANALYZE: the planner takes running ones for nonexistent."""
    with contextmanager(postgres_server.service_database)("service_tasks") as own:
        with own.database.transaction() as session:
            session.connection().exec_driver_sql(
                """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
                   SELECT gen_random_uuid(), 'ready', 'noop', '{}', 50, 3, now() FROM generate_series(1, 50000)"""
            )
        own.administer("ANALYZE tasks")
        yield own.database


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_a_batch_is_written_through_its_ids_though_no_task_ran_at_the_last_analyze(only_ready, name):
    (scan,) = scans_of(plan_of(only_ready, name))

    assert scan["Index Name"] == "tasks_pkey"
    assert scan["Index Cond"] == "(id = x.id)"


def test_every_statement_that_reads_or_writes_tasks_again_and_again_is_looked_at():
    """A new one has its place above, or here with the reason."""
    once = {
        "get": "by the primary key alone",
        "get_status": "by the primary key alone",
        "insert": "as get_by_key",
        "get_live": "as live_keys",
        "live_id": "as live_keys",
        "id_by_key": "by a unique key alone",
        "get_by_key": "by a unique key of each table",
        "answer": "as live_keys",
        "list_of_live": "by the index of each state",
        "retry_many": "by the ids, or by the state where it is rarer",
        "live_types": "reads workers",
    }
    queries = {**load_queries("maintenance.sql"), **load_queries()}
    touching = {
        name
        for name, text in queries.items()
        if any(f"{word} tasks {alias}" in text for word in ("FROM", "UPDATE", "JOIN") for alias in "tacpsr")
        or "UPDATE tasks AS t" in text
        or "DELETE FROM tasks AS t" in text
    }
    parts = {
        "start",
        "completion",
        "cancelled",
        "prepare",
        "lock_limits_and_claim",
        "complete_briefly",
        "page",
        "fitting",
    }
    assert touching - STATEMENTS.keys() <= {*once, *parts}
