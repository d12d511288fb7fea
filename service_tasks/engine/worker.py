"""One worker process: an event loop for handlers, a thread for each duty, and a graceful stop."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import Outcome
from service_tasks.engine.active_tasks import ActiveTask, ActiveTasks, Ended, StopReason
from service_tasks.engine.canceller import Canceller
from service_tasks.engine.claimer import MOST_UNSTARTED, Claimer
from service_tasks.engine.duties import DatabaseDuty
from service_tasks.engine.heartbeat import Heartbeat
from service_tasks.engine.leader import LEASE_SECONDS, Leadership
from service_tasks.engine.listener import Listener
from service_tasks.engine.loop_watch import LoopWatch
from service_tasks.engine.metrics import WorkerMetrics, since
from service_tasks.engine.ports import (
    AttemptCounts,
    DueStore,
    LeaderStore,
    Load,
    OpenWakeUps,
    PruneStore,
    Retention,
    WorkerInfo,
    WorkerStore,
)
from service_tasks.engine.promoter import Promoter
from service_tasks.engine.pruner import Pruner
from service_tasks.engine.registry import Registry
from service_tasks.engine.reporter import Reporter
from service_tasks.engine.rescuer import Rescuer
from service_tasks.engine.runner import Runner, ThreadSlots
from service_tasks.engine.scheduler import Scheduler
from servicekit.observing.logs import get_logger
from servicekit.process.ids import new_id
from servicekit.process.lifecycle import exit_within, next_order, reset_signals_in_children, say_nothing_is_reloaded
from servicekit.wire.errors import DeadlineExceeded, Unavailable

_log = get_logger(__name__)
_HUNG_SECONDS = 10.0
_STOP_HANDLERS_SECONDS = 2.0
_FLUSH_SECONDS = 10.0
_DUTY_SECONDS = 5.0
#: for the rest of a graceful stop: statements in progress, the last beat
_SLACK_SECONDS = 15.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`concurrency` bounds all tasks held at once, `threads` the plain functions among them. A worker silent for
    `lease_seconds` counts as dead; a leader silent for `leader_lease_seconds` is replaced. `grace_seconds`: how long
    handlers may run after the signal to stop. `retention`: for ever by default."""

    concurrency: int = 5000
    threads: int = 16
    poll_seconds: float = 1.0
    grace_seconds: float = 30.0
    lease_seconds: float = 30.0
    leader_lease_seconds: float = LEASE_SECONDS
    retention: Retention = field(default_factory=lambda: Retention(None, None, None))
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def heartbeat_seconds(self) -> float:
        """Several beats per lease, so that a late or lost beat costs no task."""
        return self.lease_seconds / 6


