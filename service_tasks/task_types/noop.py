"""A task that does nothing."""

from __future__ import annotations

from typing import Any

from service_tasks.task_types import TaskContext, task_type


@task_type("noop", timeout=60)
async def noop(ctx: TaskContext, payload: Any) -> None:
    """Does nothing, whatever the payload; useful to see that tasks run."""
