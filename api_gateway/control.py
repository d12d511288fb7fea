"""The gateway's own pages, built like those of the services: health, status, metrics, documentation, admin."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar, Literal
from uuid import UUID

from flask import Flask, Request, Response
from pydantic import Field

from api_gateway.errors import CircuitHeldUp
from api_gateway.openapi import merge_documents
from api_gateway.route_table import Route
from servicekit.circuits import Circuit, CircuitLockTimeout, CircuitSnapshot
from servicekit.identity.enforcement import asks_for_login
from servicekit.identity.principal import Identify, Principal
from servicekit.identity.roles import Action
from servicekit.observing.metrics import Metrics
from servicekit.process.clock import utc_now
from servicekit.process.version import VERSION
from servicekit.web import openapi
from servicekit.web.app import ServiceApp, WholeAnswer, make_app
from servicekit.web.health import Check
from servicekit.web.routes import Routes, Sender, bearer_guard
from servicekit.web.schemas import Body, Timestamp, View
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Forbidden, NotFound, TooManyRequests, Unauthorized

DESCRIPTION = (
    "The people, the orders and the tasks of building sites. Every path is also there under `/api/v1`. "
    'Every answer is `{"success": true, "data": …}` or `{"success": false, "error": {"code", "message", "details"?}}` '
    "and carries `X-Request-ID`."
)
#: Maximum age of the copy of a service's document, in seconds.
DOCUMENT_SECONDS = 5.0
#: The same while a service's document is missing.
INCOMPLETE_SECONDS = 0.5
_ADMIN_BODY_LIMIT = 4096
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Siteworks API</title>
<link rel="stylesheet" href="/swagger/swagger-ui.css">
<link rel="icon" type="image/png" href="/swagger/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/swagger/swagger-ui-bundle.js"></script>
<script src="/swagger/start.js"></script>
</body>
</html>
"""
# validatorUrl would send the document's address to an outside server.
_START = """window.addEventListener("load", function () {
  SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});
});
"""
#: Where people and programs find the rest.
_LINKS = {page: f"/{page}" for page in ("swagger", "openapi.json", "health", "status", "metrics")}
_PAGE_FIELDS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}

#: Fetches each service's OpenAPI document unchanged, or None for a service that did not answer.
FetchDocuments = Callable[[], Mapping[str, bytes | None]]
#: The id of each process of the gateway, and its start (time.monotonic).
ListProcesses = Callable[[], Sequence[tuple[int, float]]]
#: Who has set a circuit, from which address, which one and how.
OnForced = Callable[[UUID | None, str, str, str], None]


class ProbeView(View):
    """What the prober saw when it last asked."""

    at: Timestamp
    ok: bool


class CircuitView(View):
    """Where one upstream's circuit stands. Counts and shares are of the last 10 seconds, times in seconds."""

    state: Literal["closed", "open", "half_open"]
    generation: int = Field(description="grows by one with each change of state")
    failure_rate: float = Field(description="failed share of the calls, 0 to 1")
    calls: int
    failures: int
    slow_share: float = Field(description="share of the calls that took more than 2 s")
    opened_at: Timestamp | None = Field(description="when it left closed; null while it is closed")
    retry_in: float | None = Field(description="until a call may be tried; null unless open")
    last_probe: ProbeView | None = Field(
        description="what the service's /readyz said, asked about every 5 s, and every second while it is not well"
    )
    forced: bool = Field(description="somebody set the state by hand")
    scope: Literal["machine", "process"] = Field(
        description="who shares it: all processes of the gateway, or the one that answered alone"
    )
    held_up: bool = Field(description="a process that does not run has its lock: it does not move and counts nothing")


class HealthView(View):
    """The gateway lives; `degraded` when a service is not ready, or a circuit not closed, known to one process of
    several alone, or held up."""

    status: Literal["healthy", "degraded"]
    upstreams: dict[str, CircuitView]


class StateView(View):
    """The state of one upstream's circuit."""

    state: Literal["closed", "open", "half_open"]


class StatesView(View):
    """The same for whoever may not read the system: the states alone."""

    status: Literal["healthy", "degraded"]
    upstreams: dict[str, StateView]


class ProcessView(View):
    """One process of the gateway."""

    name: str
    pid: int
    uptime_seconds: float


class RouteView(View):
    """One path and where it leads."""

    path: str
    methods: list[str]
    upstream: str | None


class StatusView(View):
    """What runs here."""

    service: str
    version: str
    started_at: Timestamp
    uptime_seconds: float
    processes: list[ProcessView]
    routes: list[RouteView]
    answers: dict[str, int] = Field(description="how many, by status, since the gateway started, as are the next two")
    refusals: dict[str, int] = Field(description="requests answered without an upstream's answer, by error code")
    retries: dict[str, int] = Field(description="requests sent a second time, by upstream")


