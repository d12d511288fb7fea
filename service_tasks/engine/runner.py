"""Runs one claimed task to its outcome: an async handler on the loop, a plain function on a thread."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
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
from service_tasks.engine.board import ActiveTask, StopReason
from service_tasks.engine.context import GiveUp, RetryAfter, TaskStopped
from service_tasks.engine.registry import BadResult
from service_tasks.engine.traces import trace_of
from servicekit.envelope import dump
from servicekit.errors import InvalidJson
from servicekit.json_reader import read_json

#: Frames of these files say nothing about a handler.
_ENGINE_FILES = frozenset({__file__, asyncio.timeouts.__file__})


class ThreadSlots:
    """Plain functions run on at most `capacity` threads. A function that outlives its task (it timed out or
    was cancelled and does not look at `ctx.cancelled`) keeps its slot until it returns."""

    def __init__(self, capacity: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: set[Lease] = set()
        self._abandoned: dict[Lease, float] = {}

    def free(self) -> int:
        return max(0, self.capacity - len(self._running))

    def take(self, key: Lease) -> None:
        """Called when the task is claimed, before any thread runs."""
        with self._lock:
            self._running.add(key)

    def give_back(self, key: Lease) -> None:
        with self._lock:
            self._running.discard(key)
            self._abandoned.pop(key, None)

    def abandon(self, key: Lease) -> None:
        """The task is over, its function not yet. Nothing happens when it has returned meanwhile."""
        with self._lock:
            if key in self._running:
                self._abandoned[key] = self._monotonic()

    def hung(self, for_seconds: float) -> int:
        """Threads whose function has gone on for that long after its task was over."""
        before = self._monotonic() - for_seconds
        with self._lock:
            return sum(1 for since in self._abandoned.values() if since <= before)


class Runner:
    """Makes outcomes; reports nothing itself."""

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        threads: ThreadSlots,
        on_thread_free: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self.threads = threads
        self._on_thread_free = on_thread_free
        self._monotonic = monotonic
        self._chance = chance

    async def run(self, task: ActiveTask) -> Outcome | None:
        """None: the lease is lost and there is nothing left to say."""
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        assert current is not None
        # Set here and not by whoever starts us: a task cancelled before its first step would never run at
        # all. Whoever stops the task sets the reason first and looks for this second; we do the reverse.
        task.cancel_handler = lambda: _cancel_on(loop, current)
        started = self._monotonic()
        try:
            return await self._outcome(task, started)
        finally:
            if not task.type.is_async and not task.thread_started:
                self.threads.give_back(task.lease)

    async def _outcome(self, task: ActiveTask, started: float) -> Outcome | None:
        outcome: Outcome
        try:
            result = await self._call(task, self._payload(task))
            outcome = Succeeded(task.lease, _json_text(task.type.checked_result(result)))
        except GiveUp as exc:
            outcome = FailedForGood(task.lease, _error_of(exc))
        except (asyncio.CancelledError, TaskStopped) as exc:
            if task.stop_reason is not None:
                return _stopped(task)
            outcome = self._failed(task, exc, started)
        except Exception as exc:  # a handler may raise whatever it likes: that is the attempt's error
            if task.stop_reason is not None:
                return _stopped(task)
            outcome = self._failed(task, exc, started)
        if task.stop_reason in (StopReason.CANCELLED, StopReason.LEASE_LOST):
            return _stopped(task)
        return outcome

    def _failed(self, task: ActiveTask, exc: BaseException, started: float) -> Outcome:
        # The database's clock when the task was claimed, plus our own elapsed time: a worker whose wall
        # clock is an hour off still asks for the right moment.
        now = task.claimed.claimed_at + timedelta(seconds=self._monotonic() - started)
        claimed = task.claimed
        return _after(
            task.lease,
            claimed.attempt,
            claimed.max_attempts,
            _error_of(exc),
            now,
            self._chance(),
            task.type.retry or self._policy,
            exc.seconds if isinstance(exc, RetryAfter) else None,
        )

    def _payload(self, task: ActiveTask) -> Any:
        try:
            return task.type.parse(task.claimed.payload)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(part) for part in ("payload", *first["loc"]))
            raise GiveUp(f"{field}: {first['msg']}") from exc

    async def _call(self, task: ActiveTask, payload: Any) -> Any:
        seconds = task.claimed.timeout_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                if task.stop_reason is not None:
                    raise TaskStopped
                if task.type.is_async:
                    return await task.type.function(task.context, payload)
                return await self._on_thread(task, payload)
        except TimeoutError as exc:
            task.context._request_stop()
            if limit.expired():
                # The cause tells where the handler was.
                raise TimedOut(f"ran longer than its {seconds:g} seconds") from exc
            raise

    async def _on_thread(self, task: ActiveTask, payload: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        key = task.lease

        def settle(result: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = task.type.function(task.context, payload)
            except StopIteration as exc:
                # A future cannot carry this one; see asyncio.Future.set_exception.
                error = RuntimeError(f"StopIteration: {exc}")
            except BaseException as exc:  # SystemExit too must not vanish with the thread
                error = exc if isinstance(exc, Exception) else RuntimeError(f"{type(exc).__name__}: {exc}")
            self.threads.give_back(key)
            self._on_thread_free()
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                # The loop is closed: the worker has ended, and has handed the task back.
                return

        task.thread_started = True
        # Daemon threads: a function that hangs must not keep the process from ending.
        threading.Thread(target=work, name=f"task-{task.lease.task_id}", daemon=True).start()
        try:
            return await future
        except asyncio.CancelledError:
            self.threads.abandon(key)
            task.context._request_stop()
            raise


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        # The loop is closed, and with it every handler.
        return


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
    """What becomes of a task taken from its worker. The attempt counts: a task that kills its worker each
    time must not go round for ever."""
    if task.overdue:
        error = AttemptError(TimedOut.__name__, "ran past its deadline, and its worker did not stop it")
    else:
        error = AttemptError(WorkerLost.__name__, "the worker that ran it stopped answering")
    return _after(task.lease, task.attempt, task.max_attempts, error, task.lost_at, chance, policy)


def _stopped(task: ActiveTask) -> Outcome | None:
    """What there is to say of a handler that ended because it was told to."""
    if task.stop_reason is StopReason.HAND_BACK:
        return HandedBack(task.lease)
    if task.stop_reason is StopReason.CANCELLED:
        return StoppedAfterCancel(task.lease)
    return None


def _error_of(exc: BaseException) -> AttemptError:
    return AttemptError.of(exc, trace_of(exc, without=_ENGINE_FILES))


def _json_text(result: Any) -> str:
    try:
        raw = dump(result)
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadResult(f"the result is not JSON: {exc}") from exc
    if len(raw) > MAX_RESULT_BYTES:
        raise BadResult(f"the result has {len(raw)} bytes; {MAX_RESULT_BYTES} are allowed")
    if raw != b"null":
        try:
            # Whatever our own strict reader refuses, PostgreSQL or the API would stumble over later.
            read_json(raw)
        except InvalidJson as exc:
            raise BadResult(f"the result cannot be stored: {exc}") from exc
    return raw.decode("utf-8")
