"""What the processes that serve one port have in common: how many they are, what they hold, and whose turn it is."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

from servicekit.process.shared_memory import SharedMemory

#: Processes that may share one memory. During a reload two generations coexist.
PLACES = 256
#: Stands for the connections of a process that takes none, because it starts or stops: more than others have.
TAKES_NONE = 2**32
#: A process has clearly fewer connections than another if it lacks over an eighth of its own.
_SLACK = 8
#: How long the others have to take a turn that ends, in seconds: twice the longest pause between their attempts.
_FOR_OTHERS = 0.002

_log = structlog.stdlib.get_logger(__name__)


class Siblings:
    """The processes of one server, in memory that its master makes before it forks; raises OSError without room.

    Each has a place, for which it alone writes. The master gives the places, and empties that of a process that
    ended, however it ended.
    """

    def __init__(self) -> None:
        self.memory = SharedMemory(3 * PLACES + 1)
        words = self.memory.words
        # For each place the id of its process, the bytes and the connections that it holds.
        self._pids, self._held, self._connections = (words[PLACES * one : PLACES * (one + 1)] for one in range(3))
        # How many places were ever used.
        self._used = words[3 * PLACES :]
        #: This process's own; None in the master.
        self.place: int | None = None

    # The master.

    def reserve(self, server: Any, worker: Any) -> None:
        """Give a place to a worker about to be forked (gunicorn's `pre_fork`)."""
        taken = {getattr(one, "place", None) for one in server.WORKERS.values()}
        worker.place = next((place for place in range(PLACES) if place not in taken), None)
        if worker.place is not None:
            self._used[0] = max(self._used[0], worker.place + 1)

    def leave(self, worker: Any) -> None:
        """Empty the place of a worker that ended (gunicorn's `child_exit`)."""
        if (place := getattr(worker, "place", None)) is not None:
            self._pids[place] = self._held[place] = self._connections[place] = 0

    # Each process.

    def enter(self, worker: Any) -> None:
        """Take the place given to this process (gunicorn's `post_fork`)."""
        self.place = worker.place
        if self.place is not None:
            self._held[self.place] = 0
            self._connections[self.place] = TAKES_NONE
            self._pids[self.place] = worker.pid

    def count(self) -> int:
        """How many processes there are."""
        return sum(map(bool, self._pids[: self._used[0]]))

    def tell(self, connections: int) -> None:
        """Tell the others how many connections this process has."""
        assert self.place is not None
        self._connections[self.place] = connections

    def room(self, connections: int) -> int:
        """How many more connections this process, which has so many, may take before another should; 0 or less if that
        has clearly fewer.
        """
        self.tell(connections)
        used = self._used[0]
        others = [
            count
            for place, (pid, count) in enumerate(zip(self._pids[:used], self._connections[:used], strict=True))
            if pid and place != self.place
        ]
        fewest = min(others, default=connections)
        return fewest + 1 + fewest // _SLACK - connections

    def hold(self, amount: int) -> int:
        """Add to the bytes that this process holds, and return those of all. The caller excludes its other threads.

        It writes before it reads, so of two that add at the same time at least one sees both.
        """
        assert self.place is not None
        self._held[self.place] += amount
        return sum(self._held[: self._used[0]])


class Turn:
    """A lock among all threads of all processes of this server; a process that dies releases it.

    Those of one `number`, from 0 to `PLACES`, are one.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._threads = threading.Lock()
        self._shared = None if _inherited is None else _inherited.memory

    def acquire(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether the caller has it."""
        ends_at = time.monotonic() + timeout
        if not self._threads.acquire(timeout=timeout):
            return False
        if self._shared is None or self._shared.lock(self._number, ends_at - time.monotonic()):
            return True
        self._threads.release()
        return False

    def release(self) -> None:
        if self._shared is not None:
            self._shared.unlock(self._number)
            # Or the next thread of this process would always be faster than another process.
            time.sleep(_FOR_OTHERS)
        self._threads.release()


_inherited: Siblings | None = None


def prepare_siblings() -> None:
    """Make the memory. Called by a master before it forks; later calls do nothing.

    Without it, each process counts and waits for itself.
    """
    global _inherited
    if _inherited is None:
        try:
            _inherited = Siblings()
        except OSError as error:
            _log.error("memory_not_shared", error=str(error))


def siblings() -> Siblings | None:
    """What the master prepared, if anything."""
    return _inherited
