"""Task types that record their runs in the journal; `./scripts/soak tasks` loads them by TASK_MODULES."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from scripts.soaking import journal
from service_tasks.task_types import GiveUp, RetryAfter, RetryPolicy, Settings, TaskContext, TaskStopped, task_type

ASYNC, PLAIN = "noted", "noted_plain"
_QUICK = RetryPolicy(base_seconds=0.2, cap_seconds=2.0)


class JournalSettings(Settings):
    """Where the journal is."""

    soak_journal: Path


class NotedPayload(BaseModel):
    """How long to work, and how to end."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0, le=60)
    failures: int = Field(default=0, ge=0, description="so many first attempts end with an error")
    retry_after: float | None = Field(default=None, ge=0, description="in the errors: seconds until the next attempt")
    gives_up: bool = False


class NotedResult(BaseModel):
    """The run that counted."""

    run: str


class AskedToFail(Exception):
    """The error that the payload asks for."""


class _Noted:
    """One run; creating it notes its beginning in the journal."""

    def __init__(self, ctx: TaskContext, payload: NotedPayload, settings: JournalSettings) -> None:
        # First, since the process may be stopped at any line.
        began = time.time()
        self.id = str(uuid.uuid4())
        self._attempt = ctx.attempt
        self._payload = payload
        self._file = settings.soak_journal
        journal.note(self._file, self.id, "began", began, task=str(ctx.task_id), attempt=ctx.attempt)

    def stopped(self) -> None:
        journal.note(self._file, self.id, "stopped", time.time())

    def result(self) -> NotedResult:
        """End as the payload asks."""
        payload = self._payload
        failing = payload.gives_up or self._attempt <= payload.failures
        journal.note(self._file, self.id, "raised" if failing else "returned", time.time())
        if payload.gives_up:
            raise GiveUp("asked to give up")
        if failing and payload.retry_after is not None:
            raise RetryAfter(payload.retry_after)
        if failing:
            raise AskedToFail(f"attempt {self._attempt} was asked to fail")
        return NotedResult(run=self.id)


@task_type(ASYNC, payload=NotedPayload, result=NotedResult, timeout=120, retry=_QUICK, settings=JournalSettings)
async def noted(ctx: TaskContext, payload: NotedPayload, *, settings: JournalSettings) -> NotedResult:
    """Waits on the event loop; notes when it began and how it ended."""
    run = _Noted(ctx, payload, settings)
    try:
        await asyncio.sleep(payload.seconds)
    except asyncio.CancelledError:
        run.stopped()
        raise
    return run.result()


@task_type(PLAIN, payload=NotedPayload, result=NotedResult, timeout=120, retry=_QUICK, settings=JournalSettings)
def noted_plain(ctx: TaskContext, payload: NotedPayload, *, settings: JournalSettings) -> NotedResult:
    """The same on a thread."""
    run = _Noted(ctx, payload, settings)
    try:
        ctx.sleep(payload.seconds)
    except TaskStopped:
        run.stopped()
        raise
    return run.result()
