"""One circuit: who may call, what the outcomes mean, when it opens and heals.

pybreaker holds the state (closed, open, half-open) and is used through its public names only: a
storage of ours, open(), half_open(), close() and a listener. Admission and counting are ours,
because pybreaker counts consecutive failures only and its call() holds a lock while the call runs.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pybreaker

from servicekit.circuits.window import SlidingWindow, WindowTotals
from servicekit.logs import get_logger

CircuitState = Literal["closed", "open", "half_open"]
Reason = Literal[
    "failure_rate",
    "slow_calls",
    "consecutive_failures",
    "open_time_over",
    "probe_ready",
    "trial_success",
    "trial_failed",
    "trial_slow",
    "forced",
    "released",
]
Clock = Callable[[], float]

_STATES: dict[str, CircuitState] = {
    pybreaker.STATE_CLOSED: "closed",
    pybreaker.STATE_OPEN: "open",
    pybreaker.STATE_HALF_OPEN: "half_open",
}

log = get_logger(__name__)


class CircuitOpen(Exception):
    """The circuit admits no call now. `retry_in` is the time in seconds after which asking again makes sense."""

    def __init__(self, name: str, retry_in: float) -> None:
        super().__init__(f"the circuit {name} is open for another {retry_in:.1f} s")
        self.name = name
        self.retry_in = retry_in


@dataclass(frozen=True, slots=True)
class CircuitSettings:
    """When a circuit opens and how it comes back. Shares are 0.0 to 1.0, times are seconds."""

    window_seconds: int = 10
    #: Below this many calls in the window, rates say nothing and consecutive failures decide.
    minimum_calls: int = 20
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    #: A call that took longer is slow, whatever it answered.
    slow_seconds: float = 2.0
    slow_share: float = 0.8
    #: The first open time; each opening without a quiet window before it doubles the last one.
    open_seconds: float = 1.0
    open_seconds_max: float = 60.0
    #: Open times are spread by up to this share both ways, so that many circuits do not ask in step.
    jitter: float = 0.2
    #: Calls let through at the same time while half-open.
    trials: int = 2
    #: Good trials that close the circuit.
    trial_successes: int = 1
    #: A trial that reports nothing for this long gives its place to another call.
    lease_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("failure_rate", "slow_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share above 0 and up to 1")
        for name in ("window_seconds", "minimum_calls", "consecutive_failures", "trials", "trial_successes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("slow_seconds", "open_seconds", "lease_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0")
        if self.open_seconds_max < self.open_seconds:
            raise ValueError("open_seconds_max is at least open_seconds")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter is a share from 0 up to, not including, 1")

    def open_time(self, opening: int, chance: float) -> float:
        """The length of the `opening`-th opening in a row (from 1); `chance` is 0.0 to 1.0."""
        base = min(self.open_seconds * 2.0 ** min(opening - 1, 32), self.open_seconds_max)
        return min(base * (1 + self.jitter * (2 * chance - 1)), self.open_seconds_max)

    def verdict(self, totals: WindowTotals, consecutive: int) -> Reason | None:
        """Why a closed circuit with these counts must open, or None."""
        if totals.calls >= self.minimum_calls:
            if totals.failures >= self.failure_rate * totals.calls:
                return "failure_rate"
            if totals.slow >= self.slow_share * totals.calls:
                return "slow_calls"
        elif consecutive >= self.consecutive_failures:
            return "consecutive_failures"
        return None


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state. `generation` grows by one with each and orders them."""

    name: str
    old: CircuitState
    new: CircuitState
    reason: Reason
    generation: int
    #: What the last failed call reported, a short word; empty if none has failed yet.
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    at: datetime
    ok: bool


@dataclass(frozen=True, slots=True)
class CircuitSnapshot:
    name: str
    state: CircuitState
    failure_rate: float
    calls: int
    failures: int
    slow_share: float
    #: When the circuit last left closed; None while it is closed.
    opened_at: datetime | None
    #: Seconds until a call may be tried; None unless open.
    retry_in: float | None
    last_probe: ProbeResult | None
    #: Somebody set the state by hand; it stays until set to auto.
    forced: bool


