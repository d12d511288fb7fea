"""Maps paths to upstreams, with limits. Routes are data: a new resource is a few rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from servicekit.identity.roles import Action
from servicekit.wire.memory import MIB

_VARIABLE = re.compile(r"\{(\w+)\}")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

#: The only upstream that is not a service: the tasks' event streams. They have processes of their own, and a separate
#: circuit and bulkhead here, because an open stream keeps its place.
EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. `total` runs from the complete request to the complete answer; an event stream
    has no total but may be silent for at most `idle`."""

    body: int = 1 * MIB
    answer: int = 32 * MIB
    connect: float = 1.0
    first_byte: float = 5.0
    total: float = 5.0
    idle: float = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """One of the GETs to different upstreams whose answers are merged into a page's `data`.

    A refusal of a required part becomes the whole answer; without an optional one the page is `partial`.
    """

    upstream: str
    #: With the page's variables in braces.
    target: str
    #: Maps fields of the page to fields of the answer's data; None: all of the data.
    fields: Mapping[str, str | None]
    optional: bool = False

    def target_of(self, variables: Mapping[str, str]) -> str:
        """The target with the page's raw variables filled in, re-encoded within a query."""
        path, mark, query = self.target.partition("?")
        values = {name: quote(unquote_to_bytes(raw), safe="") for name, raw in variables.items()}
        return path.format_map(variables) + mark + query.format_map(values)


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `template` names its variables in braces and serves as the label in metrics and logs.

    `upstream` is empty for the gateway's own pages; with `parts`, it is that of the first.
    """

    template: str
    upstream: str
    methods: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    parts: tuple[Part, ...] = ()
    #: Of a merged page, for the document: its operation's name, and what it shows.
    name: str = ""
    summary: str = ""
    #: What each method does, in the role table.
    actions: Mapping[str, Action] = field(default_factory=dict)

    def action(self, method: str) -> Action:
        """What a method that it allows does; raises KeyError for a row that does not say."""
        return self.actions["GET" if method == "HEAD" else method]

    def allows(self, method: str) -> bool:
        """HEAD is answered wherever GET is."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    @property
    def allow(self) -> str:
        """The value of an Allow field."""
        extra = ("HEAD",) if "GET" in self.methods else ()
        return ", ".join((*self.methods, *extra, "OPTIONS"))


_USUAL = Limits()


def _row(
    template: str, upstream: str, *, body: int = _USUAL.body, seconds: float = _USUAL.total, **actions: Action
) -> Route:
    """A row with the action of each method; PATCH does what PUT does."""
    if "PUT" in actions:
        actions["PATCH"] = actions["PUT"]
    limits = Limits(body=body, first_byte=seconds, total=seconds)
    methods = tuple(method for method in _METHODS if method in actions)
    return Route(template, upstream, methods, limits, actions=actions)


def _merged(template: str, *parts: Part, name: str, summary: str, action: Action) -> Route:
    return Route(
        template, parts[0].upstream, ("GET",), parts=parts, name=name, summary=summary, actions={"GET": action}
    )


