"""Runs claimed tasks and makes their outcomes: async handlers on the loop, plain functions on threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from service_tasks.domain.retry import Exhausted, RetryPolicy, after_failure
from service_tasks.domain.task import (
    MAX_RESULT_BYTES,
    AttemptError,
    FailedForGood,
    HandedBack,
    Lease,
    LostTask,
    Outcome,
    StoppedAfterCancel,
    Succeeded,
    WillRetry,
)
from service_tasks.engine.active_tasks import ActiveTask, Ended, StopReason
from service_tasks.engine.context import GiveUp, RetryAfter, TaskStopped
from service_tasks.engine.registry import BadPayload, BadResult
from service_tasks.engine.traces import trace_of
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import draw
from servicekit.process.lifecycle import end_if_forked
from servicekit.web.schemas import invalid_from
from servicekit.wire.envelope import dump
from servicekit.wire.errors import InvalidJson
from servicekit.wire.json_reader import check_storable

_log = get_logger(__name__)

#: Frames of this file tell nothing about a handler.
_ENGINE_FILES = frozenset({__file__})

#: outcomes are handed on at this number even while more handlers wait to run
HAND_ON = 500
#: How long a handler may clean up once it is told to stop, in seconds; then its task ends without it. Less than a
#: rescuer waits.
STOPPING_SECONDS = 10.0


class ThreadSlots:
    """Runs plain functions on at most `capacity` threads. A function that outlives its task (it timed out, or was
    cancelled and does not check `ctx.cancelled`) keeps its slot until it returns."""

    def __init__(self, capacity: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: set[Lease] = set()
        self._abandoned: dict[Lease, float] = {}

    def free(self) -> int:
        return max(0, self.capacity - len(self._running))

    def take(self, key: Lease) -> None:
        """Take a slot at the claim, before any thread runs."""
        with self._lock:
            self._running.add(key)

    def give_back(self, key: Lease) -> None:
        with self._lock:
            self._running.discard(key)
            self._abandoned.pop(key, None)

    def abandon(self, key: Lease) -> None:
        """Note that the task is over while its function still runs; no effect if that has returned."""
        with self._lock:
            if key in self._running:
                self._abandoned[key] = self._monotonic()

    def hung(self, for_seconds: float) -> int:
        """How many threads still run a function this long after its task was over."""
        before = self._monotonic() - for_seconds
        with self._lock:
            return sum(1 for since in self._abandoned.values() if since <= before)


class _NotHeld(Exception):
    """The task may have been taken before its handler began, and even be finished elsewhere."""


class _Lane:
    """An asyncio task that runs handlers. `handler` is that asyncio task; `task` is the task it runs now."""

    __slots__ = ("handler", "stopping", "task", "timed_out", "timer", "waits")

    def __init__(self) -> None:
        self.handler: asyncio.Task[None] | None = None
        self.task: ActiveTask | None = None
        #: the handler of `task` has waited
        self.waits = False
        self.timed_out = False
        self.stopping = False
        self.timer: asyncio.TimerHandle | None = None

    def runs(self, task: ActiveTask) -> bool:
        return self.task is task


class Runner:
    """Runs handlers and passes their outcomes to `end`.

    Most of the cost of an asyncio task per handler is its creation, two turns of the loop and a timer; a handler that
    never waits needs none of these. So a lane, which is one asyncio task, runs handlers one after another until one of
    them waits. That one keeps the lane, now with a deadline and cancellable, and a new lane goes on with the rest. No
    handler is affected by another: a lane ends with the first handler that has waited, was cancelled or has changed a
    context variable.

    Everything but plain functions runs on the event loop's thread, unless stated otherwise.
    """

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        threads: ThreadSlots,
        on_thread_free: Callable[[], None],
        holds: Callable[[int, float], bool],
        end: Callable[[list[Ended]], None],
        on_idle: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = draw,
    ) -> None:
        """`end` gets tasks with their outcomes, None if the lease is lost and there is none to write. `on_idle` is
        called once every task taken has been started. `holds` is the heartbeat's."""
        self._policy = policy
        self.threads = threads
        self._on_thread_free = on_thread_free
        self._holds = holds
        self._end = end
        self._on_idle = on_idle
        self._monotonic = monotonic
        self._chance = chance
        self._queue: deque[ActiveTask] = deque()
        self._ended: list[Ended] = []
        #: the lane whose first steps are running, or come next
        self._new_lane: _Lane | None = None
        # The loop keeps only weak references.
        self._handlers: dict[asyncio.Task[None], _Lane] = {}
        #: when the last handler began
        self.begun_at = 0.0

    def take(self, tasks: Iterable[ActiveTask]) -> None:
        """Keep these until `start` runs them, in this order; call it from any thread."""
        self._queue.extend(tasks)

    def start(self) -> None:
        """Run what was taken."""
        if self._queue and self._new_lane is None:
            self._open_lane()

    def unstarted(self) -> int:
        """How many tasks wait for the event loop; call it from any thread."""
        return len(self._queue)

    def under_way(self, loop: asyncio.AbstractEventLoop) -> ActiveTask | None:
        """The task whose handler occupies this loop now, if any; call it from any thread."""
        current = asyncio.current_task(loop)
        lane = None if current is None else self._handlers.get(current)
        return None if lane is None else lane.task

    def give_up_unstarted(self) -> list[Ended]:
        """Give up tasks that wait for the event loop; return them with their outcomes. Call it from any thread."""
        given: list[Ended] = []
        while True:
            try:
                task = self._queue.pop()
            except IndexError:
                return given
            if not task.type.is_async:
                self.threads.give_back(task.lease)
            given.append((task, HandedBack(task.lease) if task.stop_reason is None else _stopped(task)))

    def cut_off(self, task: ActiveTask, *, counts: bool) -> Outcome | None:
        """The outcome of a handler that did not stop in time when told to; call it from any thread."""
        if task.stop_reason is StopReason.HAND_BACK and counts:
            return self._failed(task, WorkerLost("its worker had to end, and it did not stop when it was told to"))
        return _stopped(task)

    def _open_lane(self) -> None:
        loop = asyncio.get_running_loop()
        lane = self._new_lane = _Lane()
        lane.handler = loop.create_task(self._work(lane))
        self._handlers[lane.handler] = lane
        lane.handler.add_done_callback(self._handlers.pop)
        # Runs right after the lane's first step, when the lane has ended or its handler waits.
        loop.call_soon(self._after_first_step, lane)

    def _after_first_step(self, lane: _Lane) -> None:
        self._new_lane = None
        if lane.task is not None:
            self._hold(lane, lane.task)
        self._hand_on()
        if self._queue:
            self._open_lane()
        else:
            self._on_idle()

    def _hold(self, lane: _Lane, task: ActiveTask) -> None:
        """The handler waits: give it a deadline, and a way to be cancelled."""
        lane.waits = True
        loop = asyncio.get_running_loop()
        lane.timer = loop.call_later(task.claimed.timeout_seconds, self._time_out, lane, task)
        # ActiveTask.stop sets the reason, then reads this; here it is the reverse, so one sees the other.
        task.cancel_handler = lambda: self._cancel_on(loop, lane, task)
        if task.stop_reason is not None:
            self._cancel(lane, task)

    def _time_out(self, lane: _Lane, task: ActiveTask) -> None:
        lane.timed_out = True
        task.context._request_stop()
        self._cancel(lane, task)

    def _cancel(self, lane: _Lane, task: ActiveTask) -> None:
        if not lane.runs(task) or lane.handler is None:
            return
        lane.handler.cancel()
        if not lane.stopping:
            lane.stopping = True
            if lane.timer is not None:
                lane.timer.cancel()
            lane.timer = asyncio.get_running_loop().call_later(STOPPING_SECONDS, self._abandon, lane, task)

    def _cancel_on(self, loop: asyncio.AbstractEventLoop, lane: _Lane, task: ActiveTask) -> None:
        try:
            loop.call_soon_threadsafe(self._cancel, lane, task)
        except RuntimeError:
            # The loop is closed, and every handler has ended.
            return

    def _abandon(self, lane: _Lane, task: ActiveTask) -> None:
        """End the task of a handler that ignores its cancel; what the handler does from now on has no effect."""
        if not lane.runs(task) or lane.handler is None:
            return
        _log.warning("handler_does_not_stop", task_id=str(task.lease.task_id), task_type=task.type.name)
        lane.task = None
        task.cancel_handler = None
        task.ran_seconds = self._monotonic() - task.started_at
        self._ended.append((task, self._judged(lane, task, asyncio.CancelledError())))
        self._hand_on()
        lane.handler.cancel()

    def _hand_on(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            self._end(ended)

    async def _work(self, lane: _Lane) -> None:
        queue, clean = self._queue, copy_context()
        while queue:
            try:
                task = lane.task = queue.popleft()
            except IndexError:
                # It was given up meanwhile.
                return
            outcome = await self._outcome(lane, task)
            if lane.task is not task:
                # Its task ended long ago.
                return
            task.ran_seconds = self._monotonic() - task.started_at
            lane.task = None
            self._ended.append((task, outcome))
            if lane.waits:
                if lane.timer is not None:
                    lane.timer.cancel()
                # From now on stopping the task has nothing to cancel.
                task.cancel_handler = None
                self._hand_on()
                return
            if len(self._ended) >= HAND_ON:
                self._hand_on()
            if _is_marked(lane, clean):
                return

    async def _outcome(self, lane: _Lane, task: ActiveTask) -> Outcome | None:
        outcome: Outcome
        task.started_at = self.begun_at = self._monotonic()
        kind = task.type
        try:
            if task.stop_reason is not None:
                raise TaskStopped
            payload = self._payload(task)
            if kind.is_async:
                self._check_hold(task)
                result = await kind.function(task.context, payload)
            else:
                result = await self._on_thread(task, payload)
            if result is None and kind.result_model is None:
                outcome = Succeeded(task.lease, "null")
            else:
                outcome = Succeeded(task.lease, _json_text(kind.checked_result(result)))
        except _NotHeld:
            # If no other worker has taken it yet, its lease is valid and it becomes ready again.
            return HandedBack(task.lease)
        except BaseException as exc:  # whatever a handler raises is the attempt's error and must not end the worker
            end_if_forked()
            return self._judged(lane, task, exc)
        finally:
            if not kind.is_async and not task.thread_started:
                self.threads.give_back(task.lease)
        end_if_forked()
        return _stopped(task) if task.is_over else outcome

    def _judged(self, lane: _Lane, task: ActiveTask, exc: BaseException) -> Outcome | None:
        """The outcome of an attempt that ended with this error, of which only the type can be trusted."""
        kind = type(exc)
        if issubclass(kind, GiveUp) and not task.is_over:
            return FailedForGood(task.lease, _error_of(exc))
        if task.stop_reason is not None:
            return _stopped(task)
        if lane.timed_out and issubclass(kind, asyncio.CancelledError):
            late = TimedOut(f"ran longer than its {task.claimed.timeout_seconds:g} seconds")
            # Its traceback shows where the handler was.
            late.__cause__ = exc
            exc = late
        return self._failed(task, exc)

    def _check_hold(self, task: ActiveTask) -> None:
        """Called right before the handler begins."""
        if not self._holds(task.term, self._monotonic()):
            raise _NotHeld

    def _failed(self, task: ActiveTask, exc: BaseException) -> Outcome:
        # The database's time of the claim plus the time elapsed here, so that a wrong wall clock does not matter.
        now = task.claimed.claimed_at + timedelta(seconds=self._monotonic() - task.started_at)
        claimed = task.claimed
        return _after(
            task.lease,
            claimed.attempt,
            claimed.max_attempts,
            _error_of(exc),
            now,
            self._chance(),
            task.type.retry or self._policy,
            _seconds_of(exc),
        )

    def _payload(self, task: ActiveTask) -> Any:
        text = task.claimed.payload
        if text == "{}" and task.type.payload_model is None:
            return {}
        try:
            return task.type.parse(text)
        except ValidationError as exc:
            # Fails like any other attempt: a newer model accepted the payload, and the next worker may have it.
            raise BadPayload(invalid_from(exc, "payload").message) from exc

    async def _on_thread(self, task: ActiveTask, payload: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        key = task.lease

        def settle(result: Any, error: BaseException | None) -> None:
            # Passed as a value: a future cannot hold every exception (StopIteration).
            if not future.done():
                future.set_result((result, error))

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                self._check_hold(task)
                result = task.type.function(task.context, payload)
            except BaseException as exc:  # SystemExit included, or it would vanish with the thread
                error = exc
            end_if_forked()
            self.threads.give_back(key)
            self._on_thread_free()
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                # The loop is closed: the worker has ended and handed the task back.
                return

        task.thread_started = True
        # Daemon threads: a function that hangs must not keep the process from ending.
        threading.Thread(target=work, name=f"task-{task.lease.task_id}", daemon=True).start()
        try:
            result, error = await future
        except asyncio.CancelledError:
            self.threads.abandon(key)
            task.context._request_stop()
            raise
        if error is not None:
            raise error
        return result


def _is_marked(lane: _Lane, clean: Context) -> bool:
    """Whether the last handler left traces that the next one would see."""
    assert lane.handler is not None
    return lane.handler.cancelling() > 0 or copy_context() != clean


class TimedOut(Exception):
    """The handler took longer than the task allows."""


class WorkerLost(Exception):
    """The worker that ran the task fell silent."""


def _after(
    lease: Lease,
    attempt: int,
    max_attempts: int,
    error: AttemptError,
    now: datetime,
    chance: float,
    policy: RetryPolicy,
    retry_after: float | None = None,
) -> Outcome:
    verdict = after_failure(
        attempt=attempt, max_attempts=max_attempts, now=now, chance=chance, policy=policy, retry_after=retry_after
    )
    if isinstance(verdict, Exhausted):
        return FailedForGood(lease, error)
    return WillRetry(lease, verdict.when, error)


def decide_lost(task: LostTask, chance: float, policy: RetryPolicy) -> Outcome:
    """The outcome of a task taken from its worker. The attempt counts, because a task that kills its worker each time
    must not run for ever. But while another task of that worker may be to blame, it gets the attempt back, and runs
    with at most a third as many of these the next time. The number of suspects at least halves each time, so a task
    gets its attempt back at most log2(n) times, n being the number of tasks that a worker holds."""
    if task.overdue:
        error = AttemptError(TimedOut.__name__, "ran past its deadline, and its worker did not stop it")
        return _after(task.lease, task.attempt, task.max_attempts, error, task.lost_at, chance, policy)
    suspects = task.company if task.suspects is None else min(task.company, task.suspects // 2)
    if suspects <= 1:
        error = AttemptError(WorkerLost.__name__, "the worker that ran it stopped answering")
        outcome = _after(task.lease, task.attempt, task.max_attempts, error, task.lost_at, chance, policy)
        if isinstance(outcome, WillRetry) and task.suspects is not None:
            return replace(outcome, suspects=1)
        return outcome
    error = AttemptError(
        WorkerLost.__name__,
        f"the worker that ran it stopped answering; one of {suspects} tasks may be why, so this attempt does not count",
    )
    return WillRetry(task.lease, task.lost_at + policy.delay(task.attempt, chance), error, suspects)


def _stopped(task: ActiveTask) -> Outcome | None:
    """The outcome of a handler that ended because it was told to."""
    if task.stop_reason is StopReason.HAND_BACK:
        return HandedBack(task.lease)
    if task.stop_reason is StopReason.CANCELLED:
        return StoppedAfterCancel(task.lease)
    return None


def _error_of(exc: BaseException) -> AttemptError:
    return AttemptError.of(exc, trace_of(exc, without=_ENGINE_FILES))


def _seconds_of(exc: BaseException) -> float | None:
    """The seconds of a RetryAfter; None if a subclass broke them."""
    if not issubclass(type(exc), RetryAfter):
        return None
    try:
        return RetryAfter(exc.seconds).seconds  # type: ignore[attr-defined]
    except BaseException:  # a subclass may do anything when its attributes are read
        return None


def _json_text(result: Any) -> str:
    try:
        raw = dump(result)
    except (TypeError, ValueError, RecursionError) as exc:
        if inspect.iscoroutine(result):
            # A coroutine that nothing will await.
            result.close()
        raise BadResult(f"the result is not JSON: {exc}") from exc
    if len(raw) > MAX_RESULT_BYTES:
        raise BadResult(f"the result has {len(raw)} bytes; {MAX_RESULT_BYTES} are allowed")
    text = raw.decode("utf-8")
    if text != "null":
        try:
            check_storable(text, MAX_RESULT_BYTES)
        except InvalidJson as exc:
            raise BadResult(f"the result cannot be stored: {exc}") from exc
    return text
