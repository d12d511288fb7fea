"""Handlers share an asyncio task while none of them waits; nothing of one may reach the next."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import (
    ClaimedTask,
    FailedForGood,
    HandedBack,
    Lease,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.active_tasks import ActiveTask, StopReason
from service_tasks.engine.context import GiveUp, TaskContext
from service_tasks.engine.registry import TaskType, task_type
from service_tasks.engine.runner import Runner, ThreadSlots

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
label: ContextVar[str] = ContextVar("label", default="clean")


def on_a_loop(test):
    """Run the test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments, **named):
        return asyncio.run(test(*arguments, **named))

    return run


class Run:
    """A runner and what it made of the tasks it was given."""

    def __init__(self) -> None:
        self.outcomes: dict = {}
        self.idle = 0
        #: the heartbeat's term; None: it has not come through for a lease
        self.term: int | None = 0
        self.runner = Runner(
            policy=RetryPolicy(),
            threads=ThreadSlots(4),
            on_thread_free=lambda: None,
            holds=lambda term, now: term == self.term,
            end=self._end,
            on_idle=self._on_idle,
        )

    def _end(self, ended) -> None:
        for task, outcome in ended:
            self.outcomes[task] = outcome

    def _on_idle(self) -> None:
        self.idle += 1

    def start(self, *types: TaskType, timeout: float = 60.0) -> list[ActiveTask]:
        tasks = []
        for kind in types:
            claimed = ClaimedTask(Lease(uuid4(), 1), kind.name, "{}", 1, 3, timeout, NOW)
            tasks.append(ActiveTask(claimed, kind, TaskContext(claimed, lambda progress: None)))
        self.runner.take(tasks)
        self.runner.start()
        return tasks

    async def ended(self, *tasks: ActiveTask) -> list:
        async with asyncio.timeout(10):
            while not all(task in self.outcomes for task in tasks):
                await asyncio.sleep(0)
        return [self.outcomes[task] for task in tasks]


def result_of(outcome) -> str:
    assert isinstance(outcome, Succeeded), outcome
    return outcome.result


@task_type("who")
async def who(ctx, payload) -> dict[str, object]:
    """Tells which asyncio task runs it, and what it finds there."""
    current = asyncio.current_task()
    assert current is not None
    return {"task": str(id(current)), "label": label.get(), "cancelling": current.cancelling()}


@on_a_loop
async def test_handlers_that_do_not_wait_run_in_their_order_in_one_asyncio_task():
    order = []

    @task_type("note")
    async def note(ctx, payload) -> None:
        order.append((ctx.task_id, asyncio.current_task()))

    run = Run()
    tasks = run.start(*[note] * 50)
    await run.ended(*tasks)

    assert [task_id for task_id, _ in order] == [task.lease.task_id for task in tasks]
    assert len({id(current) for _, current in order}) == 1
    assert run.idle == 1


@on_a_loop
async def test_what_was_claimed_in_a_term_that_has_ended_does_not_begin_and_is_handed_back():
    begun = []

    @task_type("async")
    async def asynchronous(ctx, payload) -> None:
        begun.append(ctx.task_id)

    @task_type("plain")
    def plain(ctx, payload) -> None:
        begun.append(ctx.task_id)

    run = Run()
    run.term = None
    tasks = run.start(asynchronous, plain)
    for task in tasks:
        run.runner.threads.take(task.lease)
    outcomes = await run.ended(*tasks)

    assert outcomes == [HandedBack(task.lease) for task in tasks]
    assert begun == []
    assert run.runner.threads.free() == 3, "the plain function's thread is free; async ones have none"


@on_a_loop
async def test_a_handler_that_waits_holds_up_nobody():
    release = asyncio.Event()

    @task_type("wait")
    async def wait(ctx, payload) -> str:
        await release.wait()
        return "waited"

    run = Run()
    first, second, third = run.start(wait, who, wait)
    await run.ended(second)
    assert (first in run.outcomes, run.runner.unstarted()) == (False, 0)

    release.set()
    assert [result_of(outcome) for outcome in await run.ended(first, third)] == ['"waited"'] * 2


