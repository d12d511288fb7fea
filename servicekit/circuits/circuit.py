"""One circuit: which calls it admits, how outcomes count, when it opens and heals.

pybreaker moves the state (closed, open, half-open), through its public names only: a storage of ours, open(),
half_open(), close(), success_counter and success_threshold. Admission and counting are ours, because pybreaker counts
only consecutive failures and its call() holds a lock during the call. A circuit's memory is a state store: this
process's own, or one shared by all processes of a server (shared_state.py).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import pybreaker

from servicekit.circuits.state import (
    CircuitLockTimeout,
    CircuitScope,
    CircuitStanding,
    CircuitState,
    LocalState,
    StateStore,
)
from servicekit.circuits.window import WindowTotals
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import backoff, draw, jittered

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
#: Every possible change of state, and its reason.
MOVES: tuple[tuple[CircuitState, CircuitState, Reason], ...] = (
    ("closed", "open", "failure_rate"),
    ("closed", "open", "slow_calls"),
    ("closed", "open", "consecutive_failures"),
    ("closed", "open", "forced"),
    ("open", "half_open", "open_time_over"),
    ("open", "half_open", "probe_ready"),
    ("open", "closed", "forced"),
    ("open", "closed", "released"),
    ("half_open", "open", "trial_failed"),
    ("half_open", "open", "trial_slow"),
    ("half_open", "open", "forced"),
    ("half_open", "closed", "trial_success"),
    ("half_open", "closed", "probe_ready"),
    ("half_open", "closed", "forced"),
    ("half_open", "closed", "released"),
)

_NAMES: dict[CircuitState, str] = {
    "closed": pybreaker.STATE_CLOSED,
    "open": pybreaker.STATE_OPEN,
    "half_open": pybreaker.STATE_HALF_OPEN,
}

#: A good call opens a circuit only within this many seconds of a bad one.
_FRESH_SECONDS = 1.0
#: A probe closes a circuit only after this many seconds half-open, so that calls decide where there are any.
_UNTRIED_SECONDS = 2.0

log = get_logger(__name__)


class CircuitOpen(Exception):
    """The circuit admits no call now. `retry_in` is the seconds until asking again makes sense."""

    def __init__(self, name: str, retry_in: float) -> None:
        super().__init__(f"the circuit {name} is open for another {retry_in:.1f} s")
        self.name = name
        self.retry_in = retry_in


@dataclass(frozen=True, slots=True)
class CircuitSettings:
    """When a circuit opens and how it comes back. Shares are 0.0 to 1.0, times are seconds."""

    window_seconds: int = 10
    #: With fewer calls in the window, rates mean nothing, and consecutive failures decide.
    minimum_calls: int = 20
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    #: A longer call is slow, whatever it answered.
    slow_seconds: float = 2.0
    slow_share: float = 0.8
    #: The first open time; it doubles with each opening not preceded by a quiet window.
    open_seconds: float = 1.0
    open_seconds_max: float = 60.0
    #: Open times vary by up to this share either way, so that circuits do not retry in step.
    jitter: float = 0.2
    #: Concurrent calls admitted while half-open.
    trials: int = 2
    #: Successful trials that close the circuit.
    trial_successes: int = 1
    #: A trial without a report for this long gives up its place.
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
        """Length of the `opening`-th opening in a row (from 1); `chance` is 0.0 to 1.0."""
        seconds = backoff(opening, self.open_seconds, self.open_seconds_max)
        return min(jittered(seconds, self.jitter, chance), self.open_seconds_max)

    def verdict(self, totals: WindowTotals, consecutive: int) -> Reason | None:
        """The reason why a closed circuit with these counts must open, or None."""
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
    """A change of state. `generation` grows by one with each and orders them."""

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
    #: Grows by one with each change of state, a forced one included.
    generation: int
    failure_rate: float
    calls: int
    failures: int
    slow_share: float
    #: When the circuit last left closed; None while it is closed.
    opened_at: datetime | None
    #: Seconds until a call is admitted; None unless open.
    retry_in: float | None
    last_probe: ProbeResult | None
    #: The last probe since the circuit closed found the upstream not ready.
    seen_away: bool
    #: The state was set by hand, and stays until set to auto.
    forced: bool
    #: Shared by all processes of the server, or of this process alone.
    scope: CircuitScope
    #: It should be shared by all processes, but there was no shared memory.
    sharing_failed: bool
    #: A stopped process holds the circuit's lock: until it resumes or ends, the state stays and outcomes are dropped.
    held_up: bool


class Permit:
    """The right to make one call. Only the first reported outcome counts."""

    __slots__ = ("_circuit", "_due", "_generation", "_trial")

    def __init__(self, circuit: Circuit, generation: int, trial: int | None) -> None:
        self._circuit = circuit
        self._generation = generation
        self._trial = trial
        # The first report empties it, in one thread only.
        self._due = [True]

    @property
    def is_trial(self) -> bool:
        """The circuit was half-open when this permit was given."""
        return self._trial is not None

    def success(self, seconds: float) -> None:
        """The upstream answered properly after `seconds`."""
        self._report("success", seconds, "")

    def failure(self, seconds: float, reason: str) -> None:
        """The upstream did not answer properly, or at all. `reason` is a short word for logs."""
        self._report("failure", seconds, reason)

    def neutral(self) -> None:
        """The call says nothing about the upstream: its client left, we refused it, or the answer was a 429."""
        self._report("neutral", 0.0, "")

    def _report(self, outcome: Literal["success", "failure", "neutral"], seconds: float, reason: str) -> None:
        try:
            self._due.pop()
        except IndexError:
            return
        self._circuit._record(self, outcome, seconds, reason)


class _Storage(pybreaker.CircuitBreakerStorage):
    """pybreaker's view of a state store.

    The circuit prepares the whole next standing; pybreaker commits it by setting the state. Counters are ours, so that
    pybreaker's state objects cannot reset them.
    """

    def __init__(self, store: StateStore) -> None:
        super().__init__(store.scope)
        self._store = store
        self.prepared: CircuitStanding | None = None

    @property
    def state(self) -> str:
        return _NAMES[self._store.standing().state]

    @state.setter
    def state(self, state: str) -> None:
        prepared, self.prepared = self.prepared, None
        if prepared is None or _NAMES[prepared.state] != state:
            raise RuntimeError(f"nobody prepared the state {state}")
        self._store.commit(prepared)

    @property
    def counter(self) -> int:
        return 0

    @property
    def success_counter(self) -> int:
        return self._store.good_trials

    def increment_success_counter(self) -> None:
        self._store.good_trials += 1

    @property
    def opened_at(self) -> datetime | None:
        opened = self._store.standing().opened_at
        return None if opened is None else datetime.fromtimestamp(opened, UTC)

    @opened_at.setter
    def opened_at(self, when: datetime) -> None:
        """The prepared standing has it."""


class Circuit:
    """Thread-safe and free of I/O: its lock covers a few assignments, so an event loop may use it too.

    A process that is stopped while it holds the lock delays the others once, briefly. From then on, until the lock is
    free, the circuit stays as it is: closed, it admits; open, it refuses; trials are refused, and outcomes dropped.

    `listeners` are called with each transition made by this process, after the lock is released; one that raises is
    logged, and stops neither the transition nor the others. `on_uncounted` is called with the circuit's name for each
    dropped outcome. Circuits that share a `store` must have the same settings and `clock`, in monotonic seconds.
    `chance` returns 0.0 to 1.0. Create the circuit after the last fork; without a store its state is this process's
    own.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: CircuitSettings | None = None,
        store: StateStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        listeners: Sequence[Callable[[Transition], None]] = (),
        chance: Callable[[], float] = draw,
        on_uncounted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.settings = settings or CircuitSettings()
        self._store: StateStore = store or LocalState(self.settings.window_seconds)
        self._clock = clock
        self._chance = chance
        self._listeners = tuple(listeners)
        self._on_uncounted = on_uncounted
        self._storage = _Storage(self._store)
        self._breaker = pybreaker.CircuitBreaker(
            name=name,
            state_storage=self._storage,
            success_threshold=self.settings.trial_successes,
            throw_new_error_on_trip=False,
        )
        self._untold: deque[Transition] = deque()
        #: When the last call of this process failed or was slow.
        self._bad_at = -math.inf

    def acquire(self, *, lease: float | None = None) -> Permit:
        """Return a permit for one call, or raise CircuitOpen at once. A trial keeps its place for `lease` seconds at
        most."""
        standing = self._store.standing()
        if standing.state == "closed":
            return Permit(self, standing.generation, None)
        if standing.state == "open":
            now = self._clock()
            if not self._is_over(standing, now):
                raise CircuitOpen(self.name, self._retry_in(standing, now))
        try:
            with self._store as store:
                now = self._clock()
                standing = self._advanced(now)
                if standing.state == "closed":
                    return Permit(self, standing.generation, None)
                if standing.state == "open":
                    raise CircuitOpen(self.name, self._retry_in(standing, now))
                until = now + (lease or self.settings.lease_seconds)
                trial = store.take_trial(now, until, self.settings.trials)
                if trial is None:
                    raise CircuitOpen(self.name, self.settings.open_seconds)
                return Permit(self, standing.generation, trial)
        except CircuitLockTimeout:
            # It could be one trial too many.
            raise CircuitOpen(self.name, self.settings.open_seconds) from None
        finally:
            self._tell()

    def snapshot(self) -> CircuitSnapshot:
        """The circuit's present state; an expired open time shows as half_open even without traffic."""
        try:
            with self._store as store:
                now = self._clock()
                standing = self._advanced(now)
                totals = store.totals(now)
                probe = store.last_probe
        except CircuitLockTimeout:
            now = self._clock()
            standing = self._store.standing()
            totals = self._store.totals(now)
            probe = self._store.last_probe
        finally:
            self._tell()
        opened = standing.opened_at
        return CircuitSnapshot(
            name=self.name,
            state=standing.state,
            generation=standing.generation,
            failure_rate=totals.failure_rate,
            calls=totals.calls,
            failures=totals.failures,
            slow_share=totals.slow_share,
            opened_at=None if standing.state == "closed" or opened is None else datetime.fromtimestamp(opened, UTC),
            retry_in=self._retry_in(standing, now) if standing.state == "open" else None,
            last_probe=None if probe is None else ProbeResult(at=datetime.fromtimestamp(probe[0], UTC), ok=probe[1]),
            seen_away=self._store.seen_away,
            forced=standing.forced is not None,
            scope=self._store.scope,
            sharing_failed=self._store.sharing_failed,
            held_up=self._store.held_up,
        )

    def force(self, state: Literal["open", "closed", "auto"]) -> None:
        """Hold the circuit open or closed until set to `auto`, which starts again from closed.

        Raises CircuitLockTimeout, without any change, while a stopped process holds the circuit's lock.
        """
        try:
            with self._store as store:
                now = self._clock()
                standing = replace(store.standing(), forced=None if state == "auto" else state, openings=0)
                if state == "open":
                    self._move(standing, "open", now, "forced")
                else:
                    self._move(standing, "closed", now, "forced" if state == "closed" else "released")
        finally:
            self._tell()

    def note_probe(self, ok: bool) -> None:
        """Record a probe, the only thing known of an upstream that nobody calls.

        An upstream that was away and is ready now may be tried before the open time is over. One that always claims to
        be ready while its calls fail may not, or the growing open time would be pointless. Half-open and ready, without
        a trial for a while, the circuit closes.
        """
        try:
            with self._store as store:
                now = self._clock()
                standing = self._advanced(now)
                store.last_probe = (time.time(), ok)
                was_away, store.seen_away = store.seen_away, not ok
                if not ok or standing.forced is not None:
                    return
                if standing.state == "open" and was_away:
                    self._move(standing, "half_open", now, "probe_ready")
                elif (
                    standing.state == "half_open"
                    and now - standing.open_until >= _UNTRIED_SECONDS
                    and not store.has_trial(now)
                ):
                    self._move(standing, "closed", now, "probe_ready")
                    # A probe is no proof: the first call still decides, and opens it again if it fails.
                    store.consecutive_failures = self.settings.consecutive_failures - 1
        except CircuitLockTimeout:
            return  # the next probe will tell
        finally:
            self._tell()

    def _record(
        self, permit: Permit, outcome: Literal["success", "failure", "neutral"], seconds: float, reason: str
    ) -> None:
        generation, trial = permit._generation, permit._trial
        slow = seconds > self.settings.slow_seconds
        if trial is None:
            if outcome == "neutral":
                return
            if outcome == "success" and not slow and self._store.add_success(generation, self._clock()):
                return
        try:
            with self._store as store:
                now = self._clock()
                standing = store.standing()
                current = generation == standing.generation
                failed = outcome == "failure"
                if failed:
                    store.last_failure = reason
                if trial is not None:
                    if current and store.end_trial(trial, now):
                        self._record_trial(standing, outcome, slow, now)
                    return
                # A call admitted before the last transition says nothing about the present.
                if not current:
                    return
                store.add(now, failed=failed, slow=slow)
                consecutive = store.consecutive_failures + 1 if failed else 0
                store.consecutive_failures = consecutive
                totals = store.totals(now)
                verdict = None if standing.forced else self.settings.verdict(totals, consecutive)
                if failed or slow:
                    self._bad_at = now
                # When the good calls before an outage leave the window, its failures become the larger share, long
                # after it is over. The first good call after a quiet time must not open the circuit then.
                if verdict is not None and now - self._bad_at <= _FRESH_SECONDS:
                    self._move(standing, "open", now, verdict)
                elif totals.calls >= self.settings.minimum_calls:
                    store.allow_add_success(generation, now)
        except CircuitLockTimeout:
            self._on_uncounted(self.name)
        finally:
            self._tell()

    def _record_trial(self, standing: CircuitStanding, outcome: str, slow: bool, now: float) -> None:
        if outcome == "neutral":
            return
        if outcome == "failure":
            self._move(standing, "open", now, "trial_failed")
        elif slow:
            self._move(standing, "open", now, "trial_slow")
        else:
            self._storage.increment_success_counter()
            if self._breaker.success_counter >= self._breaker.success_threshold:
                self._move(standing, "closed", now, "trial_success")

    def _retry_in(self, standing: CircuitStanding, now: float) -> float:
        if standing.forced == "open":
            return self.settings.open_seconds_max
        return max(standing.open_until - now, 0.0)

    def _is_over(self, standing: CircuitStanding, now: float) -> bool:
        return standing.state == "open" and now >= standing.open_until and standing.forced is None

    def _advanced(self, now: float) -> CircuitStanding:
        standing = self._store.standing()
        return self._move(standing, "half_open", now, "open_time_over") if self._is_over(standing, now) else standing

    def _move(self, standing: CircuitStanding, new: CircuitState, now: float, reason: Reason) -> CircuitStanding:
        """Change the state; the caller holds the store's lock, and `standing` came from it."""
        old = standing.state
        generation = standing.generation + 1
        if new == "open":
            quiet = standing.closed_at is not None and now - standing.closed_at >= self.settings.window_seconds
            openings = 1 if quiet else standing.openings + 1
            self._storage.prepared = replace(
                standing,
                generation=generation,
                state=new,
                openings=openings,
                open_until=now + self.settings.open_time(openings, self._chance()),
                closed_at=None,
                opened_at=standing.opened_at if old != "closed" and standing.opened_at is not None else time.time(),
            )
            self._breaker.open()
        elif new == "half_open":
            self._storage.prepared = replace(standing, generation=generation, state=new, open_until=now)
            self._breaker.half_open()
        else:
            self._storage.prepared = replace(
                standing, generation=generation, state=new, closed_at=now, epoch=generation
            )
            self._breaker.close()
        if old != new:
            last_failure = self._store.last_failure
            self._untold.append(Transition(self.name, old, new, reason, generation, last_failure))
        return self._store.standing()

    def _tell(self) -> None:
        while self._untold:
            try:
                transition = self._untold.popleft()
            except IndexError:  # another thread took it
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
                except Exception:  # a listener must not break admission or healing
                    log.exception("circuit_listener_failed", circuit=transition.name)
