"""Procrastinate on psycopg with a pool, asynchronous tasks."""

from __future__ import annotations

import asyncio
import os

from procrastinate import App, PsycopgConnector

from benchmarks.tasks.meter import meter
from benchmarks.tasks.peers import desk

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_URL"], min_size=2, max_size=10))
_BATCH = 1000


@app.task(name="noop")
async def noop() -> None:
    meter().pass_by()


@app.task(name="wait")
async def wait(seconds: float) -> None:
    meter().start()
    await asyncio.sleep(seconds)
    meter().end()


class Creator:
    async def prepare(self) -> None:
        await app.schema_manager.apply_schema_async()

    async def fill(self, count: int, days: int = 0) -> None:
        schedule = {"schedule_in": {"days": days}} if days else {}
        for _ in range(0, count, _BATCH):
            await noop.configure(**schedule).batch_defer_async(*({} for _ in range(_BATCH)))

    async def create(self, count: int, size: int, limit: float, wait: float | None = None) -> dict[str, float]:
        return await desk.timed_creation(lambda some: self._create(some, wait), count, size, limit)

    async def latencies(self, count: int) -> list[float]:
        return await desk.latencies(lambda: self._create(1, None), count)

    async def claims(self, count: int, size: int, limit: float) -> list[float]:
        """It claims one at a time, which is done `count` times and told for `size` of them."""
        worker = await app.job_manager.register_worker()

        async def claim() -> None:
            assert await app.job_manager.fetch_job(None, worker) is not None

        return [milliseconds * size for milliseconds in await desk.timed_claims(claim, count, limit)]

    async def prune(self) -> None:
        await app.job_manager.delete_old_jobs(nb_hours=0)

    def clear(self) -> None:
        """The database goes."""

    async def _create(self, count: int, seconds: float | None) -> None:
        task, argument = (noop, {}) if seconds is None else (wait, {"seconds": seconds})
        if count == 1:
            await task.defer_async(**argument)
        else:
            await task.batch_defer_async(*(argument for _ in range(count)))


async def talk() -> None:
    async with app.open_async():
        await desk.serve(Creator())
