"""A task that waits, like one that calls a slow remote system."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict, Field

from service_tasks.task_types import TaskContext, task_type

_STEP_SECONDS = 0.5


class IoPayload(BaseModel):
    """How long to wait, and how often to fail first."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=5, ge=0, le=3600, allow_inf_nan=False, description="how long to wait")
    failures: int = Field(default=0, ge=0, le=1000, description="so many first attempts end with an error")


class RemoteFailed(Exception):
    """The error that the payload asks for."""


class IoResult(BaseModel):
    """What came of the wait."""

    waited_seconds: float
    attempt: int = Field(description="the attempt that did not fail")


@task_type("io", payload=IoPayload, result=IoResult, timeout=3700)
async def io(ctx: TaskContext, payload: IoPayload) -> IoResult:
    """Waits like a slow remote system, telling its progress; `failures` makes the first attempts fail."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    ctx.progress(0, "waiting")
    while (waited := loop.time() - began) < payload.seconds:
        ctx.progress(100 * waited / payload.seconds, f"{waited:.1f} of {payload.seconds:g} seconds")
        await asyncio.sleep(min(_STEP_SECONDS, payload.seconds - waited))
    ctx.progress(100, f"{payload.seconds:g} of {payload.seconds:g} seconds")
    if ctx.attempt <= payload.failures:
        raise RemoteFailed(f"attempt {ctx.attempt} was asked to fail")
    return IoResult(waited_seconds=payload.seconds, attempt=ctx.attempt)
