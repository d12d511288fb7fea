"""Asks upstreams whether they are ready, more often while one is away or its circuit is not closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from servicekit.circuits.circuit import Circuit
from servicekit.observing.logs import get_logger
from servicekit.observing.shortage import is_shortage, report
from servicekit.process.backoff import draw, jittered

log = get_logger(__name__)


class Prober:
    """A thread that asks, at a jittered interval, every upstream that is away or whose circuit is not closed, and each
    other one at a longer interval, by which one that nobody calls is missed.

    `ask(name)` returns whether the upstream says it is ready (its /readyz). It must have its own time limit; raising
    means no, except an OSError that says this process is out of files or the like. The circuit decides what an answer
    means (Circuit.note_probe). Before each round, `elected` tells whether this process is the one to ask, among those
    that share the circuits.
    """

    def __init__(
        self,
        circuits: Sequence[Circuit],
        ask: Callable[[str], bool],
        *,
        interval: float = 1.0,
        well_interval: float = 5.0,
        jitter: float = 0.3,
        chance: Callable[[], float] = draw,
        clock: Callable[[], float] = time.monotonic,
        elected: Callable[[], bool] = lambda: True,
    ) -> None:
        """`interval` and `well_interval` are in seconds; `clock` is monotonic."""
        if interval <= 0 or well_interval < interval or not 0 <= jitter < 1:
            raise ValueError(
                "interval is above 0, well_interval no shorter, and jitter a share from 0 up to, not including, 1"
            )
        self._circuits = tuple(circuits)
        self._ask = ask
        self._interval = interval
        self._well_interval = well_interval
        self._jitter = jitter
        self._chance = chance
        self._clock = clock
        #: When each upstream is asked next even if all is well. Not at the start, when the others start too.
        self._due = {circuit.name: self._next_due() for circuit in circuits}
        self._elected = elected
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="circuit-prober", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Stop the thread; idempotent, also before start."""
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def run_once(self) -> int:
        """Ask once for every circuit whose turn it is, if elected; returns how many were asked."""
        if not self._elected():
            return 0
        asked = 0
        for circuit in self._circuits:
            snapshot = circuit.snapshot()
            is_well = snapshot.forced or (snapshot.state == "closed" and not snapshot.seen_away)
            if is_well and self._clock() < self._due[circuit.name]:
                continue
            self._due[circuit.name] = self._next_due()
            asked += 1
            try:
                ready = self._ask(circuit.name)
            except Exception as error:  # any failure means "not ready"
                log.debug("circuit_probe_failed", circuit=circuit.name, error=repr(error))
                if is_shortage(error):
                    # Nothing was sent: this process is out of files, ports or memory.
                    report(error, at=circuit.name)
                    continue
                ready = False
            circuit.note_probe(ready)
        return asked

    def pause(self) -> float:
        """Seconds until the next round, drawn anew each time."""
        return jittered(self._interval, self._jitter, self._chance())

    def _next_due(self) -> float:
        return self._clock() + jittered(self._well_interval, self._jitter, self._chance())

    def _run(self) -> None:
        while not self._stopped.wait(self.pause()):
            self.run_once()
