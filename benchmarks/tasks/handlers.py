"""The task types that the benchmark runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from service_tasks.task_types import TaskContext, task_type


@task_type("bench_wait")
async def bench_wait(ctx: TaskContext, payload: Any) -> None:
    """Waits for `seconds` without a word."""
    await asyncio.sleep(float(payload["seconds"]))


@task_type("bench_clock")
async def bench_clock(ctx: TaskContext, payload: Any) -> float:
    """Tells when it started, by this machine's clock."""
    return time.time()
