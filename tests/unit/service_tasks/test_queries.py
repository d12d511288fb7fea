"""queries.sql is read as written."""

from __future__ import annotations

import re

from service_tasks.persistence.queries import load_queries


def test_every_statement_is_whole_and_has_no_comment_left():
    queries = load_queries()

    assert {"claim", "complete", "fail", "hand_back", "lost", "promote", "beat"} <= queries.keys()
    for name, statement in queries.items():
        assert "--" not in statement, name
        assert "{" not in statement, name
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
