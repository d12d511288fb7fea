"""Long-lived duties, and the signals that end a process."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

import structlog

from servicekit.process.clock import Clock, utc_now

#: How late, in seconds, a signal taken by another thread may be handled.
_AWAKE_SECONDS = 0.5
_log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")

#: Open files that no process of ours should exceed.
_MANY_FILES = 65_536
#: Its number in malloc.h.
_M_MMAP_THRESHOLD = -3

_OUR_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Duty(ABC):
    """One long-lived duty on a thread of its own: `run_once`, then a pause, until stopped.

    When `run_once` raises, the duty is dead: the error is logged and `on_death` is called, which must stop the process
    so that its supervisor starts a new one.
    """

    def __init__(
        self,
        name: str,
        *,
        pause: Callable[[], float],
        on_death: Callable[[], None],
        clock: Clock = utc_now,
    ) -> None:
        """`pause` returns the seconds until the next run; it is called after each, so it may add jitter."""
        self.name = name
        self._pause = pause
        self._on_death = on_death
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: One may stop what another is just starting.
        self._starting = threading.Lock()

    @abstractmethod
    def run_once(self, now: datetime) -> None:
        """Do the duty once."""

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; a duty stopped before it was started never runs."""
        with self._starting:
            if self._thread is None and not self.stopping:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """End the current pause early."""
        self._wake.set()

    def stop(self, timeout: float | None = 5.0) -> None:
        """End after the current run, waiting at most `timeout` seconds; idempotent, also before `start`."""
        self._stopping.set()
        self._wake.set()
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self.stopping:
                self._wake.clear()
                self.run_once(self._clock())
                if not self.stopping:
                    self._wake.wait(self._pause())
        except BaseException:  # a duty must not die silently, not even of SystemExit
            _log.exception("duty_died", duty=self.name)
            self._on_death()


def stop_orders() -> SimpleQueue[None]:
    """A queue into which SIGTERM and SIGINT put an order to stop; SIGHUP changes nothing. Call it on the main thread,
    which waits with `next_order`. Threads may put orders, too."""
    orders: SimpleQueue[None] = SimpleQueue()

    def handle(number: int, _frame: FrameType | None) -> None:
        _log.info("signal_received", signal=signal.Signals(number).name)
        orders.put(None)

    reset_signals_in_children()
    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGHUP, lambda *_: say_nothing_is_reloaded())
    return orders


def next_order(orders: SimpleQueue[T]) -> T:
    """Wait on the main thread for an order from a signal handler.

    It takes a queue, because an event has a lock, which the very thread that the handler interrupts may hold. It never
    waits without a limit: any thread may take the signal (after SIGCONT it is hardly ever the main one), and Python
    runs the handler when the main thread next wakes up.
    """
    while True:
        with contextlib.suppress(Empty):
            return orders.get(timeout=_AWAKE_SECONDS)


def say_nothing_is_reloaded() -> None:
    """Handle SIGHUP in a process that reads its settings only once: it goes on, without losing work."""
    _log.warning("reload_refused", cause="this process reads its settings when it starts: restart it")


def stop_this_process() -> None:
    """End it as an order from outside would; whoever started it replaces it."""
    os.kill(os.getpid(), signal.SIGTERM)


class _Forks:
    """State that a forked child (multiprocessing, os.fork) must not share with its parent.

    It inherits signal handlers, and the socket that wakes an event loop for signals: a SIGTERM for the child would stop
    the parent, and not the child. It also inherits the stack of the fork: code that returns up that stack would repeat
    the parent's work.
    """

    def __init__(self) -> None:
        self.is_child = False
        self._guarded = False
        self._of_thread = threading.local()

    def guard(self) -> None:
        # The caller runs a process of its own, even a forked one.
        self.is_child = False
        if not self._guarded:
            self._guarded = True
            os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._begin_anew)

    def _hold(self) -> None:
        # A signal sent to the child at once waits until the child is ready for it.
        self._of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OUR_SIGNALS)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._of_thread.mask)

    def _begin_anew(self) -> None:
        self.is_child = True
        signal.set_wakeup_fd(-1)
        for number in _OUR_SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if "asyncio" in sys.modules:
            # Python 3.11 leaves the parent's running loop in the child, with a shared selector.
            sys.modules["asyncio"]._set_running_loop(None)
        self._release()


_forks = _Forks()


def reset_signals_in_children() -> None:
    """From now on, forked children start with default signal handlers and without this process's event loop."""
    _forks.guard()


def end_if_forked() -> None:
    """Exit if this is such a child: call it after foreign code that may have forked."""
    if _forks.is_child:
        os._exit(os.EX_SOFTWARE)


def exit_within(seconds: float, *, status: int) -> None:
    """End the process with `status` within so many seconds; the shortest time given counts.

    An orderly exit has no time limit: the interpreter waits for every non-daemon thread, executors and multiprocessing
    for theirs, and libraries may run anything at exit.
    """

    def tell() -> None:
        time.sleep(seconds)
        waited_for = [
            one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()
        ]
        _log.error("exit_forced", seconds=seconds, threads=waited_for[:20])

    def end() -> None:
        # Logging may be what hangs.
        time.sleep(seconds + 1.0)
        os._exit(status)

    for target in (tell, end):
        threading.Thread(target=target, name="exit", daemon=True).start()
    # For the very end, when no Python thread runs any more; SIGALRM ends the process by default.
    signal.alarm(int(seconds) + 5)


def freeze_heap() -> None:
    """Exempt all present objects from garbage collection: call it once a process is wired, before its work begins.

    Modules, models and routes live as long as the process, yet every batch of a thousand tasks made the collector scan
    all of them (measured: 3 of 11 microseconds per task of a batch).
    """
    gc.collect()
    gc.freeze()


def return_large_blocks() -> None:
    """Let glibc return every block of 128 KiB or more to the system as soon as it is freed.

    By default each freed one raises that threshold, to 32 MiB at most, and later blocks come from the heaps of threads,
    which fragment and hardly shrink (mallopt(3), M_MMAP_THRESHOLD). Measured on a task service that takes the largest
    batches: at most 242 MiB before, 162 MiB since.
    """
    # Another C library has no such function, nor this habit.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def allow_many_files(wanted: int = _MANY_FILES) -> None:
    """Raise this process's limit of open files (and so of connections) as far as allowed, up to `wanted`.

    Many systems start with 1024, for the sake of programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= ceiling:
        return
    # Some systems refuse what they claim to allow.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def grow_file_table() -> None:
    """Grow this process's table of open files to its final size now; a child does not inherit it.

    Linux doubles a full table (64, 128, 256, … files), and in a process with threads it waits until no core can still
    be reading the old one (expand_fdtable in fs/file.c, synchronize_rcu): the event loop stalls for 5 to 15 ms, just
    when connections pile up. Call it before the first thread, where it takes microseconds. It costs 8 bytes of kernel
    memory per file of the limit, half a MiB at most.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = (_MANY_FILES if limit == resource.RLIM_INFINITY else min(limit, _MANY_FILES)) - 1
    # Without room the process still works, only less evenly.
    with contextlib.suppress(OSError, ValueError):
        file = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, highest))
        finally:
            os.close(file)
