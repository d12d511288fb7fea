"""Each report says what a slow, plain computation makes of the same histories."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg2
import pytest

from service_sites.schemas.items import WorkItemQuery
from service_sites.schemas.reports import (
    REPORTS,
    BurndownReport,
    Figure,
    PeriodQuery,
    ReportRow,
    ReportView,
    ReturnsReport,
    TimeToCloseReport,
    TimeToCloseRow,
)
from service_sites.use_cases.items import WorkItems
from service_sites.use_cases.reports import Reports
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.web.schemas import parse_query
from servicekit.wire.errors import Forbidden
from tests.support import site_histories
from tests.support.plans import selects_of
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.site_histories import Question, Times, Viewer, World, make_up, quantile, store
from tests.support.sites import OURS, PEOPLE, THEIRS, SitesSystem
from tests.support.waiting import eventually

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


@pytest.mark.parametrize(
    ("view", "indexes"),
    [
        (BurndownReport, {"ix_history_openings"}),
        (ReturnsReport, {"ix_history_reports", "ix_history_closings"}),
        (TimeToCloseReport, {"ix_history_closings"}),
    ],
)
def test_a_report_on_what_happened_can_read_an_index_made_for_it(
    stored: Stored, view: type[ReportView], indexes: set[str]
) -> None:
    with selects_of(stored.database) as seen:
        stored.reports.show(view, view.query(), Principal(None, Role.ADMIN))
    statement, parameters = seen[-1]
    statement = statement.rpartition("SET LOCAL")[2].partition(";")[2] or statement
    with stored.database.transaction() as session:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
        assert indexes <= {*re.findall(r"Index Only Scan using (\w+)", "\n".join(plan))}


class Story:
    """A site on Kamchatka, where it is noon at midnight UTC, and its people as they work at times that a test sets."""

    def __init__(self, database: ServiceDatabase) -> None:
        self.now = datetime(2026, 3, 2, tzinfo=UTC)
        system = SitesSystem(database, clock=lambda: self.now, reports=1)
        self.site = system.site(people=PEOPLE, time_zone="Asia/Kamchatka")

    def at(self, day: int, hour: int = 12, minute: int = 0) -> Story:
        """Go to a time of March there."""
        self.now = datetime(2026, 3, day, hour, minute, tzinfo=ZoneInfo("Asia/Kamchatka")).astimezone(UTC)
        return self

    def make(self, who: str, **fields: Any) -> str:
        made = self.site[who].ask("POST", f"/sites/{self.site.id}/work-items", {"title": "Crack", **fields})
        assert made.status == 201, made
        return str(made.body["id"])

    def step(self, who: str, item: str, step: str, **fields: Any) -> None:
        etag = self.site["admin"].ask("GET", f"/work-items/{item}").headers["ETag"]
        body = {"step": step, "op_id": str(uuid4()), **fields}
        taken = self.site[who].ask("POST", f"/work-items/{item}/steps", body, If_Match=etag)
        assert taken.status == 200, taken

    def report(self, who: str, asked: str) -> Any:
        answer = self.site[who].ask("GET", f"/reports/{asked}")
        assert answer.status == 200, answer
        return answer.body

    def total(self, who: str, asked: str) -> dict[str, Any]:
        """The numbers of the total."""
        row = self.report(who, asked)["total"]
        numbers = {name: one["count"] if isinstance(one, dict) else one for name, one in row.items()}
        return {name: number for name, number in numbers.items() if name not in ("key", "name")}


@pytest.fixture
def story(sites_database: ServiceDatabase) -> Story:
    return Story(sites_database)


def test_a_defect_that_is_returned_closed_late_on_a_sunday_and_reopened_is_told_so_by_each_report(story: Story) -> None:
    item = story.at(2).make("Анна", due_on="2026-03-06")
    story.step("Вера", item, "assign", organisation=OURS)
    story.at(3).step("Егор", item, "start")
    story.at(5).step("Егор", item, "report_done", note="done")
    story.at(6).step("Анна", item, "return", reason="it is not")
    story.step("Вера", item, "move_deadline", due_on="2026-03-08", reason="rain")
    story.at(7).step("Жанна", item, "report_done", note="done now")
    story.at(8, 23, 30).step("Борис", item, "accept")
    first_week = "from=2026-03-02&to=2026-03-08"
    closed = story.report("Вера", f"time-to-close?{first_week}&by=week")
    on_time = story.total("Глеб", f"on-time?{first_week}")
    returned = story.total("Анна", f"returns?{first_week}")

    # Before it is Monday there, though it is no longer Sunday noon in London.
    assert [row["key"] for row in closed["rows"]] == ["2026-03-02"]
    assert closed["total"]["median_days"] == 6.48
    # Two days and a day and a half: from noon on the 2nd to the 5th, and from the 6th to the 7th.
    assert closed["total"]["contractor_median_days"] == 4.0
    assert (on_time["by_original_date"], on_time["by_final_date"]) == (0, 1)
    assert (on_time["by_original_date_rate"], on_time["by_final_date_rate"]) == (0.0, 1.0)
    assert (returned["returned"], returned["reported_done"], returned["returned_rate"]) == (1, 1, 1.0)
    assert (returned["reopened"], returned["reopened_rate"]) == (0, 0.0)

    story.at(10).step("Вера", item, "reopen", reason="it leaks", due_on="2026-03-12")
    story.at(12)
    assert story.report("Вера", f"time-to-close?{first_week}&by=week") == closed
    second_week = "from=2026-03-09&to=2026-03-15"
    assert story.report("Вера", f"time-to-close?{second_week}")["total"]["median_days"] is None
    assert story.total("Вера", f"on-time?{second_week}")["by_final_date_rate"] is None
    assert story.total("Вера", f"returns?{second_week}")["reopened_rate"] is None
    # Due today is not late; ten days and no more, whatever was reopened.
    assert story.total("Вера", "contractors") == {"open": 1, "overdue": 0, "awaiting_us": 0}
    assert story.total("Вера", "ageing")["days_8_14"] == 1
    assert story.at(13).total("Вера", "contractors")["overdue"] == 1
    burndown = story.report("Вера", "burndown?from=2026-03-01")["rows"]
    assert "".join(str(row["open"]["count"]) for row in burndown) == "0111111001111"
    link = story.report("Вера", "contractors")["total"]["overdue"]["items"]
    (late,) = story.site["Вера"].data("GET", link)["work_items"]
    assert (late["id"], late["overdue"]) == (item, True)


def test_each_is_shown_their_reports_and_theirs_alone(story: Story) -> None:
    for organisation in (OURS, THEIRS):
        story.step("Вера", story.make("Анна", visible_to_customer=False), "assign", organisation=organisation)
    remark = story.make("Дина", kind="customer_remark")

    assert story.total("Вера", "contractors")["open"] == 2
    assert story.total("auditor", "contractors")["open"] == 2
    ours = story.report("Егор", "contractors")
    assert [(row["key"], row["open"]["count"]) for row in ours["rows"]] == [(OURS, 1)]
    assert story.site["Егор"].ask("GET", ours["total"]["open"]["items"]).body["total"] == 1
    assert story.site["Дина"].ask("GET", "/reports/contractors").code == "forbidden"
    assert story.site["Егор"].ask("GET", "/reports/progress").code == "forbidden"
    # The remark is a draft, and its author's alone.
    assert story.total("Дина", "progress")["items"] == 1
    (own,) = story.site["Дина"].data("GET", story.report("Дина", "progress")["total"]["items"]["items"])["work_items"]
    assert own["id"] == remark
    assert story.total("Вера", "progress") == {"items": 0, "closed": 0, "closed_rate": None}
    assert story.site["stranger"].ask("GET", f"/reports/contractors?site_id={story.site.id}").code == "site_not_found"
    assert story.total("stranger", "contractors")["open"] == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/reports/burndown?from=2026-02-30", "from"),
        ("/reports/burndown?from=2026-03-02&to=2026-03-01", "to"),
        ("/reports/burndown?from=2000-01-01&to=2026-01-01", "from"),
        ("/reports/returns?from_day=2026-03-01", "from_day"),
        ("/reports/ageing?from=2026-03-01", "from"),
        ("/reports/counts?by=floor", "by"),
        ("/work-items?counted_in=", "counted_in"),
        ("/work-items?counted_in=salaries?figure=open", "counted_in"),
        ("/work-items?counted_in=ageing?figure=open", "counted_in"),
        ("/work-items?counted_in=ageing?figure=days_0_7%26by=floor", "counted_in"),
        ("/work-items?counted_in=ageing?figure=days_0_7%26key=%2500", "counted_in"),
        ("/work-items?counted_in=burndown?figure=open%26key=today", "counted_in"),
        ("/work-items?counted_in=returns?by=week%26from=0001-01-01%26to=9999-12-31%26figure=closed", "counted_in"),
    ],
)
def test_what_cannot_be_reported_is_refused_by_the_name_of_its_field(story: Story, path: str, field: str) -> None:
    refused = story.site["Вера"].ask("GET", path)

    assert (refused.status, refused.body["details"][0]["field"]) == (400, field)


def test_while_as_many_reports_are_made_as_may_be_others_are_refused_and_all_else_goes_on(
    story: Story, sites_database: ServiceDatabase
) -> None:
    holder = psycopg2.connect(sites_database.superuser_url.replace("+psycopg2", ""))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with closing(holder), ThreadPoolExecutor(1) as pool, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE history")
        first = pool.submit(story.report, "Вера", "returns")
        # Asking until it is refused could take the only place before the first does.
        eventually(lambda: story.site.rows(waiting), what="the first is being made")
        refused = story.site["Анна"].ask("GET", "/reports/ageing")
        assert (refused.code, refused.headers["Retry-After"]) == ("overloaded", "1")
        behind = "/work-items?counted_in=ageing?figure=days_0_7"
        assert story.site["Анна"].ask("GET", behind).code == "overloaded"
        assert story.site["Анна"].ask("GET", "/work-items").status == 200
        holder.rollback()
        assert first.result()["rows"] == [] == story.report("Анна", "ageing")["rows"]


def test_a_spreadsheet_has_the_rows_of_the_report_in_their_order_and_no_formula(story: Story) -> None:
    for organisation in ("Ясень", "=1+1", "акация"):
        story.step("Вера", story.make("Анна"), "assign", organisation=organisation)
    story.make("Анна")
    shown = [row["name"] for row in story.report("Вера", "contractors")["rows"]]
    answer = story.site["Вера"].ask("GET", "/reports/contractors", Accept="text/csv")

    assert shown == ["=1+1", "акация", "Ясень", ""]
    assert answer.raw.decode("utf-8") == (
        "\ufefforganisation;open;overdue;awaiting_us\r\n'=1+1;1;0;0\r\nакация;1;0;0\r\nЯсень;1;0;0\r\n;1;0;0\r\n"
        "total;4;0;0\r\n"
    )
