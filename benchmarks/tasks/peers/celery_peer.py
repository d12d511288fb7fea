"""Celery on RabbitMQ: lasting queue, persistent messages, confirmed by the broker, acknowledged after the task ran."""

from __future__ import annotations

import os
import time

from celery import Celery
from kombu import Queue

from benchmarks.tasks.meter import meter
from benchmarks.tasks.peers import desk

QUEUE = os.environ["BENCH_QUEUE"]


def _make(*, confirms: bool) -> Celery:
    made = Celery("bench", broker=os.environ["BENCH_URL"])
    made.conf.update(
        task_queues=[Queue(QUEUE, durable=True)],
        task_default_queue=QUEUE,
        task_default_delivery_mode="persistent",
        task_ignore_result=True,
        task_acks_late=True,
        broker_transport_options={"confirm_publish": confirms},
        worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "1")),
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
    )
    return made


app = _make(confirms=True)


@app.task(name="noop")
def noop() -> None:
    meter().pass_by()


@app.task(name="wait")
def wait(seconds: float) -> None:
    meter().start()
    time.sleep(seconds)
    meter().end()


class Creator:
    def prepare(self) -> None:
        with app.connection_for_write() as connection:
            Queue(QUEUE, durable=True)(connection.default_channel).declare()

    def fill(self, count: int, wait: float | None = None) -> None:
        """Not measured, so nobody waits for the broker's word; the messages are as persistent."""
        name, arguments = ("noop", ()) if wait is None else ("wait", (wait,))
        plain = _make(confirms=False)
        with plain.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                plain.send_task(name, arguments, producer=producer)

    async def create(self, count: int, size: int, limit: float, wait: float | None = None) -> dict[str, float]:
        return await desk.timed_creation(lambda some: self._create(some, wait), count, size, limit)

    async def latencies(self, count: int) -> list[float]:
        return await desk.latencies(lambda: self._create(1, None), count)

    def clear(self) -> None:
        with app.connection_for_write() as connection:
            Queue(QUEUE, durable=True)(connection.default_channel).delete()

    async def _create(self, count: int, seconds: float | None) -> None:
        for _ in range(count):
            if seconds is None:
                noop.delay()
            else:
                wait.delay(seconds)


async def talk() -> None:
    await desk.serve(Creator())
