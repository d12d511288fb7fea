"""Each report says what a slow, plain computation makes of the same histories."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from service_sites.schemas.items import WorkItemQuery
from service_sites.schemas.reports import REPORTS, Figure, PeriodQuery, ReportRow, ReportView, TimeToCloseRow
from service_sites.use_cases.items import WorkItems
from service_sites.use_cases.reports import Reports
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.web.schemas import parse_query
from servicekit.wire.errors import Forbidden
from tests.support import site_histories
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.site_histories import Question, Times, Viewer, World, make_up, quantile, store

#: Beside these, tests of people's work go through the same code from their side.
SEEDS = range(2)
PLAIN = {
    "contractors": site_histories.contractors,
    "ageing": site_histories.ageing,
    "burndown": site_histories.burndown,
    "time-to-close": site_histories.time_to_close,
    "on-time": site_histories.on_time,
    "returns": site_histories.returns,
    "counts": site_histories.counts,
    "progress": site_histories.progress,
}
ASKED = [
    pytest.param(view, by, id=f"{name} by {by}")
    for name, view in REPORTS.items()
    for by in view.query.model_fields["by"].annotation.__args__  # type: ignore[union-attr]  # a Literal
]


def caller_of(viewer: Viewer) -> Principal:
    return Principal(viewer.user_id, Role.ADMIN if viewer.roles is None else Role.USER)


class Stored:
    """Made-up worlds, each in a database of its own."""

    def __init__(self, database: ServiceDatabase, seed: int) -> None:
        self.seed = seed
        self.world = make_up(seed)
        self.database = database.database
        store(database.superuser_url, self.world)
        self.reports = Reports(self.database, clock=lambda: self.world.now)
        self.items = WorkItems(self.database, clock=lambda: self.world.now)

    def behind(self, figure: Figure, caller: Principal) -> set[UUID]:
        """The items that a link lists."""
        path, _, query = figure.items.partition("?")
        assert path == "/work-items"
        page = self.items.search(parse_query(WorkItemQuery, f"{query}&limit=100"), caller)
        found = {UUID(one["id"]) for one in json.loads(page.work_items.encoded_json)}
        assert page.total == len(found)
        return found


@pytest.fixture(scope="module", params=SEEDS)
def stored(request: pytest.FixtureRequest, postgres_server: TestServer) -> Iterator[Stored]:
    for database in postgres_server.service_database("service_sites", {}):
        yield Stored(database, request.param)


def a_question(world: World, viewer: Viewer, view: type[ReportView], by: str, chance: random.Random) -> Question:
    site = chance.choice([None, *(site.id for site in world.sites if viewer.roles is None or site.id in viewer.roles)])
    doubled = site_histories.DOUBLED_HOUR.date()
    first = doubled - timedelta(days=chance.randrange(40))
    last = max(first, chance.choice([doubled - timedelta(days=1), first + timedelta(days=chance.randrange(60, 250))]))
    if not issubclass(view.query, PeriodQuery):
        return Question(viewer, site, by=by)
    return Question(viewer, site, first, last, by)


def ask(stored: Stored, view: type[ReportView], question: Question) -> ReportView:
    values: dict[str, Any] = {"by": question.by, "site_id": question.site}
    if issubclass(view.query, PeriodQuery):
        values |= {"from": question.first, "to": question.last}
    return stored.reports.show(view, view.query(**values), caller_of(question.viewer))


def rows_of(report: Any) -> dict[str | None, ReportRow]:
    return {row.key: row for row in [*report.rows, *([report.total] if hasattr(report, "total") else [])]}


@pytest.mark.parametrize(("view", "by"), ASKED)
def test_a_report_counts_what_a_plain_computation_counts_and_its_links_list_the_same_items(
    stored: Stored, view: type[ReportView], by: str
) -> None:
    chance = random.Random(f"{view.report} {by} {stored.seed}")
    for viewer in stored.world.viewers.values():
        question = a_question(stored.world, viewer, view, by, chance)
        plain: Any = PLAIN[view.report](stored.world, question)
        expected, times = plain if isinstance(plain, tuple) else (plain, None)
        try:
            rows = rows_of(ask(stored, view, question))
        except Forbidden:
            assert not any(any(figures.values()) for figures in expected.values()), (viewer, question)
            continue

        figures = view.row.figures()
        said = {(key, name): getattr(row, name).count for key, row in rows.items() for name in figures}
        assert said == {(key, name): len(items) for key, found in expected.items() for name, items in found.items()}, (
            question
        )
        # Of an administrator's every figure, of the others' one; in one world, because each makes a list's statements.
        followed = [] if stored.seed or not rows else figures if viewer.roles is None else [chance.choice(figures)]
        for key, name in [(chance.choice([*rows]), name) for name in followed]:
            assert stored.behind(getattr(rows[key], name), caller_of(viewer)) == expected[key][name], (key, name)
        for key, row in rows.items():
            if isinstance(row, TimeToCloseRow) and times is not None:
                assert_times(row, times, key)


def assert_times(row: TimeToCloseRow, times: Times, key: str | None) -> None:
    said = {
        "closing": (row.median_days, row.p90_days),
        "first_closing": (row.first_close_median_days, row.first_close_p90_days),
        "contractors": (row.contractor_median_days, row.contractor_p90_days),
    }
    for name, pair in said.items():
        values = getattr(times, name)[key]
        assert pair == pytest.approx((quantile(values, 0.5), quantile(values, 0.9)), abs=0.006), (name, key)