class StartView(View):
    """What this is, and where the rest is found."""

    name: str
    version: str
    links: dict[str, str]


class CircuitOrder(Body):
    """What a circuit is to do: stay open, stay closed, or decide by itself again."""

    example: ClassVar[Mapping[str, Any]] = {"state": "auto"}

    state: Literal["open", "closed", "auto"]


def make_control(
    *,
    circuits: Mapping[str, Circuit],
    routes: Sequence[Route],
    metrics: Metrics,
    fetch_documents: FetchDocuments,
    admin_token: str | None,
    processes: ListProcesses | None = None,
    identify: Identify | None = None,
    checks: Mapping[str, Check] | None = None,
    on_forced: OnForced = lambda *_: None,
) -> ServiceApp:
    """Build the Flask application for these pages; `checks` decide /readyz, `on_forced` is told who set a circuit."""
    began = time.monotonic()
    started_at = utc_now()
    api = Routes(tag="gateway")

    @api.get("/", action=Action.PUBLIC)
    def start() -> StartView:
        """Tell what this is; whoever prefers `text/html` gets a page for people."""
        return StartView(name="Siteworks", version=VERSION, links=_LINKS)

    @api.get("/health", action=Action.PUBLIC)
    def health(caller: Principal) -> HealthView | StatesView:
        """Tell whether the gateway lives, and how each upstream's circuit stands.

        Always 200: an open circuit is the gateway doing its job. What happens to a service that nobody calls shows
        within 10 seconds. Whoever may not read the system sees the states alone.
        """
        seen = {name: circuit.snapshot() for name, circuit in circuits.items()}
        well = not any(
            one.state != "closed" or one.seen_away or one.sharing_failed or one.held_up for one in seen.values()
        )
        status: Literal["healthy", "degraded"] = "healthy" if well else "degraded"
        try:
            caller.reach(Action.READ_SYSTEM)
        except (Unauthorized, Forbidden):
            return StatesView(status=status, upstreams={n: StateView(state=one.state) for n, one in seen.items()})
        return HealthView(status=status, upstreams={name: _circuit_view(one) for name, one in seen.items()})

    def counted(name: str, label: str) -> dict[str, int]:
        return {value: round(count) for value, count in sorted(metrics.sums(name, label).items()) if count}

    @api.get("/status", action=Action.READ_SYSTEM)
    def status() -> StatusView:
        """Tell version, uptime, processes and routes."""
        now = time.monotonic()
        uptime = round(now - began, 3)
        running = [(os.getpid(), began)] if processes is None else processes()
        return StatusView(
            service="api_gateway",
            version=VERSION,
            started_at=started_at,
            uptime_seconds=uptime,
            processes=[
                ProcessView(name="api_gateway", pid=pid, uptime_seconds=round(now - since, 3)) for pid, since in running
            ],
            routes=[
                RouteView(path=route.template, methods=list(route.methods), upstream=route.upstream or None)
                for route in routes
            ],
            answers=counted("siteworks_http_requests_total", "status"),
            refusals=counted("siteworks_gateway_refusals_total", "code"),
            retries=counted("siteworks_gateway_retries_total", "upstream"),
        )

    @api.post(
        "/admin/circuits/{name}",
        action=Action.OPERATE_SYSTEM,
        errors=(Unauthorized, Forbidden, TooManyRequests, NotFound, CircuitHeldUp),
        body_limit=_ADMIN_BODY_LIMIT,
        guard=bearer_guard(admin_token, name="admin", closed="The admin routes are closed: ADMIN_TOKEN is not set."),
    )
    def set_circuit(name: str, body: CircuitOrder, caller: Principal, client: Sender) -> CircuitView:
        """Force a circuit open or closed, or let it decide by itself again.

        Needs the admin token as `Authorization: Bearer TOKEN`; without one configured, the answer is 403.
        """
        circuit = circuits.get(name)
        if circuit is None:
            raise NotFound("There is no circuit of that name.")
        try:
            circuit.force(body.state)
        except CircuitLockTimeout as error:
            raise CircuitHeldUp(retry_after=1) from error
        on_forced(caller.user_id, client.address, name, body.state)
        return _circuit_view(circuit.snapshot())

    app = make_app(
        "api_gateway",
        routes=[api],
        checks=checks or {},
        metrics=metrics,
        description=DESCRIPTION,
        browsers=None,
        identify=identify,
    )
    if processes is not None:
        app.processes = lambda: len(processes())
    _add_start_page(app)
    own = own_document(api, list(circuits), login=asks_for_login(identify))
    _add_documentation(app, own, routes, fetch_documents, list(circuits))
    return app


