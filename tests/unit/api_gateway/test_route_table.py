"""Which path leads where."""

from __future__ import annotations

import pytest

from api_gateway.route_table import EVENTS, PAGES, ROUTES, Route, RouteTable
from servicekit.process.services import services


@pytest.mark.parametrize(
    ("path", "template", "upstream", "variables"),
    [
        ("/users", "/users", "users", ()),
        ("/users/1", "/users/{id}", "users", ("1",)),
        ("/users/a%3fb", "/users/{id}", "users", ("a%3fb",)),
        ("/users/1/details", "/users/{id}/details", "users", ("1",)),
        ("/users/1/tasks", "/users/{id}/tasks", "tasks", ("1",)),
        ("/users/details", "/users/{id}", "users", ("details",)),
        ("/orders", "/orders", "orders", ()),
        ("/orders/1", "/orders/{id}", "orders", ("1",)),
        ("/tasks", "/tasks", "tasks", ()),
        ("/tasks/rejected", "/tasks/rejected", "tasks", ()),
        ("/tasks/rejected/1", "/tasks/rejected/{id}", "tasks", ("1",)),
        ("/tasks/rejected/1/requeue", "/tasks/rejected/{id}/requeue", "tasks", ("1",)),
        ("/tasks/1/status", "/tasks/{id}/status", "tasks", ("1",)),
        ("/tasks/1/result", "/tasks/{id}/result", "tasks", ("1",)),
        ("/tasks/1/events", "/tasks/{id}/events", "events", ("1",)),
        ("/tasks/1/retry", "/tasks/{id}/retry", "tasks", ("1",)),
        ("/task-types", "/task-types", "tasks", ()),
        ("/schedules/1/run", "/schedules/{id}/run", "tasks", ("1",)),
        ("/health", "/health", "", ()),
        ("/admin/circuits/users", "/admin/circuits/{name}", "", ("users",)),
    ],
)
def test_a_path_finds_its_route(path: str, template: str, upstream: str, variables: tuple[str, ...]) -> None:
    match = RouteTable().match(path)
    assert match is not None
    assert (match.route.template, match.route.upstream, match.values) == (template, upstream, variables)
    assert tuple(match.variables.values()) == variables


@pytest.mark.parametrize(
    "path",
    ["//", "/user", "/users/", "/users//details", "//users", "/users/1/", "/users/1/details/x", "/Users", "/%75sers"],
)
def test_anything_else_has_no_route(path: str) -> None:
    assert RouteTable().match(path) is None


def test_a_literal_segment_wins_over_a_variable() -> None:
    table = RouteTable([Route("/tasks/{id}", "tasks", ("GET",)), Route("/tasks/batch", "tasks", ("POST",))])
    match = table.match("/tasks/batch")
    assert match is not None
    assert match.route.template == "/tasks/batch"


def test_a_dead_end_among_literals_goes_back_to_the_variable() -> None:
    table = RouteTable([Route("/a/b/c", "x", ("GET",)), Route("/a/{id}/d", "y", ("GET",))])
    match = table.match("/a/b/d")
    assert match is not None
    assert match.route.upstream == "y"


def test_two_rows_for_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        RouteTable([Route("/a/{id}", "x", ("GET",)), Route("/a/{name}", "y", ("GET",))])


@pytest.mark.parametrize(
    ("methods", "allow"),
    [(("GET", "POST"), "GET, POST, HEAD, OPTIONS"), (("POST",), "POST, OPTIONS")],
)
def test_allow_names_what_is_answered(methods: tuple[str, ...], allow: str) -> None:
    route = Route("/x", "x", methods)
    assert route.allow == allow
    assert route.allows("HEAD") == ("GET" in methods)
    assert not route.allows("PATCH")


def test_every_route_leads_to_an_upstream_that_there_is_and_every_upstream_has_a_route() -> None:
    named = {row.upstream for row in ROUTES} | {part.upstream for row in ROUTES for part in row.parts}
    assert named == {*services(), EVENTS}


def test_pages_are_the_gateways_own() -> None:
    assert all(page.upstream == "" for page in PAGES)
    assert all(route.upstream for route in ROUTES)


@pytest.mark.parametrize(
    ("raw_id", "targets"),
    [
        ("1", ("/users/1", "/orders?user_id=1&limit=50&offset=0")),
        ("1&limit=9", ("/users/1&limit=9", "/orders?user_id=1%26limit%3D9&limit=50&offset=0")),
        ("a%20b", ("/users/a%20b", "/orders?user_id=a%20b&limit=50&offset=0")),
        ("%D0%91", ("/users/%D0%91", "/orders?user_id=%D0%91&limit=50&offset=0")),
    ],
)
def test_an_id_cannot_change_what_the_parts_are_asked(raw_id: str, targets: tuple[str, ...]) -> None:
    match = RouteTable().match(f"/users/{raw_id}/details")
    assert match is not None
    assert tuple(part.target_of(match.variables) for part in match.route.parts) == targets


#: Every route's limits, in seconds: to connect, to the first byte, in all, and of silence within a stream.
ORDINARY_TIMES = (1, 5, 5, 60)
TIMES = {
    "/tasks/cancel": (1, 30, 30, 60),
    "/tasks/retry": (1, 30, 30, 60),
    "/tasks/batch": (1, 30, 30, 60),
    "/work-items/steps": (1, 30, 30, 60),
    "/reports/contractors": (1, 30, 30, 60),
    "/reports/ageing": (1, 30, 30, 60),
    "/reports/burndown": (1, 30, 30, 60),
    "/reports/time-to-close": (1, 30, 30, 60),
    "/reports/on-time": (1, 30, 30, 60),
    "/reports/returns": (1, 30, 30, 60),
    "/reports/counts": (1, 30, 30, 60),
    "/reports/progress": (1, 30, 30, 60),
    "/auth/oidc/start": (1, 10, 10, 60),
    "/auth/oidc/callback": (1, 10, 10, 60),
    "/auth/oidc/link": (1, 10, 10, 60),
}


def test_the_time_limits_of_every_route_stand_in_one_table() -> None:
    assert {
        row.template: (row.limits.connect, row.limits.first_byte, row.limits.total, row.limits.idle) for row in ROUTES
    } == {row.template: ORDINARY_TIMES for row in ROUTES} | TIMES


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: row.template)
def test_the_limits_of_a_route_fit_into_each_other(row: Route) -> None:
    limits = row.limits
    assert 0 < limits.connect <= limits.first_byte <= limits.total < limits.idle