ROUTES: tuple[Route, ...] = (
    _row("/.well-known/jwks.json", "users", GET=Action.PUBLIC),
    _row("/auth/login", "users", POST=Action.PUBLIC, body=4096),
    _row("/auth/login/code", "users", POST=Action.PUBLIC, body=4096),
    _row("/auth/refresh", "users", POST=Action.PUBLIC, body=4096),
    _row("/auth/logout", "users", POST=Action.OWN_LOGIN),
    _row("/auth/logout-all", "users", POST=Action.OWN_LOGIN),
    _row("/auth/me", "users", GET=Action.SEE_ONESELF),
    _row("/auth/password", "users", PUT=Action.OWN_LOGIN, body=4096),
    _row("/auth/sessions", "users", GET=Action.OWN_ACCOUNT, DELETE=Action.OWN_ACCOUNT),
    _row("/auth/sessions/{id}", "users", DELETE=Action.OWN_ACCOUNT),
    _row("/auth/keys", "users", GET=Action.OWN_ACCOUNT, POST=Action.OWN_ACCOUNT, body=4096),
    _row("/auth/keys/{id}", "users", DELETE=Action.OWN_ACCOUNT),
    _row("/auth/factors", "users", GET=Action.OWN_ACCOUNT, POST=Action.OWN_ACCOUNT, body=4096),
    _row("/auth/factors/{id}", "users", DELETE=Action.OWN_ACCOUNT),
    _row("/auth/factors/{id}/confirm", "users", POST=Action.OWN_ACCOUNT, body=4096),
    _row("/auth/oidc", "users", GET=Action.PUBLIC),
    _row("/auth/oidc/start", "users", POST=Action.PUBLIC, body=4096, seconds=10.0),
    _row("/auth/oidc/link", "users", POST=Action.OWN_ACCOUNT, body=4096, seconds=10.0),
    _row("/auth/oidc/callback", "users", GET=Action.PUBLIC, seconds=10.0),
    _row("/auth/identities", "users", GET=Action.OWN_ACCOUNT),
    _row("/auth/identities/{id}", "users", DELETE=Action.OWN_ACCOUNT),
    _row("/auth/forgot", "users", POST=Action.PUBLIC, body=4096),
    _row("/auth/reset", "users", POST=Action.PUBLIC, body=4096),
    _row("/auth/email", "users", POST=Action.OWN_ACCOUNT, body=4096),
    _row("/auth/email/confirm", "users", POST=Action.PUBLIC, body=4096),
    _row("/audit", "users", GET=Action.READ_SYSTEM),
    _row("/users", "users", GET=Action.READ_USERS, POST=Action.MANAGE_USERS),
    _row("/users/{id}", "users", GET=Action.READ_USERS, PUT=Action.CHANGE_USERS, DELETE=Action.MANAGE_USERS),
    _merged(
        "/users/{id}/details",
        Part("users", "/users/{id}", {"user": None}),
        Part(
            "orders",
            "/orders?user_id={id}&limit=50&offset=0",
            {"orders": "orders", "orders_total": "total"},
            optional=True,
        ),
        name="user_details",
        summary="Show a user with the newest 50 orders, asked of both services at the same time",
        action=Action.READ_USERS,
    ),
    _row("/users/{id}/tasks", "tasks", GET=Action.READ_TASKS),
    _row("/users/{id}/disable", "users", POST=Action.MANAGE_USERS),
    _row("/users/{id}/enable", "users", POST=Action.MANAGE_USERS),
    _row("/users/{id}/account", "users", GET=Action.MANAGE_USERS),
    _row("/users/{id}/keys", "users", GET=Action.MANAGE_USERS),
    _row("/users/{id}/keys/{key_id}", "users", DELETE=Action.MANAGE_USERS),
    _row("/users/{id}/sessions", "users", GET=Action.MANAGE_USERS, DELETE=Action.MANAGE_USERS),
    _row("/users/{id}/factors", "users", DELETE=Action.MANAGE_USERS),
    _row("/users/{id}/link", "users", POST=Action.MANAGE_USERS),
    _row("/orders", "orders", GET=Action.READ_ORDERS, POST=Action.CHANGE_ORDERS),
    _row("/orders/{id}", "orders", GET=Action.READ_ORDERS, PUT=Action.CHANGE_ORDERS, DELETE=Action.CHANGE_ORDERS),
    _row("/tasks", "tasks", GET=Action.READ_TASKS, POST=Action.CHANGE_TASKS),
    # A literal wins over {id}.
    _row("/tasks/batch", "tasks", POST=Action.CHANGE_TASKS, body=16 * MIB, seconds=30.0),
    _row("/tasks/rejected", "tasks", GET=Action.INSPECT_TASKS),
    _row("/tasks/rejected/{id}", "tasks", GET=Action.INSPECT_TASKS, DELETE=Action.OPERATE_TASKS),
    _row("/tasks/rejected/{id}/requeue", "tasks", POST=Action.OPERATE_TASKS),
    _row("/tasks/stats", "tasks", GET=Action.READ_TASKS),
    _row("/tasks/cancel", "tasks", POST=Action.OPERATE_TASKS, seconds=30.0),
    _row("/tasks/retry", "tasks", POST=Action.OPERATE_TASKS, seconds=30.0),
    _row("/tasks/{id}", "tasks", GET=Action.READ_TASKS, DELETE=Action.CHANGE_TASKS),
    _row("/tasks/{id}/status", "tasks", GET=Action.READ_TASKS),
    _row("/tasks/{id}/result", "tasks", GET=Action.READ_TASKS),
    # Streams: the total limit applies until they begin, the idle limit afterwards.
    _row("/tasks/{id}/events", EVENTS, GET=Action.READ_TASKS),
    _row("/tasks/{id}/retry", "tasks", POST=Action.CHANGE_TASKS),
    _row("/task-types", "tasks", GET=Action.READ_TASKS),
    _row("/task-types/{name}", "tasks", PUT=Action.OPERATE_TASKS, DELETE=Action.OPERATE_TASKS),
    _row("/task-types/{name}/pause", "tasks", POST=Action.OPERATE_TASKS),
    _row("/task-types/{name}/resume", "tasks", POST=Action.OPERATE_TASKS),
    _row("/schedules", "tasks", GET=Action.READ_TASKS, POST=Action.CHANGE_TASKS),
    _row("/schedules/{id}", "tasks", GET=Action.READ_TASKS, PUT=Action.CHANGE_TASKS, DELETE=Action.CHANGE_TASKS),
    _row("/schedules/{id}/pause", "tasks", POST=Action.CHANGE_TASKS),
    _row("/schedules/{id}/resume", "tasks", POST=Action.CHANGE_TASKS),
    _row("/schedules/{id}/run", "tasks", POST=Action.CHANGE_TASKS),
    _row("/sites", "sites", GET=Action.READ_SITES, POST=Action.CREATE_SITES),
    _row("/sites/{id}", "sites", GET=Action.READ_SITES, PUT=Action.CHANGE_SITES),
    _row("/sites/{id}/members", "sites", GET=Action.READ_SITES, POST=Action.CHANGE_SITES),
    _row("/sites/{id}/members/{user_id}", "sites", PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/sites/{id}/locations", "sites", GET=Action.READ_SITES, POST=Action.CHANGE_SITES),
    _row("/sites/{id}/locations/{location_id}", "sites", PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/sites/{id}/calendar", "sites", GET=Action.READ_SITES),
    _row("/sites/{id}/calendar/{day}", "sites", PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/sites/{id}/work-items", "sites", POST=Action.CHANGE_SITES),
    _row("/work-items", "sites", GET=Action.READ_SITES),
    _row("/work-items/steps", "sites", POST=Action.CHANGE_SITES, seconds=30.0),
    _row("/work-items/{id}/steps", "sites", POST=Action.CHANGE_SITES),
    _row("/work-items/{id}", "sites", GET=Action.READ_SITES, PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/work-items/{id}/comments", "sites", GET=Action.READ_SITES, POST=Action.CHANGE_SITES),
    _row("/work-items/{id}/comments/{comment_id}", "sites", PUT=Action.CHANGE_SITES),
    _row("/work-items/{id}/watchers", "sites", GET=Action.READ_SITES),
    _row("/work-items/{id}/watchers/{user_id}", "sites", PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/work-items/{id}/links", "sites", GET=Action.READ_SITES),
    _row("/work-items/{id}/links/{kind}/{target_id}", "sites", PUT=Action.CHANGE_SITES, DELETE=Action.CHANGE_SITES),
    _row("/sites/{id}/changes", "sites", GET=Action.READ_SITES),
    _row("/work-items/{id}/history", "sites", GET=Action.READ_SITES),
    _row("/outbox/users", "users", GET=Action.READ_SYSTEM),
    _row("/outbox/orders", "orders", GET=Action.READ_SYSTEM),
    _row("/outbox/tasks", "tasks", GET=Action.READ_SYSTEM),
    _row("/outbox/sites", "sites", GET=Action.READ_SYSTEM),
    _row("/reports/contractors", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/ageing", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/burndown", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/time-to-close", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/on-time", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/returns", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/counts", "sites", GET=Action.READ_SITES, seconds=30.0),
    _row("/reports/progress", "sites", GET=Action.READ_SITES, seconds=30.0),
)

#: The page for everybody that shows more to whoever may read the system.
SHOWS_MORE = "/health"
#: The gateway's own pages; they have no alias.
PAGES: tuple[Route, ...] = (
    _row("/", "", GET=Action.PUBLIC),
    _row(SHOWS_MORE, "", GET=Action.PUBLIC),
    _row("/status", "", GET=Action.READ_SYSTEM),
    _row("/livez", "", GET=Action.PUBLIC),
    _row("/readyz", "", GET=Action.PUBLIC),
    _row("/metrics", "", GET=Action.READ_SYSTEM),
    _row("/openapi.json", "", GET=Action.PUBLIC),
    _row("/swagger", "", GET=Action.PUBLIC),
    _row("/swagger/", "", GET=Action.PUBLIC),
    _row("/swagger/{file}", "", GET=Action.PUBLIC),
    _row("/console", "", GET=Action.PUBLIC),
    _row("/console/", "", GET=Action.PUBLIC),
    _row("/console/{build}/{file}", "", GET=Action.PUBLIC),
    _row("/console/{build}/{folder}/{file}", "", GET=Action.PUBLIC),
    _row("/console/{build}/{folder}/{page}/{file}", "", GET=Action.PUBLIC),
    _row("/admin/circuits/{name}", "", POST=Action.OPERATE_SYSTEM),
)


@dataclass(slots=True)
class Match:
    route: Route
    #: The raw (still encoded) text of each variable, in the order of the template.
    values: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        return dict(zip(_VARIABLE.findall(self.route.template), self.values, strict=True))


class _Node:
    __slots__ = ("literal", "route", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.route: Route | None = None


class RouteTable:
    """Finds a route by its raw path, segment by segment, without decoding; a literal wins over a variable."""

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

    def _walk(self, node: _Node, segments: list[str], at: int, values: tuple[str, ...]) -> Match | None:
        if at == len(segments):
            return Match(node.route, values) if node.route is not None else None
        segment = segments[at]
        literal = node.literal.get(segment)
        if literal is not None:
            found = self._walk(literal, segments, at + 1, values)
            if found is not None:
                return found
        if node.variable is not None and segment:
            return self._walk(node.variable, segments, at + 1, (*values, segment))
        return None
