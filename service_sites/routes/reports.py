"""The routes to the reports."""

from __future__ import annotations

from collections.abc import Callable

from service_sites.errors import SiteNotFound
from service_sites.schemas.reports import REPORTS, ReportQuery, ReportView
from service_sites.use_cases.reports import Reports
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes
from servicekit.wire.errors import Forbidden


def report_routes(reports: Reports) -> Routes:
    """Declare the reports. As text/csv each is a table for a spreadsheet."""
    api = Routes("reports")
    for name, view in REPORTS.items():
        declare = api.get(f"/reports/{name}", action=Action.READ_SITES, errors=(SiteNotFound, Forbidden), csv=True)
        declare(_showing(reports, name, view))
    return api


def _showing(reports: Reports, name: str, view: type[ReportView]) -> Callable[..., ReportView]:
    def show(query: ReportQuery, caller: Principal) -> ReportView:
        return reports.show(view, query, caller)

    # As the document of the API and the reader of the query are to see it.
    show.__name__, show.__doc__ = f"report_{name.replace('-', '_')}", view.__doc__
    show.__annotations__ = {"query": view.query, "caller": Principal, "return": view}
    return show
