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
