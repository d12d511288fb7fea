"""The routes to the reports."""

from __future__ import annotations

from service_sites.errors import SiteNotFound
from service_sites.schemas.reports import (
    AgeingQuery,
    AgeingReport,
    BurndownQuery,
    BurndownReport,
    ClosingsQuery,
    ContractorsQuery,
    ContractorsReport,
    CountsQuery,
    CountsReport,
    OnTimeReport,
    ProgressQuery,
    ProgressReport,
    ReturnsQuery,
    ReturnsReport,
    TimeToCloseReport,
)
from service_sites.use_cases.reports import Reports
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes
from servicekit.wire.errors import Forbidden


def report_routes(reports: Reports) -> Routes:
    """Declare the reports. As text/csv each is a table for a spreadsheet."""
    api = Routes("reports")
    options = {"action": Action.READ_SITES, "errors": (SiteNotFound, Forbidden), "csv": True}

    @api.get("/reports/contractors", **options)
    def report_contractors(query: ContractorsQuery, caller: Principal) -> ContractorsReport:
        """Count what is open, overdue and ready to be examined, by contractor."""
        return reports.show(ContractorsReport, query, caller)

    @api.get("/reports/ageing", **options)
    def report_ageing(query: AgeingQuery, caller: Principal) -> AgeingReport:
        """Count open items by the days since they were first submitted."""
        return reports.show(AgeingReport, query, caller)

    @api.get("/reports/burndown", **options)
    def report_burndown(query: BurndownQuery, caller: Principal) -> BurndownReport:
        """Count the items that were open at the end of each day."""
        return reports.show(BurndownReport, query, caller)

    @api.get("/reports/time-to-close", **options)
    def report_time_to_close(query: ClosingsQuery, caller: Principal) -> TimeToCloseReport:
        """Show how long it took to close what was closed in a period."""
        return reports.show(TimeToCloseReport, query, caller)

    @api.get("/reports/on-time", **options)
    def report_on_time(query: ClosingsQuery, caller: Principal) -> OnTimeReport:
        """Count what was closed by its first and by its last date, of what was closed in a period."""
        return reports.show(OnTimeReport, query, caller)

    @api.get("/reports/returns", **options)
    def report_returns(query: ReturnsQuery, caller: Principal) -> ReturnsReport:
        """Count what was returned and reopened in a period, beside what was reported done and closed in it."""
        return reports.show(ReturnsReport, query, caller)

    @api.get("/reports/counts", **options)
    def report_counts(query: CountsQuery, caller: Principal) -> CountsReport:
        """Count items by location, type or root cause."""
        return reports.show(CountsReport, query, caller)

    @api.get("/reports/progress", **options)
    def report_progress(query: ProgressQuery, caller: Principal) -> ProgressReport:
        """Count the items that customers see, and those of them that are closed."""
        return reports.show(ProgressReport, query, caller)

    return api
