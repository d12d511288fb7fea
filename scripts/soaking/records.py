"""The records of a soak: answers, kills and measurements of memory. Times are time.monotonic()."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NotedAnswer:
    """One request and its answer. `status` is 0 if the connection ended or nothing came in time."""

    began: float
    ended: float
    method: str
    route: str
    #: The services it needs; without one of them a 5xx is right.
    needs: tuple[str, ...]
    status: int
    code: str = ""
    #: Whether it has the envelope, with the right fields.
    enveloped: bool = True
    #: Whether this status is right for the request while everything works.
    expected: bool = True
    #: What was wrong, as text.
    said: str = ""

    @property
    def lost(self) -> bool:
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Kill:
    """One process killed. `hurts` are the services that may answer 5xx from `at` until `well_at`."""

    at: float
    victim: str
    pid: int
    hurts: tuple[str, ...]
    #: When everything it hurts was seen to work again; None if that took too long.
    well_at: float | None
    #: The signal; after SIGSTOP, `continued_at` is the time of SIGCONT.
    signal: str = "SIGKILL"
    continued_at: float | None = None

    @property
    def seconds(self) -> float | None:
        return None if self.well_at is None else self.well_at - self.at


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process at one time, in MiB."""

    at: float
    name: str
    pid: int
    mib: float


@dataclass(frozen=True)
class Seen:
    """The records and faults of any soak."""

    began: float
    seconds: float
    seed: str
    answers: list[NotedAnswer]
    kills: list[Kill]
    memory: list[Memory]
    faults: list[str]
