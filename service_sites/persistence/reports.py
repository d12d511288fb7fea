"""Every query of the reports: how many items each figure counts, and which."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, literal_column, text
from sqlalchemy.dialects.postgresql.psycopg2 import dialect

from service_sites.domain.item import WorkState
from service_sites.domain.people import SiteRole
from service_sites.persistence.items import overdue, visible_to
from service_sites.tables import WorkItem
from servicekit.database.engine import Database
from servicekit.database.queries import filled_in, read_statements
from servicekit.identity.reach import Reach

_DIALECT = dialect()  # type: ignore[no-untyped-call]
_OPEN = (WorkState.OPEN, WorkState.IN_PROGRESS, WorkState.READY, WorkState.RETURNED, WorkState.DISPUTED)
_DAY = timedelta(days=1)
#: Reports on what happened; the others are on how things are.
_OF_TURNS = frozenset({"time_to_close", "on_time", "returns"})
#: Over more days than this a report reads most of the history, where to seek each item by itself takes longer.
_LONG = timedelta(days=100)
_ALL_AT_ONCE = "SET LOCAL enable_nestloop = off; "
#: What was closed is sorted by its items, and an index gives these in their order.
_IN_ORDER = "SET LOCAL enable_hashjoin = off; "
#: The rows are few; to sort all items, of which it expects too few, takes longer than to count them as they come.
_NEVER_SORTED = "SET LOCAL enable_sort = off; "
#: The default is too little to sort 100,000 items.
_MEMORY = "SET LOCAL work_mem = '64MB'; "


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is asked."""

    #: Such as "on_time".
    report: str
    by: str
    now: datetime
    #: None: all sites within reach.
    site_id: UUID | None
    #: The roles on a site that may ask it.
    roles: Collection[SiteRole]
    #: The first and last day, at each site; None: from the beginning, and until now.
    first: date | None = None
    last: date | None = None

    def values(self, reach: Reach) -> dict[str, Any]:
        first = "-infinity" if self.first is None else self.first.isoformat()
        behind = "infinity" if self.last in (None, date.max) else (self.last + _DAY).isoformat()
        rows = [day.isoformat() for day in self._begin()]
        return {
            "reach": reach.owner,
            "now": self.now,
            "of_site": self.site_id,
            "may": [role.value for role in self.roles],
            "first": first,
            "behind": behind,
            "days": [first, *rows, behind],
        }

    def _begin(self) -> Iterator[date]:
        """The days with which weeks or months begin after the first."""
        if self.by in ("week", "month") and self.first is not None and self.last is not None:
            for number in range(1, (self.last - self.first).days + 1):
                day = self.first + number * _DAY
                if (day.weekday() == 0) if self.by == "week" else (day.day == 1):
                    yield day


class SiteInScope(NamedTuple):
    """A site that somebody may ask about; `role` is theirs there, if any."""

    id: UUID
    key: str
    name: str
    role: str | None
    today: date


class Place(NamedTuple):
    """A location, with the ids and names of what holds it, from the top; the last are its own."""

    site_id: UUID
    ids: Sequence[str]
    names: Sequence[str]


def scope_of(database: Database, site_id: UUID | None, now: datetime, *, reach: Reach) -> list[SiteInScope]:
    """The sites within reach, or that with this id, by their keys."""
    values = {"of_site": site_id, "now": now, "reach": reach.owner}
    return [SiteInScope(*row) for row in database.once(_statement("scope_of_report"), values)]


def places(database: Database, question: Question, *, reach: Reach) -> list[Place]:
    """The locations of the sites that a report is about, in the order of their trees."""
    return [Place(*row) for row in database.once(_statement("places"), question.values(reach))]


def member_names(database: Database, question: Question, *, reach: Reach) -> dict[str, str]:
    """The names of the people of the sites that a report is about, by their ids."""
    return dict(database.once(_statement("member_names"), question.values(reach)))


def count(database: Database, question: Question, figures: Sequence[str], *, reach: Reach) -> list[Any]:
    """The rows of a report: its `key` (None: the total, which is missing where it is the sum of the others), the number
    of items in each figure, and whatever else the report measures."""
    before = _MEMORY
    if question.report not in _OF_TURNS:
        before += _NEVER_SORTED
    elif question.first is None or question.last is None or question.last - question.first > _LONG:
        before += _ALL_AT_ONCE
        if question.report != "returns":
            before += _IN_ORDER
    statement = before + _counting(question.report, question.by, tuple(figures))
    return database.once(statement, question.values(reach), with_names=True)