class Worker:
    """`run` works until a signal comes or `stop` is called (from any thread; the second call hands everything back at
    once), and returns the process's exit status. It can be run once only."""

    def __init__(
        self,
        *,
        store: WorkerStore,
        heartbeat_store: WorkerStore,
        due_store: DueStore,
        leader_store: LeaderStore,
        prune_store: PruneStore,
        open_wake_ups: OpenWakeUps,
        registry: Registry,
        options: WorkerOptions,
    ) -> None:
        """`heartbeat_store` has its own connection."""
        self.info = WorkerInfo(
            id=new_id(),
            name=f"{socket.gethostname()}:{os.getpid()}",
            task_types=registry.names(),
            lease_seconds=options.lease_seconds,
        )
        self._options = options
        self._heartbeat_store = heartbeat_store
        #: made by `run`
        self._loop: asyncio.AbstractEventLoop
        self._loop_may_end = False
        #: orders to stop, with their signal; a SimpleQueue, because signal handlers must not wait for a lock
        self._stops: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._failed = False
        self.metrics = WorkerMetrics(registry.names())
        #: the counts already stored in the database
        self._reported: dict[str, AttemptCounts] = {}
        self._active_tasks = ActiveTasks(options.concurrency)
        self._threads = ThreadSlots(options.threads)
        self._wire_task_duties(store, heartbeat_store, registry)
        self._wire_maintenance(store, due_store, leader_store, prune_store, registry)
        self._listener = Listener(
            open_wake_ups=open_wake_ups,
            claimer=self._claimer,
            promoter=self._promoter,
            scheduler=self._scheduler,
            canceller=self._canceller,
            heartbeat=self._heartbeat,
            on_death=self._die,
        )

    def _wire_task_duties(self, store: WorkerStore, heartbeat_store: WorkerStore, registry: Registry) -> None:
        self._reporter = Reporter(
            store=store,
            worker_name=self.info.name,
            active_tasks=self._active_tasks,
            on_written=self._after_write,
            on_death=self._die,
            metrics=self.metrics,
        )
        self._heartbeat = Heartbeat(
            store=heartbeat_store,
            worker=self.info,
            active_tasks=self._active_tasks,
            reporter=self._reporter,
            seconds=self._options.heartbeat_seconds,
            check_health=self._check_threads,
            on_death=self._die,
            report_load=self._report_load,
            on_lost_claim=self._count_lost_claim,
        )
        self._runner = Runner(
            policy=self._options.policy,
            threads=self._threads,
            on_thread_free=lambda: self._claimer.wake(),
            holds=self._heartbeat.holds,
            end=self._end_tasks,
            on_idle=lambda: self._claimer.slot_freed(),
        )
        self._watch = LoopWatch(
            ask=lambda answer: self._loop.call_soon_threadsafe(answer),
            begun_at=lambda: self._runner.begun_at,
            on_late=self._on_late,
            on_death=self._die,
        )
        self._claimer = Claimer(
            store=store,
            worker_id=self.info.id,
            registry=registry,
            active_tasks=self._active_tasks,
            threads=self._threads,
            reporter=self._reporter,
            term=self._heartbeat.term,
            unstarted=self._unstarted,
            hand_over=self._hand_over,
            poll_seconds=self._options.poll_seconds,
            on_death=self._die,
            metrics=self.metrics,
        )
        self._canceller = Canceller(
            store=store,
            worker_id=self.info.id,
            active_tasks=self._active_tasks,
            reporter=self._reporter,
            on_death=self._die,
        )

    def _wire_maintenance(
        self,
        store: WorkerStore,
        due_store: DueStore,
        leader_store: LeaderStore,
        prune_store: PruneStore,
        registry: Registry,
    ) -> None:
        self._leadership = Leadership(
            store=leader_store,
            worker_id=self.info.id,
            on_elected=self._after_election,
            on_death=self._die,
            lease_seconds=self._options.leader_lease_seconds,
        )
        leads = self._leadership.leads
        self._promoter = Promoter(
            store=store,
            leads=leads,
            poll_seconds=self._options.poll_seconds,
            on_promoted=self._claimer.wake,
            on_death=self._die,
            metrics=self.metrics,
        )
        self._rescuer = Rescuer(
            store=store,
            leads=leads,
            worker_name=self.info.name,
            lease_seconds=self._options.lease_seconds,
            registry=registry,
            policy=self._options.policy,
            on_death=self._die,
            metrics=self.metrics,
        )
        self._scheduler = Scheduler(
            store=due_store,
            leads=leads,
            poll_seconds=self._options.poll_seconds,
            on_made=self._claimer.wake,
            on_death=self._die,
            metrics=self.metrics,
        )
        self._pruner = Pruner(
            store=prune_store,
            retention=self._options.retention,
            leads=leads,
            on_death=self._die,
            metrics=self.metrics,
        )
        #: done by the leader only, for all workers
        self._maintenance = (self._promoter, self._rescuer, self._scheduler, self._pruner)

    @property
    def held(self) -> int:
        """The number of tasks that this worker holds."""
        return len(self._active_tasks)

    def load(self) -> Load:
        """How many tasks it may hold, and does hold."""
        threads = self._threads.capacity
        return Load(self._active_tasks.slots, self.held, threads, threads - self._threads.free())

    def hung_threads(self) -> int:
        """How many threads still run a function long after its task was over."""
        return self._threads.hung(_HUNG_SECONDS)

    def loop_lag(self) -> float:
        """Seconds for which the event loop has neither turned nor begun a handler."""
        return self._watch.lag()

    def unwritten(self) -> int:
        """How many outcomes the database does not have yet."""
        return self._reporter.unwritten()

    def leads(self) -> bool:
        """Whether it has the maintenance duties."""
        return self._leadership.leads()

    def heartbeat_age(self) -> float | None:
        """Seconds since the last heartbeat that arrived; None before the first."""
        return self._heartbeat.age()

    def away(self) -> dict[str, bool]:
        """For each duty, whether it found the database away at its last run."""
        return {duty.name: duty.is_away for duty in self._duties()}

    def run(self, *, handle_signals: bool = True) -> int:
        """`handle_signals`: the process is the worker's own; call it on the main thread.

        The event loop has its own thread, so that no handler can hold up the end of the worker, whatever it does to the
        loop, its executor or signals.
        """
        if handle_signals:
            reset_signals_in_children()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, _frame: self._stops.put(number))
            signal.signal(signal.SIGHUP, lambda *_: say_nothing_is_reloaded())
        self._loop = asyncio.new_event_loop()
        handlers = threading.Thread(target=self._run_loop, name="handlers", daemon=True)
        handlers.start()
        try:
            return self._live(own_process=handle_signals)
        finally:
            self._watch.stop()
            self._loop_may_end = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            handlers.join(_STOP_HANDLERS_SECONDS)

    def stop(self) -> None:
        self._stops.put(None)

    def _live(self, *, own_process: bool) -> int:
        # The worker's row comes before its first claim: a running task without a living worker counts as lost.
        registered = False
        while not registered and self._stops.empty():
            registered = self._register()
        if registered and self._stops.empty():
            self._watch.start()
            for duty in self._duties():
                duty.start()
            _log.info(
                "worker_started",
                worker=self.info.name,
                task_types=list(self.info.task_types),
                concurrency=self._options.concurrency,
            )
        number = next_order(self._stops)
        if number is not None:
            _log.info("signal_received", signal=signal.Signals(number).name)
        if own_process:
            exit_within(
                self._options.grace_seconds + _STOP_HANDLERS_SECONDS + _FLUSH_SECONDS + _SLACK_SECONDS, status=1
            )
        if registered:
            self._drain()
            self._deregister()
        _log.info("worker_stopped", worker=self.info.name, failed=self._failed)
        return 1 if self._failed else 0

    def _run_loop(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        # Not asyncio's default one, which it would wait for: handlers may fill it with functions that never end.
        executor = ThreadPoolExecutor(thread_name_prefix="to_thread")
        loop.set_default_executor(executor)
        while not self._loop_may_end:
            try:
                loop.run_forever()
            except BaseException:  # raised by a task that a handler made: SystemExit and the like leave the loop
                _log.exception("event_loop_interrupted", worker=self.info.name)
        executor.shutdown(wait=False, cancel_futures=True)
        loop.close()

    def _duties(self) -> list[DatabaseDuty]:
        return [
            self._heartbeat,
            self._reporter,
            self._canceller,
            self._listener,
            self._leadership,
            *self._maintenance,
            self._claimer,
        ]

    def _register(self) -> bool:
        """Return True once the worker's row is written; while the database is away, wait for the duty's pause."""
        self._heartbeat.run_once(datetime.now(UTC))
        if self._heartbeat.is_away:
            self._heartbeat.pause_after_failure()
            return False
        return True

    def _after_election(self) -> None:
        for duty in self._maintenance:
            duty.wake()

    def _die(self) -> None:
        """A duty has died: stop gracefully, so that the supervisor starts a new worker."""
        self._failed = True
        self.stop()

    def _check_threads(self) -> None:
        hung = self._threads.hung(_HUNG_SECONDS)
        if hung * 2 > self._threads.capacity and not self._failed:
            _log.error("threads_hang", hung=hung, threads=self._threads.capacity)
            self._die()

    def _on_late(self, lag: float, first: bool) -> None:
        """The event loop is blocked: hand back tasks that wait for it; those that have begun must stay."""
        handed_back = self._hand_back_unstarted()
        blocking = self._runner.under_way(self._loop)
        if handed_back or first:
            _log.warning(
                "event_loop_late",
                seconds=round(lag, 1),
                handed_back=handed_back,
                task_id=blocking and str(blocking.lease.task_id),
                task_type=blocking and blocking.type.name,
            )
        if blocking is None or self._failed or lag < _HUNG_SECONDS:
            return
        overdue = time.monotonic() - blocking.started_at - blocking.claimed.timeout_seconds
        if blocking.is_over or overdue > _HUNG_SECONDS:
            # Its task is over, but nothing can stop the handler, as with threads.
            _log.error("event_loop_hangs", task_id=str(blocking.lease.task_id), task_type=blocking.type.name)
            self._die()

    def _unstarted(self) -> int:
        # A late loop gets no more tasks.
        return MOST_UNSTARTED if self._watch.is_late() else self._runner.unstarted()

    def _after_write(self, retried: bool) -> None:
        self._claimer.slot_freed()
        if retried:
            self._promoter.wake()

    # Handlers

    def _hand_over(self, tasks: list[ActiveTask]) -> None:
        self._runner.take(tasks)
        try:
            self._loop.call_soon_threadsafe(self._runner.start)
        except RuntimeError:
            # The loop is closed: the worker has ended, and its leases will expire.
            return

    def _end_tasks(self, ended: list[Ended]) -> None:
        outcomes: list[Outcome] = []
        for task, outcome in self._active_tasks.settle(ended):
            if outcome is None:
                self._active_tasks.remove([task.lease])
                self._claimer.slot_freed()
            else:
                outcomes.append(outcome)
        if outcomes:
            self._reporter.report(*outcomes)

    # Reporting

    def _report_load(self) -> None:
        counted = self.metrics.counted()
        self._heartbeat_store.report_load(self.info.id, self.load(), since(counted, self._reported))
        self._reported = counted

    def _count_lost_claim(self) -> None:
        self.metrics.lost_claims += 1

    # Stopping

    def _drain(self) -> None:
        """Stop claiming, let handlers finish within the grace time, hand back what is left."""
        _log.info("worker_draining", worker=self.info.name, held=self.held)
        # The leadership after the maintenance, so that nothing is done after it is given up.
        self._end(*self._maintenance, self._leadership, self._claimer, timeout=None)
        self._hand_back_unstarted()
        self._until(lambda: not self._active_tasks.unsettled(), self._options.grace_seconds)
        rest = self._active_tasks.unsettled()
        for task in rest:
            task.stop(StopReason.HAND_BACK)
        if rest:
            self._until(lambda: not self._active_tasks.unsettled(), _STOP_HANDLERS_SECONDS, cut_short=False)
        # Their handlers do not end, but the process will; their leases make any late outcome void.
        unstopped = self._active_tasks.unsettled()
        # If the stop was not ordered, they may have caused it, so the attempt counts. But while a handler blocks the
        # event loop, the others there cannot notice the stop.
        blocking = self._runner.under_way(self._loop) if self._watch.is_late() else None
        to_blame = [task for task in unstopped if self._failed and (blocking in (None, task) or task.thread_started)]
        self._end_tasks([(task, self._runner.cut_off(task, counts=task in to_blame)) for task in unstopped])
        self._until(lambda: not self._reporter.unwritten(), _FLUSH_SECONDS, cut_short=False)
        if self._reporter.unwritten():
            _log.error("outcomes_lost", count=self._reporter.unwritten())
        self._end(self._reporter, self._canceller, self._listener, self._heartbeat, timeout=_DUTY_SECONDS)
        self._listener.close()

    def _end(self, *duties: DatabaseDuty, timeout: float | None) -> None:
        for duty in duties:
            duty.stop(timeout)

    def _until(self, done: Callable[[], bool], seconds: float, *, cut_short: bool = True) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end and not (cut_short and not self._stops.empty()):
            time.sleep(_LOOK_SECONDS)

    def _hand_back_unstarted(self) -> int:
        unstarted = self._runner.give_up_unstarted()
        self._end_tasks(unstarted)
        return len(unstarted)

    def _deregister(self) -> None:
        try:
            # For the tasks that ended since the last beat.
            self._report_load()
            self._heartbeat_store.forget_worker(self.info.id)
        except (Unavailable, DeadlineExceeded):
            # A rescuer removes the row later.
            _log.warning("worker_row_left", worker=self.info.name)
