"""Task types for the traps: each writes down that it began and that it returned, and waits until it is let go.

The payload names the folder of the test: its file `journal` gets a line for each beginning and each return, and a
handler that waits does so until there is a file `release`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from service_tasks.task_types import TaskContext, task_type

LOOK_SECONDS = 0.01


class Trap(BaseModel):
    """Where the test looks."""

    model_config = ConfigDict(extra="forbid")

    folder: str


def note(ctx: TaskContext, payload: Trap, what: str) -> None:
    """Write one line; at once, so that those of many processes do not mix."""
    line = f"{what} {ctx.task_id} {ctx.attempt} {os.getpid()}\n".encode()
    file = os.open(Path(payload.folder, "journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def released(payload: Trap) -> bool:
    return Path(payload.folder, "release").exists()


@task_type("waits", payload=Trap, timeout=600)
async def waits(ctx: TaskContext, payload: Trap) -> int:
    """Waits as an asyncio handler does; its result is its process."""
    note(ctx, payload, "began")
    while not released(payload):
        await asyncio.sleep(LOOK_SECONDS)
    note(ctx, payload, "returned")
    return os.getpid()


@task_type("waits_alone", payload=Trap, timeout=600, max_running=1)
async def waits_alone(ctx: TaskContext, payload: Trap) -> int:
    """The same, one at a time."""
    return int(await waits.function(ctx, payload))


@task_type("is_deaf", payload=Trap, timeout=600)
def is_deaf(ctx: TaskContext, payload: Trap) -> int:
    """A plain function that does not care whether it is told to stop."""
    note(ctx, payload, "began")
    while not released(payload):
        time.sleep(LOOK_SECONDS)
    note(ctx, payload, "returned")
    return os.getpid()


@task_type("blocks", payload=Trap, timeout=600)
async def blocks(ctx: TaskContext, payload: Trap) -> int:
    """Holds up the whole event loop."""
    return int(is_deaf.function(ctx, payload))


@task_type("runs", payload=Trap)
async def runs(ctx: TaskContext, payload: Trap) -> None:
    """Writes down that it ran."""
    note(ctx, payload, "began")


@task_type("fails_once", payload=Trap)
async def fails_once(ctx: TaskContext, payload: Trap) -> int:
    """Its first attempt fails."""
    note(ctx, payload, "began")
    if ctx.attempt == 1:
        raise ValueError("the first attempt fails")
    return os.getpid()


@task_type("kills", payload=Trap)
async def kills(ctx: TaskContext, payload: Trap) -> None:
    """Takes its worker with it."""
    note(ctx, payload, "began")
    os.kill(os.getpid(), signal.SIGKILL)
