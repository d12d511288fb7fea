"""queries.sql is read as written."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from service_tasks.persistence.queries import load_queries

#: Pieces of statements that begin as one.
PARTS = {
    "queries.sql": {
        "insertion",
        "insertion_start",
        "start",
        "completion",
        "cancelled",
        "light_values",
        "begun",
        "fitting",
    },
}
#: Statements that read or write rows for people, and so for one owner alone where the caller has only those.
FOR_PEOPLE = {
    "queries.sql": """answer cancel_many choose choose_any get get_by_key get_live get_status list_of_owner
        list_of_owner_that_match live_keys purge retry retry_many watched""",
    "schedules.sql": "count get list lock",
    "stats.sql": "of_owner",
    "messages.sql": "",
}
#: The others, with why they are without.
WITHOUT_REACH = {
    "queries.sql": {
        "the engine's own": """add_counts announce_many beat by_id by_id_briefly cancelled_under claim claim_limited
            complete complete_briefly complete_for_callbacks completed_under ended execute_claim execute_limited_types
            fail forget_dead_workers forget_worker hand_back held_by limited_types link_callbacks lock_leases
            lock_limits lock_limits_and_claim locked lost next_scheduled prepare promote promote_suspects report_load
            stopped_after_cancel write_progress announce""",
        "makes what the use case has given its owner": """announce_and_enqueue enqueue insert insert_many insert_plain
            first_past is_future""",
        "only for callers who reach all": "list_of_all list_of_all_that_match list_of_live list_of_state",
        "settings": "in_index_order oldest_first",
        "of nobody": "clock",
        "a program in its own transaction": "id_by_key live_id",
        "about types and workers": """control controls forget_control forget_empty_control live_types seen_type""",
        "follows a task that was found within reach": "forget_answers",
        "follows the deletion of a user": "cancel_of_user",
    },
    "schedules.sql": {
        "the scheduler's own": "add_ticks advance announce clock due next_due",
        "on a row that is locked within reach": "delete ran update",
        "makes what the use case has given its owner": "count_before insert",
        "follows what became of a user": "pause_of_users pause_of_disabled",
    },
    "stats.sql": {
        "only for callers who reach all": """by_index cancelled count_all count_some ended ended_of_types oldest_ready
            sample times with_sorting workers""",
        "numbers of no owner": "in_index_order size workers_together",
    },
    "messages.sql": {
        "only for callers who reach all": "briefly clock count forget get list note point_to reject",
    },
}


def test_every_statement_is_whole_and_has_no_comment_left():
    queries = load_queries()

    assert {"claim", "complete", "fail", "hand_back", "lost", "promote", "beat"} <= queries.keys()
    for name, statement in queries.items():
        assert "--" not in statement, name
        assert not re.search(r"\{\w+\}", statement), name
        # The driver takes every percent sign for a parameter.
        assert not re.search(r"%(?!\(\w+\)s)", statement), name


def test_every_write_about_a_running_task_names_its_lease_and_its_state():
    queries = load_queries()

    for name in ("complete", "fail", "hand_back", "write_progress"):
        assert "t.lease_no = x.lease_no AND t.state = (SELECT 'running')" in queries[name], name


def test_every_statement_that_ends_tasks_says_which_of_them_have_a_callback():
    ends = re.compile(r"SET state = (?:'(?:completed|failed|cancelled)'|CASE .*'failed')")
    queries = load_queries()
    ending = {name: statement for name, statement in queries.items() if ends.search(statement)}

    assert set(ending) == {
        "cancel_many",
        "cancel_of_user",
        "cancelled",
        "complete",
        "complete_for_callbacks",
        "complete_briefly",
        "completion",
        "fail",
    }
    assert ending.pop("complete") == ending.pop("completion") + " AND " + queries["no_callback"]
    assert ending.pop("complete_briefly").endswith(queries["complete"])
    for name, statement in ending.items():
        assert "t.callback_url" in statement.split("RETURNING", 1)[1], name


@pytest.mark.parametrize("file", FOR_PEOPLE)
def test_a_statement_takes_the_reach_of_its_caller_unless_it_is_listed_with_why_not(file):
    queries = load_queries(file)
    text = (files("service_tasks.persistence") / file).read_text(encoding="utf-8")
    used = set(re.findall(r"\{(\w+)\}", text))
    statements = {
        name
        for name, body in queries.items()
        if name not in used or re.match(r"(WITH|SELECT|INSERT|UPDATE|DELETE|BEGIN|SET)\b", body)
    }
    reached = {name for name in statements if "%(reach)s" in queries[name]}
    without = {name for names in WITHOUT_REACH[file].values() for name in names.split()}

    parts = PARTS.get(file, set())
    assert reached - parts == set(FOR_PEOPLE[file].split())
    assert statements - reached - parts == without
