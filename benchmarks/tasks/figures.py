"""The works, the names of their metrics, and the pace of a constant load: the same for everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

#: metric, unit, and the value or the reason why there is none
Figure = tuple[str, str, float | str]

HAS_NONE = "has none"
BATCH = 1000
#: tasks of a measured claim
CLAIM = 100
#: of churn: tasks created a second, seconds between two walks of the pruner, and the share of the time after which a
#: subject counts as started
CHURN_RATE = 300
PRUNE_SECONDS = 10.0
CHURN_START = 0.1

TASKS = ("tasks", "1/s")
WORKERS_CPU = ("CPU of the workers", "µs/task")
SERVER_CPU = ("CPU of the database or broker", "µs/task")
WAL = ("WAL, claim and completion", "bytes/task")
DEAD = ("dead row versions left behind", "1/task")
MEDIAN = ("median", "ms")
P95 = ("p95", "ms")
WAITED = ("seconds that each task waits", "s")
TOOK = ("seconds until the last of them has ended", "s")
HELD = ("held at once", "1")
RESIDENT = ("resident memory of the worker", "MiB")
EACH = ("memory for each task held", "KiB")
CREATOR_CPU = ("CPU of the creating process", "µs/task")
CLAIM_EMPTY = ("claim of 100 beside no other task", "ms")
CLAIM_FULL = ("claim of 100 beside the future tasks", "ms")
CLAIM_RATIO = ("the second divided by the first", "1")
HTTP_CPU = ("CPU of the gateway and the task service", "µs/task")
ENDED = ("tasks ended while they were created", "1/s")
WAITING = ("tasks waiting when creation stops", "1")


@dataclass(frozen=True, slots=True)
class Size:
    """What the tables of a subject take, in MiB, and the dead rows in them."""

    tables: float
    indexes: float
    dead: float


@dataclass(frozen=True, slots=True)
class Churned:
    """What a subject looked like early or at the end of churn; None for what it has not."""

    size: Size | None
    claim: float | None
    resident: float | None


def churn_figures(when: str, seen: Churned) -> list[Figure]:
    """The same metrics for everybody; `when` tells the early ones from those at the end."""

    def figure(metric: str, unit: str, value: float | None) -> Figure:
        return f"{metric}, {when}", unit, HAS_NONE if value is None else value

    size = seen.size
    return [
        figure("tables", "MiB", None if size is None else size.tables),
        figure("indexes", "MiB", None if size is None else size.indexes),
        figure("dead rows", "1", None if size is None else size.dead),
        figure("claim of 100", "ms", seen.claim),
        figure("resident memory of the worker", "MiB", seen.resident),
    ]


def keep_pace(
    create: Callable[[int], object],
    *,
    per_second: float,
    seconds: float,
    each_turn: Callable[[float], object],
    turn: float = 0.1,
    most: int = BATCH,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """Create what is due every `turn` seconds; who falls behind catches up, `most` at once, until the time is over.
    Gives the number created.

    `each_turn` is told the seconds since the beginning, after each creation.
    """
    began, made, turns = now(), 0, 0
    while True:
        passed = min(now() - began, seconds)
        due = min(int(per_second * passed) - made, most)
        if due > 0:
            create(due)
            made += due
        each_turn(passed)
        if passed >= seconds:
            return made
        turns = max(turns + 1, int(passed / turn))
        rest = began + turns * turn - now()
        if rest > 0:
            sleep(rest)
