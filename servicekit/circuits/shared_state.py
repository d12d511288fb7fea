"""Circuits in memory shared by all processes of a server.

It lies in a SharedMemory, laid out as the constants below say. Nothing is ever read half-written:

* Every value is one aligned 8-byte word, written and read in one piece, and includes its generation or second if it has
  one.
* A `CircuitStanding` is written to the side and becomes valid through one word, the head.
* All writes, and all reads of more than one word, happen under the circuit's record lock, which the kernel releases
  when its process dies; only good calls are counted without it, in a row of words for each process.
* A process that is stopped while it holds the lock delays the others once, briefly; they go on without the lock
  (CircuitLockTimeout) until it is free again.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

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
from servicekit.process.shared_memory import WORD, SharedMemory

if TYPE_CHECKING:
    from servicekit.circuits.circuit import CircuitSettings

MAGIC = int.from_bytes(b"circuits", "big")
LAYOUT_VERSION = 1
#: Places for processes. During a reload two generations coexist, and the old processes may be slow to leave.
PROCESSES = 256
#: How long a process waits for a circuit's lock, in seconds. Its holder needs microseconds, unless it is stopped.
PATIENCE = 0.05
#: The same after a failure, until the lock has been free again: an event loop waits only once for a stopped process.
IMPATIENCE = 0.0002
#: The same for the table of processes, when a process starts, which is not urgent.
_TABLE_PATIENCE = 2.0

# The file's header: magic, version, circuits, trials, seconds of a window, places for processes, places ever used.
_HEADER = 8
_USED_PLACES = 6
# For each process: its id, and when it took its place.
_PROCESS = 2

# A circuit's block, in words.
_HEAD = 0  # generation << 2 | state
_CONSECUTIVE = 1  # generation << 32 | count
_GOOD_TRIALS = 2  # generation << 32 | count
_SEEN_AWAY = 3  # epoch + 1, or 0
_LAST_PROBE = 4  # seconds since 1970, negative when it was not ready, 0.0 before the first
_NEXT_TRIAL = 5  # the number last given
_LAST_FAILURE = 6  # 4 words of text
_STANDINGS = 10  # two of them; the generation's lowest bit selects the valid one
_STANDING = 6  # forced, openings, open_until, closed_at, opened_at, epoch
_BUCKETS = _STANDINGS + 2 * _STANDING  # for each second: epoch << 32 | second, then the three counts

_TEXT = 4 * WORD
_TRIAL = 4  # owner (place + 1, 0 free), generation, number, lease until
_STATES: tuple[CircuitState, ...] = ("closed", "open", "half_open")
_FORCED: tuple[Literal["open", "closed"] | None, ...] = (None, "open", "closed")
_LOW = 0xFFFF_FFFF
# Three counts in a word: calls 22 bits, failures and slow calls 21 each.
_COUNT_BITS = 21
_COUNT = (1 << _COUNT_BITS) - 1
# A process's own word: generation 12 bits, second 32, count 20.
_OWN_BITS = 20
_OWN = (1 << _OWN_BITS) - 1

# Record locks are on bytes of the file, at positions unrelated to its content.
_TABLE_LOCK = 1 << 20
_LEADER_LOCK = _TABLE_LOCK + 1
_PLACE_LOCKS = _TABLE_LOCK + 16

log = get_logger(__name__)


class SharedStates:
    """The memory of a set of circuits. Create it before the fork; each process then gets its stores from it.

    Raises OSError when there is no room for it. All processes must use the same settings.
    """

    def __init__(
        self,
        names: Sequence[str],
        settings: CircuitSettings,
        *,
        processes: int = PROCESSES,
        folder: Path | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.names = tuple(names)
        self.window_seconds = settings.window_seconds
        self.trials = settings.trials
        self.processes = processes
        self._trials_at = _BUCKETS + 2 * self.window_seconds
        self._own_at = self._trials_at + _TRIAL * self.trials
        self._block = self._own_at + self.window_seconds * processes
        self.memory = SharedMemory(_HEADER + _PROCESS * processes + self._block * len(self.names), folder=folder)
        self.words, self.floats, self.text = self.memory.words, self.memory.floats, self.memory.bytes
        self.patience = patience
        self.words[1] = LAYOUT_VERSION
        for at, value in enumerate((len(self.names), self.trials, self.window_seconds, processes), 2):
            self.words[at] = value
        self.words[0] = MAGIC
        #: Record locks do not exclude threads of the same process.
        self.threads = threading.Lock()
        self._table_threads = threading.Lock()
        self._pid = 0
        self.place = -1
        self._leader = 0

    def store(self, name: str) -> SharedState:
        """The store of one circuit, for this process."""
        self._attach()
        return SharedState(self, self.names.index(name))

    def elected(self) -> bool:
        """Whether this process is the one elected for tasks that only one may do; when it dies, another takes over."""
        if self._leader != os.getpid() and self.memory.try_lock(_LEADER_LOCK):
            self._leader = os.getpid()
        return self._leader == os.getpid()

    def living(self) -> list[tuple[int, float]]:
        """The id of each process that uses this memory, and when it started to (time.monotonic)."""
        self._attach()
        with self._table_threads:
            # Without the lock, a process that just ended may still be listed.
            locked = self.memory.lock(_TABLE_LOCK, self.patience)
            try:
                found = []
                for place in range(self.used_places()):
                    at = _HEADER + _PROCESS * place
                    if self.words[at] and self.is_alive(place):
                        found.append((self.words[at], self.floats[at + 1]))
            finally:
                if locked:
                    self.memory.unlock(_TABLE_LOCK)
        return sorted(found, key=lambda process: process[1])

    def is_alive(self, place: int) -> bool:
        """Whether the process in this place is alive; the caller holds a lock that keeps others from asking."""
        if place == self.place:
            return True
        if not self.memory.try_lock(_PLACE_LOCKS + place):
            return True
        self.memory.unlock(_PLACE_LOCKS + place)
        return False

    def block(self, circuit: int) -> int:
        """The index of a circuit's first word."""
        return _HEADER + _PROCESS * self.processes + self._block * circuit

    @property
    def trials_at(self) -> int:
        return self._trials_at

    @property
    def own_at(self) -> int:
        return self._own_at

    def used_places(self) -> int:
        """Places up to the highest ever taken."""
        return self.words[_USED_PLACES]

    def _attach(self) -> None:
        """Take a place for this process, locked for as long as the process lives."""
        with self._table_threads:
            if self._pid == os.getpid():
                return
            self.place = -1
            if not self.memory.lock(_TABLE_LOCK, _TABLE_PATIENCE):
                raise OSError("a stopped process holds the lock of the table of processes")
            try:
                for place in range(self.processes):
                    if self.memory.try_lock(_PLACE_LOCKS + place):
                        break
                else:
                    raise OSError(f"more than {self.processes} processes share these circuits")
                at = _HEADER + _PROCESS * place
                self.words[at] = 0
                self.floats[at + 1] = time.monotonic()
                self.words[at] = os.getpid()
                self.words[_USED_PLACES] = max(self.words[_USED_PLACES], place + 1)
                self.place = place
            finally:
                self.memory.unlock(_TABLE_LOCK)
            # The trials of this place's former process died with it. What it counted stays.
            for circuit in range(len(self.names)):
                if not self.memory.lock(circuit, self.patience):
                    continue  # then their lease ends them
                try:
                    first = self.block(circuit) + self._trials_at
                    for at in range(first, first + _TRIAL * self.trials, _TRIAL):
                        if self.words[at] == place + 1:
                            self.words[at] = 0
                finally:
                    self.memory.unlock(circuit)
            self._pid = os.getpid()


