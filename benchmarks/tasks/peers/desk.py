"""The creator's side of the talk with the benchmark: a line of JSON asks, a line of JSON answers.

`python -m benchmarks.tasks.peers.desk MODULE` runs the module's `talk`, which serves an object.
`{"do": "create", "count": 5}` calls its method `create(count=5)`, which may be asynchronous.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.tasks import meter

#: how long a no-op may take to start before the talk is given up
_START_SECONDS = 30.0


async def serve(peer: object) -> None:
    """Until the other end closes."""
    loop = asyncio.get_running_loop()
    # Libraries that print must not spoil the talk.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked: dict[str, Any] = json.loads(line)
        try:
            answer = getattr(peer, asked.pop("do"))(**asked)
            if inspect.isawaitable(answer):
                answer = await answer
            said = {"answer": answer}
        except Exception as error:  # whatever a peer's library raises is reported by the benchmark
            traceback.print_exc()
            said = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


async def timed_creation(
    create: Callable[[int], Awaitable[object]], count: int, size: int, seconds: float
) -> dict[str, float]:
    """Create in pieces of `size`, `count` in all or as many as `seconds` allow."""
    made, began, used = 0, time.monotonic(), time.process_time()
    while made < count and time.monotonic() - began < seconds:
        await create(size)
        made += size
    return {"made": made, "seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - used}


async def timed_claims(claim: Callable[[], Awaitable[object]], count: int, seconds: float) -> list[float]:
    """Milliseconds of `count` claims, or of one and as many more as `seconds` allow."""
    found: list[float] = []
    began = time.monotonic()
    while not found or (len(found) < count and time.monotonic() - began < seconds):
        before = time.perf_counter()
        await claim()
        found.append((time.perf_counter() - before) * 1000)
    return found


async def latencies(create: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Milliseconds from before each creation to the start of the handler, which is idle before."""
    folder = Path(os.environ[meter.FOLDER])
    found = []
    for _ in range(count):
        await asyncio.sleep(0.1)
        before = meter.read_meters(folder).started
        began = time.time()
        await create()
        until = began + _START_SECONDS
        while meter.read_meters(folder).started == before:
            if time.time() > until:
                raise TimeoutError(f"no handler started within {_START_SECONDS:g} s")
            await asyncio.sleep(0.002)
        found.append((meter.read_meters(folder).last_start - began) * 1000)
    return found


if __name__ == "__main__":
    asyncio.run(importlib.import_module(sys.argv[1]).talk())
