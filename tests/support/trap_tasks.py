"""Task types for crash tests: each notes that it began and that it returned, and waits to be released.

The payload names the test's folder: its file `journal` gets a line for each beginning and each return, and handlers
that wait do so until it has a file `release`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from service_tasks.task_types import TaskContext, task_type

LOOK_SECONDS = 0.01


class Trap(BaseModel):
    """Where the test looks."""

    model_config = ConfigDict(extra="forbid")

    folder: str


def note(ctx: TaskContext, payload: Trap, what: str) -> None:
    """Write one line in one write, so that lines of several processes do not mix."""
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


class LargeTrap(Trap):
    """A payload of any size."""

    values: list[Any]


@task_type("waits_with_much", payload=LargeTrap, timeout=600)
async def waits_with_much(ctx: TaskContext, payload: LargeTrap) -> int:
    """The same, with a large payload."""
    await waits.function(ctx, payload)
    return len(payload.values)


@task_type("waits_alone", payload=Trap, timeout=600, max_running=1)
async def waits_alone(ctx: TaskContext, payload: Trap) -> int:
    """The same, one at a time."""
    return int(await waits.function(ctx, payload))


@task_type("is_deaf", payload=Trap, timeout=600)
def is_deaf(ctx: TaskContext, payload: Trap) -> int:
    """A plain function that ignores the order to stop."""
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
    """Notes that it ran."""
    note(ctx, payload, "began")


@task_type("fails_once", payload=Trap)
async def fails_once(ctx: TaskContext, payload: Trap) -> int:
    """Its first attempt fails."""
    note(ctx, payload, "began")
    if ctx.attempt == 1:
        raise ValueError("the first attempt fails")
    return os.getpid()


class Forks(Trap):
    """How it makes a child, and what the child does."""

    way: str


def _end_of_child(way: str) -> int:
    if way == "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join()
        assert child.exitcode is not None
        return child.exitcode
    with subprocess.Popen(["sleep", "600"]) as program:
        program.terminate()
        return program.wait()


@task_type("forks", payload=Forks)
def forks(ctx: TaskContext, payload: Forks) -> int:
    """Returns how the child ended."""
    note(ctx, payload, "began")
    if payload.way in ("multiprocessing", "subprocess"):
        return _end_of_child(payload.way)
    child = os.fork()
    if child == 0:
        if payload.way == "raises":
            raise SystemExit(0)
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@task_type("forks_async", payload=Forks)
async def forks_async(ctx: TaskContext, payload: Forks) -> int:
    """The same on the event loop."""
    await asyncio.sleep(0)
    if payload.way == "awaits":
        child = os.fork()
        if child == 0:
            await asyncio.sleep(600)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return int(forks.function(ctx, payload))


@task_type("leaves_behind", payload=Trap)
def leaves_behind(ctx: TaskContext, payload: Trap) -> None:
    """Leaves behind what an interpreter waits for before it exits."""
    threading.Thread(target=time.sleep, args=(60,), daemon=False).start()
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=False).start()


@task_type("fills_executor", payload=Trap, timeout=60)
async def fills_executor(ctx: TaskContext, payload: Trap) -> None:
    """Waits on a thread of asyncio's executor, which cannot be interrupted."""
    note(ctx, payload, "began")
    await asyncio.to_thread(time.sleep, 600)


@task_type("kills", payload=Trap)
async def kills(ctx: TaskContext, payload: Trap) -> None:
    """Kills its worker."""
    note(ctx, payload, "began")
    os.kill(os.getpid(), signal.SIGKILL)
