"""The reports: who may see which, and how their rows become answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from threading import BoundedSemaphore
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote_plus, urlencode

from service_sites.domain.people import INTERNAL, SiteRole
from service_sites.errors import SiteNotFound
from service_sites.persistence import reports
from service_sites.persistence.reports import Counted, Question, SiteInScope
from service_sites.schemas.reports import (
    LONGEST_PERIOD,
    REPORTS,
    CountsReport,
    Figure,
    PeriodQuery,
    ReportQuery,
    ReportRow,
    ReportView,
    TimeToCloseRow,
)
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.web.schemas import parse_query
from servicekit.wire.caseless import comparable
from servicekit.wire.errors import Forbidden, Invalid, Overloaded

R = TypeVar("R", bound=ReportView)

_DAY = timedelta(days=1)
#: From the first day to the last, if nobody says.
_USUAL = timedelta(days=29)


def roles_of(report: str) -> tuple[SiteRole, ...]:
    """Who may see a report. A contractor is shown their organisation's rows, a customer what customers see."""
    return (*INTERNAL, SiteRole.CUSTOMER if report == "progress" else SiteRole.CONTRACTOR)


class Reports:
    """The use cases; thread-safe. So many are made at once, lest they take all threads and connections."""

    def __init__(self, database: Database, at_once: int = 4, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._places = BoundedSemaphore(at_once)
        self._clock = clock

    def show(self, view: type[R], query: ReportQuery, caller: Principal) -> R:
        """Make a report on all sites on which the caller may see it, or on one.

        Raises `SiteNotFound`; `Forbidden` for whoever has another role on it, or on all theirs; `Invalid` for a
        period that is too long; and `Overloaded` while as many are being made as may be.
        """
        with self.place():
            return self._made(view, query, caller)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Be one of those that are made at once, or the list behind a figure of one. Raises `Overloaded`."""
        if not self._places.acquire(blocking=False):
            raise Overloaded("Too many reports are being made at the moment; try again.")
        try:
            yield
        finally:
            self._places.release()

    def _made(self, view: type[R], query: ReportQuery, caller: Principal) -> R:
        reach = caller.reach(Action.READ_SITES)
        now = self._clock()
        roles = roles_of(view.report)
        reached = reports.scope_of(self._database, query.site_id, now, reach=reach)
        if query.site_id is not None and not reached:
            raise SiteNotFound
        sites = [site for site in reached if reach.owner is None or site.role in roles]
        if reached and not sites:
            raise Forbidden(f"This report is for the roles {', '.join(roles)}.")
        today = max((site.today for site in sites), default=now.date())
        question = _asked(view, query, now, *_period(view, query, today))
        if view.report == "burndown":
            rows = self._burn_down(view, question, sites, today, reach)
        else:
            rows = self._rows(view, question, sites, reach)
        total = {"total": rows.pop()} if "total" in view.model_fields else {}
        return view.unchecked(by=query.by, first_day=question.first, last_day=question.last, rows=rows, **total)

    def _rows(
        self, view: type[ReportView], question: Question, sites: Sequence[SiteInScope], reach: Reach
    ) -> list[ReportRow]:
        """The rows, and last the total."""
        figures = view.row.figures()
        found = {row.key: row for row in reports.count(self._database, question, figures, reach=reach)}
        counts: dict[Any, Mapping[str, int]] = {
            key: {name: getattr(row, name) for name in figures} for key, row in found.items()
        }
        total = counts.pop(None, None) or {name: sum(row[name] for row in counts.values()) for name in figures}
        names = {key: key for key in sorted(counts, key=lambda key: (key == "", comparable(key), key))}
        if question.by == "site":
            names = {str(site.id): site.name for site in sites if str(site.id) in counts}
        if question.by == "assignee":
            known = reports.member_names(self._database, question, reach=reach)
            people = {key: known.get(key, "") for key in counts}
            names = dict(sorted(people.items(), key=lambda one: (one[0] == "", comparable(one[1]), one[0])))
        if question.by == "location":
            places = reports.places(self._database, question, reach=reach)
            of_site = {site.id: [site.name] for site in sites if len(sites) > 1}
            names = {place.ids[-1]: " / ".join([*of_site.get(place.site_id, []), *place.names]) for place in places}
            counts = _with_what_they_hold(counts, {place.ids[-1]: place.ids for place in places})
            names = {key: name for key, name in {**names, "": ""}.items() if key in counts}
        rows: list[tuple[str | None, str | None, Mapping[str, int]]] = [
            *((key, name, counts[key]) for key, name in names.items()),
            (None, None, total),
        ]
        link = _link(view, question)
        return [_row(view, link, key, name, numbers, found.get(key)) for key, name, numbers in rows]

    def _burn_down(
        self, view: type[ReportView], question: Question, sites: Sequence[SiteInScope], today: date, reach: Reach
    ) -> list[ReportRow]:
        days = list(_days(question, today))
        theirs = any(site.role == SiteRole.CONTRACTOR for site in sites)
        numbers = reports.burn_down(self._database, question, days, theirs=theirs, reach=reach)
        link = _link(view, question)
        return [
            _row(view, link, day.isoformat(), day.isoformat(), {"open": number}, None)
            for day, number in zip(days, numbers, strict=True)
        ]


def counted_in(link: str, now: datetime, *, reach: Reach) -> tuple[Counted, Mapping[str, Any]]:
    """The items of a report's figure, by the `counted_in` of its link, and the parameters of their condition. Raises
    `Invalid`."""
    name, _, asked = link.partition("?")
    parts = dict(parse_qsl(asked, keep_blank_values=True))
    figure, row = parts.pop("figure", ""), parts.pop("key", None)
    view = REPORTS.get(name)
    with suppress(Invalid):
        query = None if view is None else parse_query(view.query, urlencode(parts))
        is_row = _is_day(row) if name == "burndown" else "\0" not in (row or "")
        if view is not None and query is not None and is_row and figure in view.row.figures():
            # Links name their days. One that somebody made up is kept from asking for each week of all time.
            question = _asked(view, query, now, *_period(view, query, now.date()))
            counted = Counted(question.report, question.by, figure, row is not None)
            return counted, reports.counted_values(question, row, reach=reach)
    raise Invalid.field("counted_in", "must be as a report's link has it")


def _is_day(text: str | None) -> bool:
    try:
        return date.min < date.fromisoformat(text or "") < date.max
    except ValueError:
        return False


def _asked(
    view: type[ReportView], query: ReportQuery, now: datetime, first: date | None, last: date | None
) -> Question:
    name = view.report.replace("-", "_")
    return Question(name, query.by, now, query.site_id, roles_of(view.report), first, last)


def _period(view: type[ReportView], query: ReportQuery, today: date) -> tuple[date | None, date | None]:
    """The first and last day. Raises `Invalid`."""
    if not isinstance(query, PeriodQuery):
        return None, None
    if view is CountsReport:
        return query.first, query.last
    last = query.last or max(today, query.first or today)
    first = query.first or (last - _USUAL if last - date.min > _USUAL else date.min)
    if last - first >= LONGEST_PERIOD:
        raise Invalid.field("from", f"must be less than {LONGEST_PERIOD.days} days before the last")
    return first, last


def _days(question: Question, today: date) -> Iterable[date]:
    """The days at whose end open items are counted: none that has not begun anywhere."""
    assert question.first is not None
    assert question.last is not None
    last = min(question.last, today)
    for number in range((last - question.first).days + 1):
        day = question.first + number * _DAY
        following = day + _DAY
        ends = {"day": True, "week": following.weekday() == 0, "month": following.day == 1}
        if day == last or ends[question.by]:
            yield day


def _with_what_they_hold(
    counts: Mapping[str, Mapping[str, int]], paths: Mapping[str, Sequence[str]]
) -> dict[str, Mapping[str, int]]:
    """The counts of each location and of those that it holds together."""
    summed: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, numbers in counts.items():
        for place in paths.get(key, [key]):
            for figure, number in numbers.items():
                summed[place][figure] += number
    return {**summed}


def _link(view: type[ReportView], question: Question) -> str:
    """The beginning of the links to the items of a report's figures; what names the figure and the row follows."""
    asked = {"by": question.by, "from": question.first, "to": question.last}
    named = urlencode({part: value for part, value in asked.items() if value is not None})
    site = "" if question.site_id is None else f"site_id={question.site_id}&"
    return f"/work-items?{site}counted_in={quote_plus(f'{view.report}?{named}&figure=')}"


def _row(
    view: type[ReportView],
    link: str,
    key: str | None,
    name: str | None,
    numbers: Mapping[str, int],
    measured: Any,
) -> ReportRow:
    of_row = "" if key is None else quote_plus(f"&key={quote_plus(key)}")
    figures = {
        figure: Figure.unchecked(count=number, items=f"{link}{figure}{of_row}") for figure, number in numbers.items()
    }
    rates = {
        rate: round(numbers[part] / numbers[whole], 4) if numbers[whole] else None
        for rate, (part, whole) in view.row.rates.items()
    }
    times = _times(measured) if view.row is TimeToCloseRow else {}
    return view.row.unchecked(key=key, name=name, **figures, **rates, **times)


def _times(measured: Any) -> dict[str, float | None]:
    """The median and the ninth decile of each of the three times, in days."""
    names = {"": "days", "first_close_": "first_days", "contractor_": "contractor_days"}
    pairs = {name: getattr(measured, column, None) or (None, None) for name, column in names.items()}
    return {
        f"{name}{part}_days": None if value is None else round(value, 2)
        for name, pair in pairs.items()
        for part, value in zip(("median", "p90"), pair, strict=True)
    }
