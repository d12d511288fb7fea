"""The figures of the task service, read from PostgreSQL at a bounded cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_tasks.domain.distribution import BUCKETS, Distribution
from service_tasks.domain.task import State
from service_tasks.persistence.statements import StoreStatements
from service_tasks.use_cases.stats import WINDOW_MINUTES, Census, EndedAttempts, Figures, Timed, WorkerState
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach

#: a table of up to this many pages (32 MB) is counted exactly, which takes some 15 ms
SMALL_PAGES = 4096
#: how many tasks are counted of each state that has an index
MOST = 2_000
MOST_RUNNING = 10_000
#: pages in the sample from which the rest is estimated
SAMPLED_PAGES = 250
#: the most pairs of type and state returned
GROUPS = 500
#: when more are ready than were counted, the oldest is sought among the first tasks of this many types
HEAD_TYPES = 100
HEADS = 500
MOST_CANCELLED = 10_000
MOST_WORKERS = 1000
#: how many of one owner's tasks are looked at, the newest
MOST_OF_OWNER = 10_000


class StatsStore:
    """Implements `use_cases.stats.StatsRepository`. Raises `DatabaseUnavailable` if the database is away."""

    def __init__(
        self,
        database: Database,
        *,
        small_pages: int = SMALL_PAGES,
        most: int = MOST,
        sampled_pages: int = SAMPLED_PAGES,
    ) -> None:
        self._statements = StoreStatements(database, "stats.sql")
        self._small_pages = small_pages
        self._most = most
        self._sampled_pages = sampled_pages

    def figures(self, *, reach: Reach) -> Figures:
        if reach.owner is not None:
            return self._figures_of(reach.owner)
        with self._statements.transaction() as session:
            # One snapshot for all figures.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            pages, now = self._statements.row(session, "size")
            together = self._statements.row(session, "workers_together")
            whole = pages <= self._small_pages
            census = self._whole(session) if whole else self._partly(session, pages, running=together.busy)
            window = {"minutes": WINDOW_MINUTES}
            minutes: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
            for minute, *counts in self._statements.rows(session, "ended", **window):
                minutes[minute][:3] = counts
            for minute, count in self._statements.rows(session, "cancelled", **window, most=MOST_CANCELLED):
                minutes[minute][3] = count
            types = self._statements.rows(session, "ended_of_types", **window)
            timed = self._timed(session)
            workers = self._statements.rows(session, "workers", most=MOST_WORKERS)
        return Figures(
            now=now,
            census=census,
            minutes={minute: EndedAttempts(*counts) for minute, counts in minutes.items()},
            types={name: EndedAttempts(*counts) for name, *counts in types},
            timed=timed,
            workers=[WorkerState(**row._mapping) for row in workers],
            **together._mapping,
        )

    def _figures_of(self, owner: UUID) -> Figures:
        which = {"reach": str(owner), "most": MOST_OF_OWNER}
        with self._statements.transaction() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            now = self._statements.row(session, "size").now
            together = self._statements.row(session, "workers_together")
            self._statements.run(session, "in_index_order")
            rows = self._statements.rows(session, "of_owner", groups=GROUPS, minutes=WINDOW_MINUTES, **which)
        census = _census(row[1:] for row in rows if row.minute is None)
        minutes: dict[Any, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EndedAttempts._fields, 0))
        types: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EndedAttempts._fields, 0))
        waits: dict[str, Distribution] = defaultdict(Distribution)
        runs: dict[str, Distribution] = defaultdict(Distribution)
        for minute, name, outcome, waited, ran in (row for row in rows if row.minute is not None):
            minutes[minute][outcome] += 1
            types[name][outcome] += 1
            if outcome in (State.COMPLETED, State.FAILED) and ran is not None:
                waits[name].add(waited)
                runs[name].add(ran)
        if sum(census.states.values()) >= MOST_OF_OWNER:
            census = replace(census, estimated=frozenset(census.states))
        return Figures(
            now=now,
            census=census,
            minutes={minute: EndedAttempts(**counts) for minute, counts in minutes.items()},
            types={name: EndedAttempts(**counts) for name, counts in types.items()},
            timed={name: Timed(waits[name].counts, runs[name].counts) for name in runs},
            workers=[],
            **together._mapping,
        )

    def _whole(self, session: Session) -> Census:
        return _census(self._statements.rows(session, "count_all", groups=GROUPS))

    def _partly(self, session: Session, pages: int, *, running: int) -> Census:
        """`running`: how many tasks the workers report to hold."""
        statements = self._statements
        statements.run(session, "by_index")
        limits = {"most": self._most + 1, "most_running": MOST_RUNNING + 1}
        counted = _census(statements.rows(session, "count_some", groups=GROUPS, **limits))
        statements.run(session, "with_sorting")
        limit = {State.RUNNING: MOST_RUNNING}
        over = {state for state, count in counted.states.items() if count > limit.get(state, self._most)}
        over.add(State.COMPLETED)
        percent = min(100.0, 100.0 * self._sampled_pages / pages)
        sampled = _census(statements.rows(session, "sample", percent=percent, groups=GROUPS), factor=100.0 / percent)
        oldest = counted.oldest
        if State.READY in over:
            oldest = dict(statements.rows(session, "oldest_ready", types=HEAD_TYPES, heads=HEADS))
        guessed = {**sampled.states, State.RUNNING: running}
        return Census(
            states={
                **{state: count for state, count in counted.states.items() if state not in over},
                # No estimate is below the count.
                **{state: max(guessed.get(state, 0), counted.states.get(state, 0)) for state in over},
            },
            types={
                **{(name, state): count for (name, state), count in counted.types.items() if state not in over},
                **{(name, state): count for (name, state), count in sampled.types.items() if state in over},
            },
            oldest=oldest,
            estimated=frozenset(over),
        )

    def _timed(self, session: Session) -> dict[str, Timed]:
        found: dict[str, Timed] = {}
        for name, bucket, waits, runs in self._statements.rows(session, "times", minutes=WINDOW_MINUTES):
            timed = found.setdefault(name, Timed([0] * BUCKETS, [0] * BUCKETS))
            timed.waits[min(bucket, BUCKETS - 1)] += waits
            timed.runs[min(bucket, BUCKETS - 1)] += runs
        return found


def _census(rows: Iterable[Sequence[Any]], factor: float = 1.0) -> Census:
    states: dict[State, int] = {}
    types: dict[tuple[str, State], int] = {}
    oldest: dict[str, float] = {}
    for name, state_name, many, age in rows:
        state, count = State(state_name), round(many * factor)
        if name is None:
            states[state] = count
            continue
        types[name, state] = count
        if age is not None:
            oldest[name] = age
    return Census(states=states, types=types, oldest=oldest, estimated=frozenset())
