"""A circuit's memory, and a store of it for one process."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from servicekit.circuits.window import SlidingWindow, WindowTotals

CircuitState = Literal["closed", "open", "half_open"]
CircuitScope = Literal["machine", "process"]


@dataclass(frozen=True, slots=True)
class CircuitStanding:
    """A circuit's state; replaced as a whole with each generation. Times are on the circuit's clock."""

    generation: int = 0
    state: CircuitState = "closed"
    forced: Literal["open", "closed"] | None = None
    #: Openings without a quiet window in between.
    openings: int = 0
    #: When the open time ends; once half-open, when it ended.
    open_until: float = 0.0
    closed_at: float | None = None
    #: When it last left closed, in seconds since 1970.
    opened_at: float | None = None
    #: The generation in which it was last closed: the window counts only calls admitted since.
    epoch: int = 0


class CircuitLockTimeout(Exception):
    """A stopped process holds the circuit's lock."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a stopped process holds the lock of the circuit {name}")
        self.name = name


class StateStore(Protocol):
    """The memory of one circuit. As a context manager it is locked; it is never locked during a call.

    Entering raises CircuitLockTimeout, after a short wait, when another process does not let go. Only `standing`,
    `add_success`, and reading `totals`, `seen_away` and `last_probe` need no lock. Consecutive failures, good trials
    and the places of trials belong to a generation: a commit ends them. Counts and `seen_away` belong to an epoch.
    """

    @property
    def scope(self) -> CircuitScope:
        """Shared by all processes of a server, or of this process alone."""

    @property
    def sharing_failed(self) -> bool:
        """Whether it should have been shared, but could not be."""

    @property
    def held_up(self) -> bool:
        """Whether the lock was unavailable when last wanted."""

    consecutive_failures: int
    good_trials: int
    seen_away: bool
    #: When (seconds since 1970) the upstream was last asked, and whether it was ready.
    last_probe: tuple[float, bool] | None
    #: A short word.
    last_failure: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def standing(self) -> CircuitStanding: ...

    def commit(self, standing: CircuitStanding) -> None:
        """Replace the standing for all users of the store, in one step."""

    def add_success(self, generation: int, now: float) -> bool:
        """Count a good, fast call without the lock if that cannot change the state; False if not counted."""

    def allow_add_success(self, generation: int, now: float) -> None:
        """Declare that good calls of this generation cannot change the state during this second of the clock."""

    def add(self, now: float, *, failed: bool, slow: bool) -> None: ...

    def totals(self, now: float) -> WindowTotals: ...

    def take_trial(self, now: float, until: float, limit: int) -> int | None:
        """Take one of at most `limit` places for trials; returns its number, or None if all are taken."""

    def has_trial(self, now: float) -> bool:
        """Whether a trial of this generation is under way."""

    def end_trial(self, trial: int, now: float) -> bool:
        """Give the place back; True if this generation still held it."""


class LocalState:
    """A circuit's memory in this process alone. Thread-safe."""

    scope: CircuitScope = "process"
    held_up = False

    def __init__(self, window_seconds: int, *, sharing_failed: bool = False) -> None:
        self.sharing_failed = sharing_failed
        self._lock = threading.Lock()
        self._standing = CircuitStanding()
        self._window = SlidingWindow(window_seconds)
        self.consecutive_failures = 0
        self.good_trials = 0
        self.seen_away = False
        self.last_probe: tuple[float, bool] | None = None
        self.last_failure = ""
        self._trials: dict[int, float] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def standing(self) -> CircuitStanding:
        return self._standing

    def commit(self, standing: CircuitStanding) -> None:
        if standing.epoch != self._standing.epoch:
            self._window.clear()
            self.seen_away = False
        self._trials.clear()
        self.consecutive_failures = self.good_trials = 0
        self._standing = standing

    def add_success(self, generation: int, now: float) -> bool:
        return False

    def allow_add_success(self, generation: int, now: float) -> None:
        """No-op: here every call is counted under the lock."""

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        self._window.add(now, failed=failed, slow=slow)

    def totals(self, now: float) -> WindowTotals:
        return self._window.totals(now)

    def take_trial(self, now: float, until: float, limit: int) -> int | None:
        for trial in [key for key, end in self._trials.items() if end <= now]:
            del self._trials[trial]
        if len(self._trials) >= limit:
            return None
        trial = next(self._numbers)
        self._trials[trial] = until
        return trial

    def has_trial(self, now: float) -> bool:
        return any(end > now for end in self._trials.values())

    def end_trial(self, trial: int, now: float) -> bool:
        return self._trials.pop(trial, 0.0) > now