class Permit:
    """The right to make one call. Report exactly one outcome; the first report wins, later ones do nothing."""

    __slots__ = ("_circuit", "_done", "_generation", "_trial")

    def __init__(self, circuit: Circuit, generation: int, trial: int | None) -> None:
        self._circuit = circuit
        self._generation = generation
        self._trial = trial
        self._done = False

    @property
    def is_trial(self) -> bool:
        """The circuit was half-open when this permit was given."""
        return self._trial is not None

    def success(self, seconds: float) -> None:
        """The upstream gave a well-formed answer after `seconds`."""
        self._report("success", seconds, "")

    def failure(self, seconds: float, reason: str) -> None:
        """The upstream did not answer, or not properly. `reason` is a short word for logs."""
        self._report("failure", seconds, reason)

    def neutral(self) -> None:
        """The call says nothing about the upstream: a client that left, a refusal of our own, a 429."""
        self._report("neutral", 0.0, "")

    def _report(self, outcome: Literal["success", "failure", "neutral"], seconds: float, reason: str) -> None:
        self._circuit._record(self, outcome, seconds, reason)


class _Memory(pybreaker.CircuitBreakerStorage):
    """pybreaker's view of the state. The counters stay ours: resetting them is no business of its state objects."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.value: str = pybreaker.STATE_CLOSED
        self.opened: datetime | None = None

    @property
    def state(self) -> str:
        return self.value

    @state.setter
    def state(self, state: str) -> None:
        self.value = state

    @property
    def counter(self) -> int:
        return 0

    @property
    def success_counter(self) -> int:
        return 0

    @property
    def opened_at(self) -> datetime | None:
        return self.opened

    @opened_at.setter
    def opened_at(self, when: datetime) -> None:
        self.opened = when


class Circuit:
    """Thread-safe, and never waits for I/O: its lock covers a few assignments, so an event loop may use it too.

    `listeners` hear every transition, after the lock is released; one that raises is logged and stops
    neither the transition nor the others. `clock` is monotonic seconds; `chance` gives 0.0 to 1.0.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: CircuitSettings | None = None,
        clock: Clock = time.monotonic,
        listeners: Sequence[Callable[[Transition], None]] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.settings = settings or CircuitSettings()
        self._clock = clock
        self._chance = chance
        self._listeners = tuple(listeners)
        self._lock = threading.Lock()
        self._memory = _Memory()
        self._breaker = pybreaker.CircuitBreaker(name=name, state_storage=self._memory, throw_new_error_on_trip=False)
        self._window = SlidingWindow(self.settings.window_seconds)
        self._generation = 0
        self._consecutive = 0
        self._openings = 0
        self._open_until = 0.0
        self._closed_at: float | None = None
        self._trials: dict[int, float] = {}
        self._trial_ids = itertools.count(1)
        self._good_trials = 0
        self._forced: Literal["open", "closed"] | None = None
        self._last_probe: ProbeResult | None = None
        self._seen_away = False
        self._last_failure = ""
        self._untold: deque[Transition] = deque()

    def acquire(self, *, lease: float | None = None) -> Permit:
        """A permit for one call, or CircuitOpen at once. `lease` (seconds) bounds how long a trial keeps its place."""
        try:
            with self._lock:
                now = self._clock()
                self._advance(now)
                state = self._memory.value
                if state == pybreaker.STATE_CLOSED:
                    return Permit(self, self._generation, None)
                if state == pybreaker.STATE_OPEN:
                    raise CircuitOpen(self.name, self._retry_in(now))
                for trial in [key for key, until in self._trials.items() if until <= now]:
                    del self._trials[trial]
                if len(self._trials) >= self.settings.trials:
                    raise CircuitOpen(self.name, self.settings.open_seconds)
                trial = next(self._trial_ids)
                self._trials[trial] = now + (lease or self.settings.lease_seconds)
                return Permit(self, self._generation, trial)
        finally:
            self._tell()

    def snapshot(self) -> CircuitSnapshot:
        """Where the circuit stands now; an open time that is over shows as half_open even without traffic."""
        try:
            with self._lock:
                now = self._clock()
                self._advance(now)
                totals = self._window.totals(now)
                state = _STATES[self._memory.value]
                return CircuitSnapshot(
                    name=self.name,
                    state=state,
                    failure_rate=totals.failure_rate,
                    calls=totals.calls,
                    failures=totals.failures,
                    slow_share=totals.slow_share,
                    opened_at=None if state == "closed" else self._memory.opened,
                    retry_in=self._retry_in(now) if state == "open" else None,
                    last_probe=self._last_probe,
                    forced=self._forced is not None,
                )
        finally:
            self._tell()

    def force(self, state: Literal["open", "closed", "auto"]) -> None:
        """Hold the circuit open or closed until told `auto`, which starts again from closed."""
        try:
            with self._lock:
                now = self._clock()
                self._forced = None if state == "auto" else state
                self._openings = 0
                if state == "open":
                    self._move("open", now, "forced")
                else:
                    self._move("closed", now, "forced" if state == "closed" else "released")
        finally:
            self._tell()

    def note_probe(self, ok: bool) -> None:
        """What the prober saw. An upstream seen away and now ready is tried before the open time is over.

        An upstream that says it is ready all the time while its calls fail is not tried early, or the
        growing open time would mean nothing.
        """
        try:
            with self._lock:
                now = self._clock()
                self._advance(now)
                self._last_probe = ProbeResult(at=datetime.now(UTC), ok=ok)
                if not ok:
                    self._seen_away = True
                elif self._seen_away:
                    self._seen_away = False
                    if self._memory.value == pybreaker.STATE_OPEN and self._forced is None:
                        self._move("half_open", now, "probe_ready")
        finally:
            self._tell()

    def _record(
        self, permit: Permit, outcome: Literal["success", "failure", "neutral"], seconds: float, reason: str
    ) -> None:
        try:
            with self._lock:
                if permit._done:
                    return
                permit._done = True
                now = self._clock()
                if outcome == "failure":
                    self._last_failure = reason
                if permit._trial is not None:
                    if self._trials.pop(permit._trial, 0.0) > now and permit._generation == self._generation:
                        self._record_trial(outcome, seconds, now)
                    return
                # A call admitted before the last transition tells about a time that is over.
                if permit._generation != self._generation or outcome == "neutral":
                    return
                failed = outcome == "failure"
                slow = seconds > self.settings.slow_seconds
                self._window.add(now, failed=failed, slow=slow)
                self._consecutive = self._consecutive + 1 if failed else 0
                if self._forced is None:
                    verdict = self.settings.verdict(self._window.totals(now), self._consecutive)
                    if verdict is not None:
                        self._move("open", now, verdict)
        finally:
            self._tell()

    def _record_trial(self, outcome: str, seconds: float, now: float) -> None:
        if outcome == "neutral":
            return
        if outcome == "failure":
            self._move("open", now, "trial_failed")
        elif seconds > self.settings.slow_seconds:
            self._move("open", now, "trial_slow")
        else:
            self._good_trials += 1
            if self._good_trials >= self.settings.trial_successes:
                self._move("closed", now, "trial_success")

    def _retry_in(self, now: float) -> float:
        if self._forced == "open":
            return self.settings.open_seconds_max
        return max(self._open_until - now, 0.0)

    def _advance(self, now: float) -> None:
        if self._memory.value == pybreaker.STATE_OPEN and now >= self._open_until and self._forced is None:
            self._move("half_open", now, "open_time_over")

    def _move(self, new: CircuitState, now: float, reason: Reason) -> None:
        """Change the state; the caller holds the lock."""
        old = _STATES[self._memory.value]
        self._generation += 1
        self._trials.clear()
        self._good_trials = 0
        self._consecutive = 0
        if new == "open":
            if self._closed_at is not None and now - self._closed_at >= self.settings.window_seconds:
                self._openings = 0
            self._closed_at = None
            self._openings += 1
            self._open_until = now + self.settings.open_time(self._openings, self._chance())
            first_opened = self._memory.opened
            self._breaker.open()
            if old != "closed" and first_opened is not None:
                self._memory.opened = first_opened
        elif new == "half_open":
            self._breaker.half_open()
        else:
            self._closed_at = now
            self._seen_away = False
            self._window.clear()
            self._breaker.close()
        if old != new:
            self._untold.append(Transition(self.name, old, new, reason, self._generation, self._last_failure))

    def _tell(self) -> None:
        while self._untold:
            try:
                transition = self._untold.popleft()
            except IndexError:  # another thread told it
                return
            log.warning(
                "circuit_transition",
                circuit=transition.name,
                old=transition.old,
                new=transition.new,
                reason=transition.reason,
                generation=transition.generation,
                last_failure=transition.last_failure,
            )
            for listener in self._listeners:
                try:
                    listener(transition)
                except Exception:  # a listener is a guest: it must not break admission or healing
                    log.exception("circuit_listener_failed", circuit=transition.name)
