"""What comes in and goes out of the reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from servicekit.web.csv_tables import Cell
from servicekit.web.schemas import Date, Id, Query, View, not_before

#: From the first day to the last it takes less.
LONGEST_PERIOD = timedelta(days=3660)
_LastDay = Annotated[Date, not_before("first", "from")]
_RATE = "of their items; null: of none"


class ReportQuery(Query):
    """What a report is about. Subclasses have `by`: what there is a row of."""

    site_id: Id | None = Field(
        default=None, description="this site alone; without it all on which you may see the report"
    )
    by: str


class PeriodQuery(ReportQuery):
    """A report on a period."""

    first: Date | None = Field(default=None, alias="from", description="the first day, at each site; else there are 30")
    last: _LastDay | None = Field(default=None, alias="to", description="the last day; else today")


class ContractorsQuery(ReportQuery):
    """What is open and overdue, and whose it is."""

    by: Literal["organisation", "assignee", "site"] = Field(default="organisation", description="a row of each")


class AgeingQuery(ReportQuery):
    """Since when open items are known."""

    by: Literal["site", "organisation", "severity", "type"] = Field(default="site", description="a row of each")


class BurndownQuery(PeriodQuery):
    """How many items were open at the end of days."""

    by: Literal["day", "week", "month"] = Field(
        default="day", description="every day; the last day of each week or month, and of the period"
    )


class ClosingsQuery(PeriodQuery):
    """What was closed in a period, by what was so then."""

    by: Literal["site", "organisation", "resolution", "week", "month"] = Field(
        default="site", description="a row of each"
    )


class ReturnsQuery(PeriodQuery):
    """What was returned and reopened in a period."""

    by: Literal["organisation", "site", "week", "month"] = Field(default="organisation", description="a row of each")


class CountsQuery(PeriodQuery):
    """How many items were submitted, ever or in a period."""

    first: Date | None = Field(default=None, alias="from", description="the first day; else from the beginning")
    last: _LastDay | None = Field(default=None, alias="to", description="the last day; else until now")

    by: Literal["location", "type", "root_cause"] = Field(
        default="type", description="a row of each; a location has the items of those that it holds, too"
    )


class ProgressQuery(ReportQuery):
    """How far what customers see has come."""

    by: Literal["site", "week", "month"] = Field(
        default="site", description="a row of each; of a week or month: what was submitted in it, and what was closed"
    )


class Figure(View):
    """A number of items, and which they are."""

    count: int
    items: str = Field(description="the GET that lists them")


class ReportRow(View):
    """What a report says of one thing, or in total. Subclasses have figures and what is made of them."""

    #: By the name of a rate: the figure that is divided, and by which.
    rates: ClassVar[Mapping[str, tuple[str, str]]] = {}

    key: str | None = Field(
        description="an organisation, a word, a day, the id of a site, location or person; empty: none; null: the total"
    )
    name: str | None = Field(description="of what the key stands for")

    @classmethod
    def figures(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if field.annotation is Figure]


class ContractorsRow(ReportRow):
    open: Figure = Field(description="open, in_progress, returned, ready or disputed")
    overdue: Figure = Field(description="of these what is late; nothing that is ready")
    awaiting_us: Figure = Field(description="of these what is ready, to be examined")


class AgeingRow(ReportRow):
    days_0_7: Figure = Field(description="open items first submitted so many days ago, at the site")
    days_8_14: Figure
    days_15_30: Figure
    days_over_30: Figure


class BurndownRow(ReportRow):
    open: Figure = Field(description="open items at the end of the day, at the site; today: now")


class TimeToCloseRow(ReportRow):
    closed: Figure = Field(description="closed at the end of the period, and last closed in it")
    median_days: float | None = Field(description="from the first submission to the last close; null: nothing closed")
    p90_days: float | None = Field(description="nine of ten took no longer")
    first_close_median_days: float | None = Field(description="to the first close of the same items")
    first_close_p90_days: float | None
    contractor_median_days: float | None = Field(
        description="how long contractors had them: open, in_progress or returned, and an organisation responsible"
    )
    contractor_p90_days: float | None


class OnTimeRow(ReportRow):
    rates: ClassVar[Mapping[str, tuple[str, str]]] = {
        "by_original_date_rate": ("by_original_date", "with_original_date"),
        "by_final_date_rate": ("by_final_date", "with_final_date"),
    }

    closed: Figure = Field(description="closed at the end of the period, and last closed in it")
    with_original_date: Figure = Field(description="of these what ever had a date")
    by_original_date: Figure = Field(description="closed on its first date or before")
    by_original_date_rate: float | None = Field(description=_RATE, ge=0)
    with_final_date: Figure = Field(description="of these what had a date when it was closed")
    by_final_date: Figure = Field(description="closed on that date or before")
    by_final_date_rate: float | None = Field(description=_RATE, ge=0)


class ReturnsRow(ReportRow):
    rates: ClassVar[Mapping[str, tuple[str, str]]] = {
        "returned_rate": ("returned", "reported_done"),
        "reopened_rate": ("reopened", "closed"),
    }

    reported_done: Figure = Field(description="reported done in the period, each once")
    returned: Figure = Field(description="returned in it")
    returned_rate: float | None = Field(description="returned divided by reported_done; null: none was", ge=0)
    closed: Figure = Field(description="closed in it")
    reopened: Figure = Field(description="reopened in it")
    reopened_rate: float | None = Field(description="reopened divided by closed; null: none was", ge=0)


class CountsRow(ReportRow):
    items: Figure = Field(description="all that were submitted, without those that are void")
    open: Figure
    overdue: Figure
    closed: Figure


class ProgressRow(ReportRow):
    rates: ClassVar[Mapping[str, tuple[str, str]]] = {"closed_rate": ("closed", "items")}

    items: Figure = Field(description="all that customers see")
    closed: Figure
    closed_rate: float | None = Field(description="null: there are no items", ge=0)


class ReportView(View):
    """A report. Subclasses have `rows`, and most a `total`."""

    report: ClassVar[str]
    query: ClassVar[type[ReportQuery]]
    row: ClassVar[type[ReportRow]]

    by: str
    first_day: date | None = Field(
        description="of the period, at each site; null: from the beginning, or it is about now"
    )
    last_day: date | None = Field(description="null: until now, or it is about now")

    def table(self) -> Iterator[Sequence[Cell]]:
        """Its names and numbers, the heading first and the total last."""
        columns = [name for name in self.row.model_fields if name not in ("key", "name")]
        yield [self.by, *columns]
        rows: list[ReportRow] = self.rows  # type: ignore[attr-defined]  # of subclasses
        if "total" in type(self).model_fields:
            rows = [*rows, self.total]  # type: ignore[attr-defined]
        for row in rows:
            values = [getattr(row, name) for name in columns]
            cells = [value.count if isinstance(value, Figure) else value for value in values]
            yield ["total" if row.key is None else row.name, *cells]


class ContractorsReport(ReportView):
    """Count what is open, overdue and ready to be examined, by contractor."""

    report = "contractors"
    query = ContractorsQuery
    row = ContractorsRow

    rows: list[ContractorsRow]
    total: ContractorsRow


class AgeingReport(ReportView):
    """Count open items by the days since they were first submitted."""

    report = "ageing"
    query = AgeingQuery
    row = AgeingRow

    rows: list[AgeingRow]
    total: AgeingRow


class BurndownReport(ReportView):
    """Count the items that were open at the end of each day."""

    report = "burndown"
    query = BurndownQuery
    row = BurndownRow

    rows: list[BurndownRow]


class TimeToCloseReport(ReportView):
    """Show how long it took to close what was closed in a period."""

    report = "time-to-close"
    query = ClosingsQuery
    row = TimeToCloseRow

    rows: list[TimeToCloseRow]
    total: TimeToCloseRow


class OnTimeReport(ReportView):
    """Count what was closed by its first and by its last date, of what was closed in a period."""

    report = "on-time"
    query = ClosingsQuery
    row = OnTimeRow

    rows: list[OnTimeRow]
    total: OnTimeRow


class ReturnsReport(ReportView):
    """Count what was returned and reopened in a period, beside what was reported done and closed in it."""

    report = "returns"
    query = ReturnsQuery
    row = ReturnsRow

    rows: list[ReturnsRow]
    total: ReturnsRow


class CountsReport(ReportView):
    """Count items by location, type or root cause."""

    report = "counts"
    query = CountsQuery
    row = CountsRow

    rows: list[CountsRow]
    total: CountsRow


class ProgressReport(ReportView):
    """Count the items that customers see, and those of them that are closed."""

    report = "progress"
    query = ProgressQuery
    row = ProgressRow

    rows: list[ProgressRow]
    total: ProgressRow


REPORTS: Mapping[str, type[ReportView]] = {view.report: view for view in ReportView.__subclasses__()}
