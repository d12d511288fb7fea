"""Which path belongs to which upstream, with its limits. Routes are data: a new resource is a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

KIB = 1024
MIB = 1024 * KIB

Handler = Literal["forward", "details", "control"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. `total` covers everything from the complete request to the complete
    answer; an event stream has no total but may be silent for `idle` at most."""

    body: int = 1 * MIB
    answer: int = 32 * MIB
    connect: float = 1.0
    first_byte: float = 5.0
    total: float = 5.0
    idle: float = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `template` names its variables in braces and serves as the label in metrics and logs.

    `upstream` is empty for the gateway's own pages.
    """

    template: str
    upstream: str
    methods: tuple[str, ...]
    handler: Handler = "forward"
    limits: Limits = field(default_factory=Limits)

    def allows(self, method: str) -> bool:
        """HEAD is answered wherever GET is."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    @property
    def allow(self) -> str:
        """The value of an Allow field."""
        extra = ("HEAD",) if "GET" in self.methods else ()
        return ", ".join((*self.methods, *extra, "OPTIONS"))


def _row(template: str, upstream: str, methods: str, handler: Handler = "forward", **limits: float) -> Route:
    return Route(template, upstream, tuple(methods.split()), handler, Limits(**limits))  # type: ignore[arg-type]


ROUTES: tuple[Route, ...] = (
    _row("/users", "users", "GET POST"),
    _row("/users/{id}", "users", "GET PUT DELETE"),
    _row("/users/{id}/details", "users", "GET", "details"),
    _row("/users/{id}/tasks", "tasks", "GET"),
    _row("/orders", "orders", "GET POST"),
    _row("/orders/{id}", "orders", "GET PUT DELETE"),
    _row("/tasks", "tasks", "GET POST"),
    # Found before {id}, which stands for any other word.
    _row("/tasks/batch", "tasks", "POST", body=16 * MIB, first_byte=30.0, total=30.0),
    _row("/tasks/rejected", "tasks", "GET"),
    _row("/tasks/rejected/{id}", "tasks", "GET DELETE"),
    _row("/tasks/rejected/{id}/requeue", "tasks", "POST"),
    _row("/tasks/stats", "tasks", "GET"),
    _row("/tasks/cancel", "tasks", "POST", first_byte=30.0, total=30.0),
    _row("/tasks/retry", "tasks", "POST", first_byte=30.0, total=30.0),
    _row("/tasks/{id}", "tasks", "GET DELETE"),
    _row("/tasks/{id}/status", "tasks", "GET"),
    _row("/tasks/{id}/result", "tasks", "GET"),
    # Streams: the total limit holds for their beginning, the idle limit for the rest.
    _row("/tasks/{id}/events", "events", "GET"),
    _row("/tasks/{id}/retry", "tasks", "POST"),
    _row("/task-types", "tasks", "GET"),
    _row("/task-types/{name}", "tasks", "PUT"),
    _row("/task-types/{name}/pause", "tasks", "POST"),
    _row("/task-types/{name}/resume", "tasks", "POST"),
    _row("/schedules", "tasks", "GET POST"),
    _row("/schedules/{id}", "tasks", "GET PUT DELETE"),
    _row("/schedules/{id}/pause", "tasks", "POST"),
    _row("/schedules/{id}/resume", "tasks", "POST"),
    _row("/schedules/{id}/run", "tasks", "POST"),
)

#: The gateway's own pages; they have no alias.
PAGES: tuple[Route, ...] = (
    _row("/health", "", "GET", "control"),
    _row("/status", "", "GET", "control"),
    _row("/livez", "", "GET", "control"),
    _row("/readyz", "", "GET", "control"),
    _row("/metrics", "", "GET", "control"),
    _row("/openapi.json", "", "GET", "control"),
    _row("/swagger", "", "GET", "control"),
    _row("/swagger/", "", "GET", "control"),
    _row("/swagger/{file}", "", "GET", "control"),
    _row("/admin/circuits/{name}", "", "POST", "control"),
)


@dataclass(slots=True)
class Match:
    route: Route
    #: The raw (still encoded) text of each variable, in the order of the template.
    variables: tuple[str, ...]


class _Node:
    __slots__ = ("literal", "route", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.route: Route | None = None


class RouteTable:
    """Finds a route by its raw path: segment by segment, a literal before a variable, nothing decoded or merged."""

    def __init__(self, routes: Sequence[Route] = (*ROUTES, *PAGES)) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            node = self._root
            for segment in route.template[1:].split("/"):
                if segment.startswith("{"):
                    node.variable = node.variable or _Node()
                    node = node.variable
                else:
                    node = node.literal.setdefault(segment, _Node())
            if node.route is not None:
                raise ValueError(f"two rows for {route.template}")
            node.route = route

    def match(self, path: str) -> Match | None:
        """The route of a raw path without the alias, or None."""
        return self._walk(self._root, path[1:].split("/"), 0, ())

    def upstreams(self) -> tuple[str, ...]:
        """The upstreams named in the table, each once."""
        return tuple(dict.fromkeys(route.upstream for route in self.routes if route.upstream))

    def _walk(self, node: _Node, segments: list[str], at: int, variables: tuple[str, ...]) -> Match | None:
        if at == len(segments):
            return Match(node.route, variables) if node.route is not None else None
        segment = segments[at]
        literal = node.literal.get(segment)
        if literal is not None:
            found = self._walk(literal, segments, at + 1, variables)
            if found is not None:
                return found
        if node.variable is not None and segment:
            return self._walk(node.variable, segments, at + 1, (*variables, segment))
        return None
