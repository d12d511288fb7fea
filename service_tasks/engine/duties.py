"""The base of a worker's duties: they survive outages of the database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime

from servicekit.observing.logs import get_logger
from servicekit.process.backoff import Backoff
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import DeadlineExceeded, Unavailable

_log = get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class DatabaseDuty(Duty):
    """Calls `work` repeatedly. While the database is away it logs that once and backs off up to `longest_pause`; any
    other error ends the worker."""

    def __init__(
        self, name: str, *, on_death: Callable[[], None], longest_pause: float = LONGEST_PAUSE_SECONDS
    ) -> None:
        """`longest_pause`: the longest wait between attempts while the database is away, in seconds."""
        super().__init__(name, pause=self.next_pause, on_death=on_death)
        self._away = Backoff(FIRST_PAUSE_SECONDS, longest_pause)
        self._pause_seconds = 0.0

    @abstractmethod
    def work(self) -> float:
        """Do the work once; return the seconds until the next time, unless woken earlier."""

    def database_is_away(self) -> None:
        """Drop state that does not hold while the database is away."""
        return

    def run_once(self, now: datetime) -> None:
        try:
            self._pause_seconds = self.work()
        except (Unavailable, DeadlineExceeded) as exc:
            self.database_is_away()
            self._pause_seconds = self._away.next()
            if self._away.failures == 1:
                _log.warning("database_away", duty=self.name, code=exc.code, cause=repr(exc.__cause__)[:300])
        else:
            if self.is_away:
                _log.info("database_back", duty=self.name, failures=self._away.failures)
            self._away.reset()

    @property
    def is_away(self) -> bool:
        """Whether the database was away at the last run."""
        return self._away.failures > 0

    def pause_after_failure(self) -> None:
        """Wait as the duty's own thread would, for a caller that runs the duty itself."""
        self._wake.wait(self._pause_seconds)

    def next_pause(self) -> float:
        """Seconds until the next run, decided by the last one."""
        return self._pause_seconds