class SharedState:
    """One circuit's shared memory. Thread-safe; belongs to the process that got it from the set, not its children."""

    scope: CircuitScope = "machine"
    sharing_failed = False

    def __init__(self, states: SharedStates, circuit: int) -> None:
        self._states = states
        self._memory = states.memory
        self._circuit = circuit
        self._name = states.names[circuit]
        self.held_up = False
        self._words = states.words
        self._floats = states.floats
        self._base = states.block(circuit)
        self._seconds = states.window_seconds
        self._rows = self._base + states.own_at
        self._row = self._rows + states.place * self._seconds
        self._lock = states.threads
        self._alone: tuple[int, int] | None = None
        self._wanted: tuple[int, int, list[int], list[int]] = (-1, -1, [], [])
        self._seen: tuple[int, CircuitStanding] = (-1, CircuitStanding())

    def __enter__(self) -> Self:
        self._take_lock()
        head = self._words[self._base]
        if head != self._seen[0]:
            self._seen = (head, self._read(head))
        return self

    def _take_lock(self) -> None:
        """Exclude threads and processes; raises CircuitLockTimeout when another process does not let go."""
        limit: float | None = None
        while True:
            self._lock.acquire()
            locked = False
            try:
                locked = self._memory.try_lock(self._circuit)
            finally:
                # Threads of this process need not wait for the stopped one.
                if not locked:
                    self._lock.release()
            if locked:
                break
            now = time.monotonic()
            if limit is None:
                limit = now + (IMPATIENCE if self.held_up else self._states.patience)
                pause = 0.000_02
            elif now >= limit:
                if not self.held_up:
                    self.held_up = True
                    log.error("circuit_held_up", circuit=self._name)
                raise CircuitLockTimeout(self._name)
            time.sleep(pause)
            pause = min(2 * pause, 0.001)
        if self.held_up:
            self.held_up = False
            log.warning("circuit_free_again", circuit=self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._memory.unlock(self._circuit)
        finally:
            self._lock.release()

    def standing(self) -> CircuitStanding:
        seen = self._seen
        if self._words[self._base] == seen[0]:
            return seen[1]
        # It changes only under the lock, so it is read under the lock.
        try:
            with self:
                return self._seen[1]
        except CircuitLockTimeout:
            return self._read_held_up()

    def _read_held_up(self) -> CircuitStanding:
        """Read without the lock: the next change writes the other standing, and the one after that another head."""
        while True:
            head = self._words[self._base]
            standing = self._read(head)
            if self._words[self._base] == head:
                self._seen = (head, standing)
                return standing

    def _read(self, head: int) -> CircuitStanding:
        generation = head >> 2
        at = self._base + _STANDINGS + _STANDING * (generation & 1)
        forced, openings = self._words[at], self._words[at + 1]
        open_until, closed_at, opened_at = self._floats[at + 2], self._floats[at + 3], self._floats[at + 4]
        return CircuitStanding(
            generation=generation,
            state=_STATES[head & 3],
            forced=_FORCED[forced],
            openings=openings,
            open_until=open_until,
            closed_at=None if math.isnan(closed_at) or not generation else closed_at,
            opened_at=None if math.isnan(opened_at) or not generation else opened_at,
            epoch=self._words[at + 5],
        )

    def commit(self, standing: CircuitStanding) -> None:
        head = self._words[self._base]
        if standing.generation != (head >> 2) + 1:
            raise RuntimeError(f"generation {standing.generation} does not follow {head >> 2}")
        at = self._base + _STANDINGS + _STANDING * (standing.generation & 1)
        self._words[at] = _FORCED.index(standing.forced)
        self._words[at + 1] = standing.openings
        self._floats[at + 2] = standing.open_until
        self._floats[at + 3] = math.nan if standing.closed_at is None else standing.closed_at
        self._floats[at + 4] = math.nan if standing.opened_at is None else standing.opened_at
        self._words[at + 5] = standing.epoch
        # Makes it valid for all processes at once.
        head = standing.generation << 2 | _STATES.index(standing.state)
        self._words[self._base] = head
        self._seen = (head, standing)

    def add_success(self, generation: int, now: float) -> bool:
        if self._alone != (generation, int(now)):
            return False
        with self._lock:
            words = self._words
            if words[self._base] >> 2 != generation or words[self._base + _CONSECUTIVE] & _LOW:
                return False
            second = int(now)
            at = self._row + second % self._seconds
            tag = (generation & 0xFFF) << 32 | second & _LOW
            value = words[at]
            words[at] = value + 1 if value >> _OWN_BITS == tag else tag << _OWN_BITS | 1
            return True

    def allow_add_success(self, generation: int, now: float) -> None:
        self._alone = (generation, int(now))

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        words = self._words
        second = int(now)
        at = self._base + _BUCKETS + 2 * (second % self._seconds)
        tag = self.standing().epoch << 32 | second & _LOW
        if words[at] != tag:
            words[at] = 0
            words[at + 1] = 0
            words[at] = tag
        words[at + 1] += 1 << 2 * _COUNT_BITS | int(failed) << _COUNT_BITS | int(slow)

    def totals(self, now: float) -> WindowTotals:
        second, epoch = int(now), self.standing().epoch
        if self._wanted[:2] != (second, epoch):
            # The tag that each bucket must have to count now.
            seconds = [0] * self._seconds
            for one in range(max(second - self._seconds + 1, 0), second + 1):
                seconds[one % self._seconds] = one & _LOW
            shared = [epoch << 32 | one for one in seconds]
            own = [(epoch & 0xFFF) << 32 | one for one in seconds]
            self._wanted = (second, epoch, shared, own)
        _, _, shared, own = self._wanted
        calls = failures = slow = 0
        first = self._base + _BUCKETS
        words = self._words[first : first + 2 * self._seconds].tolist()
        for wanted, tag, counts in zip(shared, words[::2], words[1::2], strict=True):
            if tag == wanted:
                calls += counts >> 2 * _COUNT_BITS
                failures += counts >> _COUNT_BITS & _COUNT
                slow += counts & _COUNT
        places = self._states.used_places()
        rows = self._words[self._rows : self._rows + places * self._seconds].tolist()
        for wanted, word in zip(own * places, rows, strict=True):
            if word and word >> _OWN_BITS == wanted:
                calls += word & _OWN
        return WindowTotals(calls, failures, slow)

    @property
    def consecutive_failures(self) -> int:
        return self._counted(_CONSECUTIVE)

    @consecutive_failures.setter
    def consecutive_failures(self, count: int) -> None:
        self._count(_CONSECUTIVE, count)

    @property
    def good_trials(self) -> int:
        return self._counted(_GOOD_TRIALS)

    @good_trials.setter
    def good_trials(self, count: int) -> None:
        self._count(_GOOD_TRIALS, count)

    def _counted(self, at: int) -> int:
        value = self._words[self._base + at]
        return value & _LOW if value >> 32 == self.standing().generation & _LOW else 0

    def _count(self, at: int, count: int) -> None:
        self._words[self._base + at] = (self.standing().generation & _LOW) << 32 | count

    @property
    def seen_away(self) -> bool:
        return self._words[self._base + _SEEN_AWAY] == self.standing().epoch + 1

    @seen_away.setter
    def seen_away(self, away: bool) -> None:
        self._words[self._base + _SEEN_AWAY] = self.standing().epoch + 1 if away else 0

    @property
    def last_probe(self) -> tuple[float, bool] | None:
        at = self._floats[self._base + _LAST_PROBE]
        return None if at == 0 else (abs(at), at > 0)

    @last_probe.setter
    def last_probe(self, probe: tuple[float, bool] | None) -> None:
        at, ok = probe or (0.0, True)
        self._floats[self._base + _LAST_PROBE] = at if ok else -at

    @property
    def last_failure(self) -> str:
        at = (self._base + _LAST_FAILURE) * WORD
        return bytes(self._states.text[at : at + _TEXT]).rstrip(b"\0").decode("utf-8", "ignore")

    @last_failure.setter
    def last_failure(self, word: str) -> None:
        at = (self._base + _LAST_FAILURE) * WORD
        self._states.text[at : at + _TEXT] = word.encode("utf-8", "replace")[:_TEXT].ljust(_TEXT, b"\0")

    def take_trial(self, now: float, until: float, limit: int) -> int | None:
        words, generation = self._words, self.standing().generation
        for at in self._trial_places(limit):
            if self._is_trial(at, now):
                continue
            number = words[self._base + _NEXT_TRIAL] + 1
            words[self._base + _NEXT_TRIAL] = number
            words[at] = 0
            words[at + 1] = generation
            words[at + 2] = number
            self._floats[at + 3] = until
            words[at] = self._states.place + 1
            return number
        return None

    def has_trial(self, now: float) -> bool:
        return any(self._is_trial(at, now) for at in self._trial_places(self._states.trials))

    def _trial_places(self, limit: int) -> range:
        first = self._base + self._states.trials_at
        return range(first, first + _TRIAL * min(limit, self._states.trials), _TRIAL)

    def _is_trial(self, at: int, now: float) -> bool:
        owner = self._words[at]
        return bool(
            owner
            and self._words[at + 1] == self.standing().generation
            and self._floats[at + 3] > now
            and self._states.is_alive(owner - 1)
        )

    def end_trial(self, trial: int, now: float) -> bool:
        words = self._words
        for at in self._trial_places(self._states.trials):
            if words[at] and words[at + 2] == trial:
                words[at] = 0
                return self._floats[at + 3] > now
        return False


_inherited: dict[str, SharedStates | None] = {}


def prepare_circuits(server: str, names: Sequence[str], settings: CircuitSettings) -> None:
    """Create the memory shared by the processes of `server`. Called by its master before it forks; later calls do
    nothing.

    Without shared memory, each process has its own circuits, and says so (`sharing_failed`).
    """
    if server in _inherited:
        return
    try:
        _inherited[server] = SharedStates(names, settings)
    except OSError as error:
        _inherited[server] = None
        log.error("circuits_not_shared", server=server, error=str(error))


def inherited(server: str) -> SharedStates | None:
    """The memory that `prepare_circuits` made in this process's master, if any."""
    return _inherited.get(server)


def store_for(server: str, name: str, settings: CircuitSettings) -> StateStore:
    """A circuit's store: shared if the master prepared one, else this process's own."""
    states = inherited(server)
    if states is None:
        return LocalState(settings.window_seconds, sharing_failed=server in _inherited)
    try:
        return states.store(name)
    except OSError as error:
        log.error("circuits_not_shared", server=server, error=str(error))
        return LocalState(settings.window_seconds, sharing_failed=True)
