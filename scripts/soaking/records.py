"""The records of a soak: every answer, every kill, every measurement of memory. Times are time.monotonic()."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NotedAnswer:
    """One request and what came of it. `status` is 0 when the connection ended, or nothing came in time."""

    began: float
    ended: float
    method: str
    route: str
    #: The services it needs. Without one of them a 5xx is right.
    needs: tuple[str, ...]
    status: int
    code: str = ""
    #: Whether a reader can know what it means: it has the envelope and the fields that belong to it.
    enveloped: bool = True
    #: Whether this status is right for the request while everything works.
    expected: bool = True
    #: What was wrong, in words.
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
    #: The signal; of a stopped one, when it was let go on.
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
    """What every soak saw, and its faults in words."""

    began: float
    seconds: float
    seed: str
    answers: list[NotedAnswer]
    kills: list[Kill]
    memory: list[Memory]
    faults: list[str]