def _add_start_page(app: ServiceApp) -> None:
    """Answer `/` with a page where a page is wanted; the view that is there answers programs."""
    page = resources.files("api_gateway").joinpath("start_page.html").read_text(encoding="utf-8")
    policy = _PAGE_FIELDS["Content-Security-Policy"]
    for element in ("script", "style"):
        (inline,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        policy = policy.replace(f"{element}-src 'self'", f"{element}-src 'sha256-{digest}'")
    fields = {**_PAGE_FIELDS, "Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    for_programs = app.declared["GET /"]

    def show(asked: Request) -> Response | WholeAnswer:
        wanted = asked.accept_mimetypes
        # Most programs take anything, and get JSON.
        if wanted["text/html"] > wanted["application/json"]:
            return Response(page, 200, mimetype="text/html", headers={**fields, "Vary": "Accept"})
        answer: WholeAnswer = for_programs(asked)
        answer.fields.append(("Vary", "Accept"))
        return answer

    app.declared["GET /"] = show


def _circuit_view(seen: CircuitSnapshot) -> CircuitView:
    return CircuitView(
        state=seen.state,
        generation=seen.generation,
        failure_rate=round(seen.failure_rate, 4),
        calls=seen.calls,
        failures=seen.failures,
        slow_share=round(seen.slow_share, 4),
        opened_at=seen.opened_at,
        retry_in=None if seen.retry_in is None else round(seen.retry_in, 3),
        last_probe=None if seen.last_probe is None else ProbeView(at=seen.last_probe.at, ok=seen.last_probe.ok),
        forced=seen.forced,
        scope=seen.scope,
        held_up=seen.held_up,
    )


def _add_documentation(
    app: Flask,
    own: Mapping[str, Any],
    routes: Sequence[Route],
    fetch_documents: FetchDocuments,
    circuit_names: list[str],
) -> None:
    copies = _Copies(fetch_documents, circuit_names)

    def show_document() -> Response:
        return Response(dump(merge_documents(own, copies.get(), routes)), 200, mimetype="application/json")

    def show_page() -> Response:
        return Response(_PAGE, 200, mimetype="text/html", headers=_PAGE_FIELDS)

    def show_file(file: str) -> Response:
        if file == "start.js":
            return Response(_START, 200, mimetype="text/javascript", headers=_PAGE_FIELDS)
        if file not in _ASSETS:
            raise NotFound
        body = resources.files("flask_swagger_ui").joinpath("dist", file).read_bytes()
        fields = {**_PAGE_FIELDS, "Cache-Control": "public, max-age=86400"}
        return Response(body, 200, mimetype=_ASSETS[file], headers=fields)

    # The default view shows only this application's document.
    app.view_functions["/openapi.json"] = show_document
    for rule, view in (("/swagger", show_page), ("/swagger/", show_page), ("/swagger/<file>", show_file)):
        app.add_url_rule(rule, endpoint=rule, view_func=view, methods=["GET"], provide_automatic_options=False)


def own_document(api: Routes, circuit_names: list[str], *, login: bool = False) -> dict[str, Any]:
    """The OpenAPI document of the gateway's own operations."""
    document = openapi.document(title="Siteworks", version=VERSION, description=DESCRIPTION, routes=[api], login=login)
    for parameter in document["paths"]["/admin/circuits/{name}"]["post"]["parameters"]:
        parameter["schema"] = {"type": "string", "enum": sorted(circuit_names)}
    return document


class _Copies:
    """The last good copy of each service's document. One thread at a time fetches; the others use what there is."""

    def __init__(self, fetch: FetchDocuments, services: Sequence[str]) -> None:
        self._fetch = fetch
        self._asking = threading.Lock()
        self._documents: dict[str, Mapping[str, Any] | None] = dict.fromkeys(services)
        self._asked_at = float("-inf")

    def get(self) -> Mapping[str, Mapping[str, Any] | None]:
        wait = DOCUMENT_SECONDS if all(self._documents.values()) else INCOMPLETE_SECONDS
        if time.monotonic() - self._asked_at > wait and self._asking.acquire(blocking=False):
            try:
                for service, body in self._fetch().items():
                    self._documents[service] = _parsed(body) or self._documents.get(service)
                self._asked_at = time.monotonic()
            finally:
                self._asking.release()
        return dict(self._documents)


def _parsed(body: bytes | None) -> Mapping[str, Any] | None:
    if body is None:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("paths"), dict) else None