def burn_down(database: Database, question: Question, days: Sequence[date], *, theirs: bool, reach: Reach) -> list[int]:
    """How many items were open at the end of each of these ascending days. `theirs`: somewhere the caller is shown only
    those of their organisation."""
    values = {**question.values(reach), "days": [(day + _DAY).isoformat() for day in days]}
    statement = _statement("burndown", and_theirs="{and_theirs_alone}" if theirs else "")
    changes = {row.number: row.change for row in database.once(_MEMORY + statement, values, with_names=True)}
    open_items, number = [], 0
    for place in range(len(days)):
        number += changes.get(place, 0)
        open_items.append(number)
    return open_items


class Counted(NamedTuple):
    """The items that a figure of a report counts."""

    report: str
    by: str
    figure: str
    #: In one row of it, or in the total.
    of_row: bool

    @property
    def condition(self) -> ColumnElement[bool]:
        """The condition that an item is one of them, on the parameters that `counted_values` returns."""
        return _items_of(*self)


def counted_values(question: Question, row: str | None, *, reach: Reach) -> dict[str, Any]:
    """The parameters of the items of a figure, in the row with this key or, if None, in the total."""
    values = question.values(reach)
    if question.report == "burndown":
        values["days"] = [(date.fromisoformat(row or "") + _DAY).isoformat()]
    elif row is not None:
        values["row"] = row
    return values


@cache
def _items_of(report: str, by: str, figure: str, of_row: bool) -> ColumnElement[bool]:
    conditions = [figure]
    if of_row and report != "burndown":
        conditions.append("{below}" if by == "location" else f"{_name(by)} = :row")
    whole = f"WITH {{scope}}, {_counted(report, by)} SELECT item_id FROM counted WHERE {' AND '.join(conditions)}"
    return WorkItem.id.in_(text(_filled_in(whole, **_keys(report, by))))


@cache
def _counting(report: str, by: str, figures: tuple[str, ...]) -> str:
    rows = "key"
    columns = [f"{_name(by)} AS key", *(f"count(*) FILTER (WHERE {figure}) AS {figure}" for figure in figures)]
    if f"{report}_measured" in _fragments():
        columns.append(f"{{{report}_measured}}")
        rows = "GROUPING SETS ((key), ())"
    whole = f"WITH {{scope}}, {_counted(report, by)} SELECT {', '.join(columns)} FROM counted GROUP BY {rows}"
    return _statement("whole", whole=whole, **_keys(report, by))


def _name(by: str) -> str:
    """The key of a row as text. To group by ids takes a fifth less time than by their text."""
    return "coalesce(CAST(key AS text), '')" if by in ("assignee", "location") else "CAST(key AS text)"


def _is_over_time(report: str, by: str) -> bool:
    return report == "progress" and by != "site"


def _counted(report: str, by: str) -> str:
    return "{progress_over_time_counted}" if _is_over_time(report, by) else f"{{{report}_counted}}"


def _keys(report: str, by: str) -> Mapping[str, str]:
    """Which row of a report something belongs to: by what is looked at, and by what is counted of it."""
    if report in ("time_to_close", "on_time") and by == "site":
        # An item stays on its site: there is no need to carry its id along.
        return {"key": "CAST(NULL AS text)", "counted_key": "work_items.site_id"}
    if report == "burndown":
        return {"key": ""}
    return {
        "key": f"{{{'turn' if report in _OF_TURNS else 'item'}_key_{by}}}",
        "counted_key": "key",
        # An item is in the row of its site alone, so that the total is the sum.
        "and_total": "" if by == "site" else "{and_in_total}",
    }


def _statement(name: str, **more: str) -> str:
    """A statement as psycopg2 takes it."""
    return str(text(_filled_in(f"{{{name}}}", **more)).compile(dialect=_DIALECT))


def _filled_in(body: str, **more: str) -> str:
    return filled_in(body, {**_fragments(), **more})


@cache
def _fragments() -> Mapping[str, str]:
    reach: ColumnElement[UUID] = literal_column("CAST(:reach AS uuid)")
    organisation: ColumnElement[str] = literal_column("scope.organisation")
    return {
        **read_statements("service_sites.persistence", "reports.sql"),
        "open": "({})".format(", ".join(f"'{state}'" for state in _OPEN)),
        "late": f"coalesce({_compiled(overdue(literal_column('scope.today')))}, false)",
        "shown": _compiled(visible_to(SiteRole.CUSTOMER, reach, organisation)),
    }


def _compiled(condition: ColumnElement[Any]) -> str:
    return str(condition.compile(dialect=_DIALECT))