@on_a_loop
async def test_tools_of_asyncio_that_ask_for_the_present_task_work_in_every_handler():
    @task_type("tools")
    async def tools(ctx, payload) -> str:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            inner = group.create_task(asyncio.sleep(0, "inner"))
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(5)
        except TimeoutError:
            return inner.result()
        raise AssertionError("no timeout")

    run = Run()
    outcomes = await run.ended(*run.start(tools, who, tools))

    assert (result_of(outcomes[0]), result_of(outcomes[2])) == ('"inner"', '"inner"')


@on_a_loop
async def test_a_context_variable_of_one_handler_is_not_seen_by_the_next():
    @task_type("leave")
    async def leave(ctx, payload) -> None:
        label.set("dirty")

    run = Run()
    *_, last = await run.ended(*run.start(leave, leave, who))

    assert '"label":"clean"' in result_of(last)
    assert label.get() == "clean"


@on_a_loop
async def test_a_handler_that_cancels_itself_and_goes_does_not_cancel_the_next():
    @task_type("cancel_self")
    async def cancel_self(ctx, payload) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()

    @task_type("breathe")
    async def breathe(ctx, payload) -> str:
        await asyncio.sleep(0)
        return "still here"

    run = Run()
    first, second, third = await run.ended(*run.start(cancel_self, breathe, who))

    assert (result_of(first), result_of(second)) == ("null", '"still here"')
    assert '"cancelling":0' in result_of(third)


@on_a_loop
async def test_a_deadline_ends_a_handler_that_waits():
    @task_type("long")
    async def long(ctx, payload) -> None:
        await asyncio.Event().wait()

    run = Run()
    (task,) = run.start(long, timeout=0.01)
    (outcome,) = await run.ended(task)

    assert isinstance(outcome, WillRetry)
    assert (outcome.error.type, outcome.error.message) == ("TimedOut", "ran longer than its 0.01 seconds")
    assert task.context.cancelled


@on_a_loop
async def test_what_a_handler_returns_in_spite_of_its_deadline_is_kept():
    @task_type("tidy")
    async def tidy(ctx, payload) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved in time"
        raise AssertionError("not cancelled")

    run = Run()
    outcomes = await run.ended(*run.start(tidy, timeout=0.01))

    assert result_of(outcomes[0]) == '"saved in time"'


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (StopReason.CANCELLED, StoppedAfterCancel),
        (StopReason.HAND_BACK, HandedBack),
        (StopReason.LEASE_LOST, type(None)),
    ],
)
@pytest.mark.parametrize("moment", ["before it starts", "in its first step", "while it waits"])
@on_a_loop
async def test_a_handler_can_be_stopped_at_every_moment(reason, outcome, moment):
    tasks: list[ActiveTask] = []

    @task_type("stopped")
    async def stopped(ctx, payload) -> None:
        if moment == "in its first step":
            tasks[0].stop(reason)
        await asyncio.Event().wait()

    run = Run()
    tasks += run.start(stopped, who)
    if moment == "before it starts":
        tasks[0].stop(reason)
    elif moment == "while it waits":
        await run.ended(tasks[1])
        tasks[0].stop(reason)
    found = await run.ended(*tasks)

    assert isinstance(found[0], outcome)
    assert isinstance(found[1], Succeeded)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (StopReason.CANCELLED, StoppedAfterCancel),
        (StopReason.HAND_BACK, FailedForGood),
        (StopReason.LEASE_LOST, type(None)),
    ],
)
@on_a_loop
async def test_a_handler_that_gives_up_when_it_is_stopped_fails_only_a_task_that_is_not_over(reason, outcome):
    @task_type("gives_up")
    async def gives_up(ctx, payload) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise GiveUp("no use") from None

    run = Run()
    gone, other = run.start(gives_up, who)
    await run.ended(other)
    gone.stop(reason)
    (found,) = await run.ended(gone)

    assert isinstance(found, outcome)


@on_a_loop
async def test_a_stop_that_comes_after_the_end_disturbs_nobody():
    @task_type("brief")
    async def brief(ctx, payload) -> None:
        await asyncio.sleep(0)

    run = Run()
    (task,) = run.start(brief)
    await run.ended(task)
    task.stop(StopReason.CANCELLED)
    outcomes = await run.ended(*run.start(brief, who))

    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
