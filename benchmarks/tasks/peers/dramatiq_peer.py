"""Dramatiq on RabbitMQ: its queues last, its messages are persistent, and creation waits for the broker's word."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.tasks.meter import meter
from benchmarks.tasks.peers import desk

QUEUE = os.environ["BENCH_QUEUE"]
broker = RabbitmqBroker(url=os.environ["BENCH_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def noop() -> None:
    meter().pass_by()


@dramatiq.actor(queue_name=QUEUE, actor_name="wait")
def wait_for(seconds: float) -> None:
    meter().start()
    time.sleep(seconds)
    meter().end()


class Creator:
    def prepare(self) -> None:
        broker.declare_queue(QUEUE, ensure=True)

    def fill(self, count: int, wait: float | None = None) -> None:
        """Not measured, so nobody waits for the broker's word; the messages are as persistent."""
        plain = RabbitmqBroker(url=os.environ["BENCH_URL"], confirm_delivery=False)
        plain.declare_queue(QUEUE, ensure=True)
        for _ in range(count):
            plain.enqueue(noop.message() if wait is None else wait_for.message(wait))
        plain.close()

    async def create(self, count: int, size: int, limit: float, wait: float | None = None) -> dict[str, float]:
        return await desk.timed_creation(lambda some: self._create(some, wait), count, size, limit)

    async def latencies(self, count: int) -> list[float]:
        return await desk.latencies(lambda: self._create(1, None), count)

    def clear(self) -> None:
        for name in (QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ"):
            broker.channel.queue_delete(name)

    async def _create(self, count: int, seconds: float | None) -> None:
        for _ in range(count):
            if seconds is None:
                noop.send()
            else:
                wait_for.send(seconds)


async def talk() -> None:
    await desk.serve(Creator())
