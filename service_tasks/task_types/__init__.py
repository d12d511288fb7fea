"""Built-in task types, and what a module with your own needs.

from service_tasks.task_types import TaskContext, task_type

@task_type("greet")
async def greet(ctx: TaskContext, payload: object) -> str:
    return "hello"
"""

from __future__ import annotations

from service_tasks.engine.context import GiveUpError, TaskContext, TaskStopped
from service_tasks.engine.registry import task_type

__all__ = ["GiveUpError", "TaskContext", "TaskStopped", "task_type"]
