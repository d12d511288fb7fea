"""Built-in task types, and the imports for a module with your own.

from service_tasks.task_types import TaskContext, task_type

@task_type("greet")
async def greet(ctx: TaskContext, payload: object) -> str:
    return "hello"
"""

from __future__ import annotations

from service_tasks.domain.retry import RetryPolicy
from service_tasks.engine.context import GiveUp, RetryAfter, TaskContext, TaskStopped
from service_tasks.engine.registry import TaskType, task_type
from servicekit.process.settings import Settings

__all__ = ["GiveUp", "RetryAfter", "RetryPolicy", "Settings", "TaskContext", "TaskStopped", "TaskType", "task_type"]
