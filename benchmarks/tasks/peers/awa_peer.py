"""awa: a core in Rust, handlers in Python. `python -m … SLOTS` runs a worker."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient

from benchmarks.tasks.meter import meter
from benchmarks.tasks.peers import desk

_BATCH = 1000
_KEPT_HOURS = 1 / 3600


@dataclass
class Noop:
    """Does nothing."""


@dataclass
class Wait:
    """Waits so many seconds."""

    seconds: float


class Creator:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def prepare(self) -> None:
        await self._client.migrate()
        await self._client.install_queue_storage()

    async def fill(self, count: int, days: int = 0) -> None:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days) if days else None
        for _ in range(0, count, _BATCH):
            await self._client.enqueue_many_copy([Noop() for _ in range(_BATCH)], run_at=at)

    async def create(self, count: int, size: int, limit: float, wait: float | None = None) -> dict[str, float]:
        return await desk.timed_creation(lambda some: self._create(some, wait), count, size, limit)

    async def latencies(self, count: int) -> list[float]:
        return await desk.latencies(lambda: self._create(1, None), count)

    def prune(self) -> None:
        """Its worker does."""

    def clear(self) -> None:
        """The database goes."""

    async def _create(self, count: int, seconds: float | None) -> None:
        if count == 1:
            await self._client.insert(Noop() if seconds is None else Wait(seconds))
        elif seconds is None:
            await self._client.enqueue_many_copy([Noop() for _ in range(count)])
        else:
            await self._client.enqueue_many_copy([Wait(seconds) for _ in range(count)])


async def work(slots: int) -> None:
    """Until SIGTERM."""
    async with AsyncClient(os.environ["BENCH_URL"], max_connections=10) as client:

        @client.task(Noop, queue="default")
        async def noop(job: object) -> None:
            meter().pass_by()

        @client.task(Wait, queue="default")
        async def wait(job: Any) -> None:
            meter().start()
            await asyncio.sleep(job.args.seconds)
            meter().end()

        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await client.start([("default", slots)], completed_retention_hours=_KEPT_HOURS)
        await stopped.wait()
        await client.shutdown()


async def talk() -> None:
    async with AsyncClient(os.environ["BENCH_URL"], max_connections=3) as client:
        await desk.serve(Creator(client))


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1])))
