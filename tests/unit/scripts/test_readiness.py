"""What `status` tells of a process that is not ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.instance.layout import Layout
from scripts.instance.ports import Ports
from scripts.instance.readiness import Start, cause_of
from scripts.instance.supervision import ProcessState

_TASKS = ProcessState("tasks", "tasks", "STARTING", 7, uptime=0, stopped_at=0, complaint="")
_FAILURE = "service_tasks cannot start: no database\n"


@pytest.mark.parametrize(
    ("before", "started", "after", "state", "told"),
    [
        (_FAILURE, ["tasks"], "", "STARTING", None),
        (_FAILURE, ["tasks"], "serving\n", "RUNNING", None),
        (_FAILURE, ["tasks"], "service_tasks cannot start: no token\n", "BACKOFF", "no token"),
        ("", ["tasks"], _FAILURE, "STARTING", "no database"),  # supervisor tries again
        ("", ["tasks"], _FAILURE, "STOPPED", None),
        (_FAILURE, ["users"], "", "BACKOFF", "no database"),
    ],
)
def test_only_a_failure_since_it_was_told_to_start_is_its_cause(
    before: str, started: list[str], after: str, state: str, told: str | None, tmp_path: Path
) -> None:
    layout = Layout.of(tmp_path)
    layout.create()
    supervisor: Any = SimpleNamespace(processes=lambda: [_TASKS])
    log = layout.log("tasks")
    log.write_text(before)
    Start(layout, Ports(8000), supervisor, started)
    log.write_text(before + after)
    assert cause_of(replace(_TASKS, state=state), layout) == told
