"""The watchers of tasks, and the one statement that polls for all of them.

Everything runs on one event loop, except the statement itself, which runs on a thread. There are no queues: a watcher
reads the newest state when it gets to it, so a slow one skips states in between and costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from service_tasks.domain.watched import Watch, WatchedTask, version_after
from service_tasks.errors import TaskNotFound, TooManyWatchers
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import backoff, jittered
from servicekit.wire.errors import AppError, DeadlineExceeded, Unavailable

#: Returns the tasks whose `updated_at` differs from the one given, None for a missing one. Blocks.
Look = Callable[[Mapping[Watch, datetime | None]], dict[Watch, WatchedTask | None]]

#: Watchers that join within this time, in seconds, share a statement.
GATHER_SECONDS = 0.02
#: The first and the longest pause between attempts while the database is away, in seconds.
AWAY_SECONDS = (0.1, 2.0)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """The newest known state of a task; `gone` once its record was removed, `task` then being its last state."""

    task: WatchedTask
    version: int
    gone: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing can follow."""
        return self.gone or self.task.has_ended


class _Topic:
    """A watched task."""

    __slots__ = ("fault", "newest", "watchers")

    def __init__(self) -> None:
        self.watchers: set[TaskWatcher] = set()
        self.newest: TaskSnapshot | None = None
        #: Why there is no first snapshot.
        self.fault: AppError | None = None

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.woken.set()


class TaskWatcher:
    """One stream's view of its task, as a context manager."""

    def __init__(self, feed: Feed, watch: Watch) -> None:
        self._feed = feed
        self._watch = watch
        self._topic: _Topic
        self.woken = asyncio.Event()

    def __enter__(self) -> Self:
        self._topic = self._feed.join(self, self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.leave(self, self._watch, self._topic)

    @property
    def closing(self) -> bool:
        """Whether the process is about to end, so that clients should reconnect."""
        return self._feed.closing

    async def first(self, seconds: float) -> TaskSnapshot:
        """The task's present state. Raises TaskNotFound, Unavailable, or DeadlineExceeded after `seconds`."""
        topic = self._topic
        try:
            async with asyncio.timeout(seconds):
                while topic.newest is None and topic.fault is None and not self.closing:
                    self.woken.clear()
                    await self.woken.wait()
        except TimeoutError as exc:
            raise DeadlineExceeded from exc
        if self.closing:
            raise Unavailable(retry_after=1)
        if topic.fault is not None:
            # All waiting watchers raise the same exception, which must not collect their tracebacks.
            raise topic.fault.with_traceback(None)
        assert topic.newest is not None
        if topic.newest.gone:
            raise TaskNotFound
        return topic.newest

    async def after(self, version: int, seconds: float) -> TaskSnapshot | None:
        """The newest state once it differs from `version`; None after `seconds`, or if `closing`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.closing:
                    newest = self._topic.newest
                    if newest is not None and newest.version != version:
                        return newest
                    self.woken.clear()
                    await self.woken.wait()
        return None


class Feed:
    """Polls all watched tasks together every `interval` seconds, while there are any."""

    def __init__(self, look: Look, *, interval: float, limit: int) -> None:
        """`limit` is the most watchers at once."""
        self._look = look
        self._interval = interval
        self._limit = limit
        self._topics: dict[Watch, _Topic] = {}
        self._look_now = asyncio.Event()
        # One thread, so one statement at a time, however slow the database is.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._failures = 0
        self.closing = False
        self.watchers = 0
        #: The number of statements sent.
        self.looks = 0

    @property
    def tasks(self) -> int:
        """How many different tasks are watched."""
        return len(self._topics)

    def join(self, watcher: TaskWatcher, watch: Watch) -> _Topic:
        if self.watchers >= self._limit:
            raise TooManyWatchers(retry_after=1)
        topic = self._topics.get(watch)
        if topic is None or topic.fault is not None:
            topic = self._topics[watch] = _Topic()
            self._look_now.set()
        topic.watchers.add(watcher)
        self.watchers += 1
        return topic

    def leave(self, watcher: TaskWatcher, watch: Watch, topic: _Topic) -> None:
        topic.watchers.remove(watcher)
        self.watchers -= 1
        if not topic.watchers and self._topics.get(watch) is topic:
            del self._topics[watch]

    def look_now(self) -> None:
        """Poll now, because a change was announced."""
        if self._topics:
            self._look_now.set()

    def close(self) -> None:
        """End every stream and refuse new watchers."""
        self.closing = True
        for topic in self._topics.values():
            topic.wake()

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                await self._until_due()
                await self._look_once()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _until_due(self) -> None:
        if self._failures:
            # New watchers may end the pause early, but many of them must not cause many attempts.
            await asyncio.sleep(AWAY_SECONDS[0])
            pause = jittered(backoff(self._failures, *AWAY_SECONDS))
        else:
            await asyncio.sleep(min(GATHER_SECONDS, self._interval))
            pause = self._interval
        with suppress(TimeoutError):
            async with asyncio.timeout(pause if self._topics else None):
                await self._look_now.wait()

    async def _look_once(self) -> None:
        self._look_now.clear()
        # A task that is gone stays gone: ids are never reused.
        asked = {key: topic for key, topic in self._topics.items() if topic.newest is None or not topic.newest.gone}
        if not asked:
            return
        seen = {key: None if topic.newest is None else topic.newest.task.updated_at for key, topic in asked.items()}
        self.looks += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._look, seen)
        except (Unavailable, DeadlineExceeded) as exc:
            self._failed(exc)
            return
        if self._failures:
            _log.info("database_back", duty="feed", failures=self._failures)
            self._failures = 0
        for watch, task in found.items():
            topic = asked[watch]
            # A topic made while the statement ran is polled again.
            if self._topics.get(watch) is topic:
                _update(topic, task)

    def _failed(self, exc: AppError) -> None:
        self._failures += 1
        if self._failures == 1:
            _log.warning("database_away", duty="feed", code=exc.code, cause=repr(exc.__cause__)[:300])
        for topic in self._topics.values():
            # Watchers with a snapshot go on waiting; the others get the error.
            if topic.newest is None:
                topic.fault = exc
                topic.wake()


def _update(topic: _Topic, task: WatchedTask | None) -> None:
    before = topic.newest
    if task is not None:
        topic.newest = TaskSnapshot(task, version_after(task, 0 if before is None else before.version))
    elif before is None:
        topic.fault = TaskNotFound()
    else:
        topic.newest = TaskSnapshot(before.task, before.version + 1, gone=True)
    topic.wake()
