"""Somebody keeps a row locked, as a transaction left open in psql does: all that has nothing to do with it goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from service_tasks.domain.task import State
from service_tasks.task_types import GiveUp, TaskContext, task_type
from service_tasks.task_types.noop import noop

Locked = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def locked(bench) -> Locked:
    """Give a function that keeps the rows of a table that fit a condition locked meanwhile."""

    @contextmanager
    def lock(rows: str) -> Iterator[None]:
        with bench.database.engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            assert connection.exec_driver_sql(f"SELECT FROM {rows} FOR UPDATE").rowcount > 0
            yield
            connection.rollback()

    return lock


@pytest.mark.parametrize("end", ["returns", "gives up"])
def test_outcomes_and_progress_do_not_wait_for_a_task_that_is_locked(bench, locked, start_worker, end):
    goes_on = threading.Event()

    @task_type("talks")
    async def talks(ctx: TaskContext, payload: object) -> str:
        spoken = 0
        while not goes_on.is_set():
            spoken += 1
            ctx.progress(spoken % 100)
            await asyncio.sleep(0.01)
        if end == "gives up":
            raise GiveUp("said enough")
        return "said"

    worker = start_worker(talks, noop)
    task_id, other = bench.add("talks"), bench.add("talks")
    for one in (task_id, other):
        bench.wait_for(one, State.RUNNING)

    with locked(f"tasks WHERE id = '{task_id}'"):
        for _ in range(3):
            bench.wait_for(bench.add(), State.COMPLETED)
        goes_on.set()
        bench.wait_for(other, State.COMPLETED if end == "returns" else State.FAILED)
        for _ in range(3):
            bench.wait_for(bench.add(), State.COMPLETED)
        assert bench.get(task_id).state is State.RUNNING
        assert (worker.worker.unwritten(), worker.worker.held) == (1, 1)

    task = bench.wait_for(task_id, State.COMPLETED, State.FAILED)
    assert (task.attempts, task.state) == (1, State.COMPLETED if end == "returns" else State.FAILED)
