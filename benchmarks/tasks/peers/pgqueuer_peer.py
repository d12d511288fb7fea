"""PgQueuer on asyncpg and uvloop, with lasting tables and the autovacuum settings that it offers.

`python -m … BATCH TASKS` runs a worker as its `pgq run` does, which breaks over recent versions of typer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from uuid import uuid4

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.domain.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries

from benchmarks.tasks.meter import meter
from benchmarks.tasks.peers import desk

_BATCH = 1000


async def work(batch: int, most: int) -> None:
    """Until SIGTERM."""
    async with asyncpg.create_pool(os.environ["BENCH_URL"], min_size=2, max_size=10) as pool:
        queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            meter().pass_by()

        @queuer.entrypoint("wait")
        async def wait(job: Job) -> None:
            meter().start()
            await asyncio.sleep(float(job.payload or b"0"))
            meter().end()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        await queuer.run(batch_size=batch, max_concurrent_tasks=most)


class Creator:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._queries = Queries.from_asyncpg_pool(pool)

    async def prepare(self) -> None:
        await self._queries.install()
        await self._queries.optimize_autovacuum()

    async def fill(self, count: int, days: int = 0) -> None:
        after = [timedelta(days=days)] * _BATCH if days else None
        for _ in range(0, count, _BATCH):
            await self._queries.enqueue(["noop"] * _BATCH, [None] * _BATCH, [0] * _BATCH, after)

    async def create(self, count: int, size: int, limit: float, wait: float | None = None) -> dict[str, float]:
        return await desk.timed_creation(lambda some: self._create(some, wait), count, size, limit)

    async def latencies(self, count: int) -> list[float]:
        return await desk.latencies(lambda: self._create(1, None), count)

    async def claims(self, count: int, size: int, limit: float) -> list[float]:
        entrypoints = {"noop": EntrypointExecutionParameter(0)}

        async def claim() -> None:
            assert len(await self._queries.dequeue(size, entrypoints, uuid4(), None, timedelta(seconds=30))) == size

        return await desk.timed_claims(claim, count, limit)

    async def prune(self) -> None:
        await self._queries.clear_queue_log()

    def clear(self) -> None:
        """The database goes."""

    async def _create(self, count: int, seconds: float | None) -> None:
        name, payload = ("noop", None) if seconds is None else ("wait", str(seconds).encode())
        if count == 1:
            await self._queries.enqueue(name, payload)
        else:
            await self._queries.enqueue([name] * count, [payload] * count, [0] * count)


async def talk() -> None:
    async with asyncpg.create_pool(os.environ["BENCH_URL"], min_size=1, max_size=3) as pool:
        await desk.serve(Creator(pool))


if __name__ == "__main__":
    uvloop.run(work(int(sys.argv[1]), int(sys.argv[2])))
