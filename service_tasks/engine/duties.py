"""What every duty of a worker has in common: it outlives the database."""

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
    """Does `work` again and again. While the database is away it waits, longer and longer up to two seconds,
    and says so once; whatever else goes wrong ends the worker."""

    def __init__(
        self, name: str, *, on_death: Callable[[], None], longest_pause: float = LONGEST_PAUSE_SECONDS
    ) -> None:
        """`longest_pause`, in seconds, is the most that lies between two tries while the database is away."""
        super().__init__(name, pause=self.next_pause, on_death=on_death)
        self._away = Backoff(FIRST_PAUSE_SECONDS, longest_pause)
        self._pause_seconds = 0.0

    @abstractmethod
    def work(self) -> float:
        """Do it once; gives the seconds until it should be done again (a wake-up may come earlier)."""

    def database_is_away(self) -> None:
        """For what has to be forgotten then."""
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
        """For whoever runs the duty by hand: wait as its own thread would."""
        self._wake.wait(self._pause_seconds)

    def next_pause(self) -> float:
        """Seconds until the next run, decided by the last one."""
        return self._pause_seconds
