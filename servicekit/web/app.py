"""make_app(): a Flask application with the envelope, request ids, deadlines, logs and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed
from werkzeug.routing import MapAdapter

from servicekit.http_server.request_lifecycle import RequestRecord, error_answer, log_crash, log_failure
from servicekit.http_server.wsgi import ACCOUNT, ANSWERED, BEGAN
from servicekit.identity.enforcement import OpenToAll, asks_for_login
from servicekit.identity.principal import LOCAL, Identify, Principal
from servicekit.identity.roles import Action
from servicekit.observing import request_id
from servicekit.observing.metrics import UNMATCHED, Metrics
from servicekit.process.siblings import Siblings
from servicekit.process.version import VERSION
from servicekit.web import openapi
from servicekit.web.csv_tables import CSV, CSV_CONTENT_TYPE, as_csv
from servicekit.web.encoders import encoder_of
from servicekit.web.health import Check, readiness
from servicekit.web.preconditions import ETAG, IfMatch, Resource, tag_of
from servicekit.web.routes import Answer, Endpoint, Routes, Sender
from servicekit.web.schemas import id_from_path, parse_body, parse_query
from servicekit.web.shared_answers import SharedAnswers, max_age
from servicekit.wire import deadline, memory
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.envelope import dump, success, success_bytes
from servicekit.wire.errors import (
    AppError,
    DeadlineExceeded,
    FieldError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from servicekit.wire.json_reader import weight

BODY_LIMIT = 1024 * 1024
#: Bytes that all processes of a service may hold of their requests.
MEMORY = 72 * memory.MIB
_LOOPBACK = BrowserRules()
#: In our order, for whoever has none.
_TABLES = ("application/json", CSV, CSV_CONTENT_TYPE)
_PLAIN_HOST = re.compile(r"([a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}(:[0-9]{1,5})?")


class WholeAnswer:
    """An answer with the fields that it needs, as WSGI takes it; Werkzeug's would look for more, and for addresses to
    rewrite."""

    __slots__ = ("_body", "fields", "status_code")

    def __init__(self, body: bytes, status_code: int, content_type: str = "application/json") -> None:
        self._body = body
        self.status_code = status_code
        self.fields = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if status_code == HTTPStatus.NOT_MODIFIED:
            # It says nothing but that what the client has is still so (RFC 9110 section 15.4.5).
            self._body, self.fields = b"", []

    def __len__(self) -> int:
        return len(self._body)

    def of_age(self, seconds: int) -> WholeAnswer:
        """The same to another request, so many seconds later."""
        answer = WholeAnswer(self._body, self.status_code)
        answer.fields = [*self.fields, ("Age", str(seconds))]
        return answer

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(_status_line(self.status_code), self.fields)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self._body]


@cache
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


class _NoSessions(SessionInterface):
    """Nothing here has a session."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


def _is_plain(environ: Mapping[str, Any]) -> bool:
    """Whether a request names a host in a plain way, and offers no upgrade."""
    return "HTTP_UPGRADE" not in environ and _PLAIN_HOST.fullmatch(environ.get("HTTP_HOST", "")) is not None


class ServiceApp(Flask):
    """A service's web application, with what its server must know of it: see `WsgiApp`."""

    session_interface = _NoSessions()

    def __init__(self, service: str, metrics: Metrics, browsers: BrowserRules | None) -> None:
        super().__init__(service, static_folder=None)
        self.metrics = metrics
        self.budget = memory.Budget(MEMORY)
        #: How many processes there are of it.
        self.processes: Callable[[], int] = lambda: 1
        self.immediate: dict[str, Callable[[], bytes]] = {}
        #: By Flask's endpoint; operations without a body are missing.
        self.body_limits: dict[str, int] = {}
        self.endpoints: list[Endpoint] = []
        #: The views of declared operations, by Flask's endpoint: the method and the path's template.
        self.declared: dict[str, Callable[..., Any]] = {}
        self._paths = self.url_map.bind("")
        self.record = RequestRecord(metrics)
        self.shared: SharedAnswers[WholeAnswer] = SharedAnswers()
        self._browsers = browsers

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer a request: in Flask's way, but for declared operations without its contexts, hooks and signals, which
        cost as much as the rest of it."""
        found = self._find(environ)
        if found is None:
            return super().wsgi_app(environ, start_response)
        name, values = found
        present = self.request_class(environ)
        answer = self._answer(present, name.partition(" ")[2], partial(self.declared[name], present, **values))
        return answer(environ, start_response)

    def full_dispatch_request(self) -> Any:
        # Flask's proxies take longer than what they stand for, so each is asked once.
        present: Request = request._get_current_object()  # type: ignore[attr-defined]
        route = UNMATCHED if present.url_rule is None else _template(present.url_rule.rule)
        return self._answer(present, route, super().full_dispatch_request)

    def _find(self, environ: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """The declared operation that is asked for, and what its path holds."""
        if not _is_plain(environ):
            return None
        path = environ["PATH_INFO"]
        name = f"{environ['REQUEST_METHOD']} {path}"
        if name in self.declared and "{" not in path:
            return name, {}
        try:
            name, values = self._adapter(environ).match()
        except HTTPException:
            return None
        return (name, values) if name in self.declared else None

    def _answer(self, present: Request, route: str, view: Callable[[], Any]) -> Any:
        field = present.environ.get
        now = time.perf_counter()
        began = field(BEGAN, now)
        wanted = request_id.accept_or_make(field("HTTP_X_REQUEST_ID"))
        left = deadline.seconds_from_header(field("HTTP_X_REQUEST_TIMEOUT_MS"))
        if left is not None:
            # It may have waited for a thread.
            left -= now - began
        account = field(ACCOUNT)
        own = self.budget.account() if account is None else nullcontext(account)
        with own as account, request_id.use(wanted), deadline.within(left), memory.counted_in(account):
            try:
                if left is not None and left <= 0:
                    raise DeadlineExceeded
                if self._browsers is not None:
                    self._browsers.check(
                        present.method,
                        present.path,
                        field("HTTP_HOST"),
                        field("HTTP_ORIGIN"),
                        field("HTTP_SEC_FETCH_SITE"),
                    )
                response: Any = view()
            except Exception as error:
                response = _answer_to(error)
            if isinstance(response, WholeAnswer):
                response.fields.append((request_id.REQUEST_ID, wanted))
            else:
                response.headers[request_id.REQUEST_ID] = wanted
            status = field(ANSWERED, response.status_code)
            self.record.ended(present.method, route, status, time.perf_counter() - began)
        return response

    def join(self, shared: Siblings) -> None:
        """Be one of several processes, which together hold no more than one alone."""
        self.budget = memory.Budget(MEMORY, shared.hold)
        self.processes = shared.count

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        # Werkzeug's own way takes apart host names, on which no rule here depends; it refuses strange ones.
        if request is None or not _is_plain(request.environ):
            return super().create_url_adapter(request)
        return self._adapter(request.environ)

    def _adapter(self, environ: Mapping[str, Any]) -> MapAdapter:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        if not path.isascii():
            path = path.encode("latin-1").decode(errors="replace")
        return MapAdapter(self.url_map, "", "/", "", environ["wsgi.url_scheme"], path, environ["REQUEST_METHOD"], query)

    def body_limit(self, method: str, target: str) -> int:
        name = f"{method} {target}"
        if name not in self.body_limits:
            try:
                name, _ = self._paths.match(unquote(target.partition("?")[0]), method)
            except HTTPException:
                return 0
        return self.body_limits.get(name, 0)


def make_app(
    service: str,
    *,
    routes: Sequence[Routes],
    checks: Mapping[str, Check],
    metrics: Metrics | None = None,
    description: str = "",
    body_limit: int = BODY_LIMIT,
    browsers: BrowserRules | None = _LOOPBACK,
    identify: Identify | None = None,
) -> ServiceApp:
    """Build a service's web application.

    `checks` decide /readyz; `body_limit` is in bytes and applies to chunked bodies too; `browsers` is None where
    requests were judged before. `identify` finds out who calls; without it everybody is `LOCAL`. Besides the given
    routes it answers /livez, /readyz, /metrics and /openapi.json.
    """
    metrics = metrics or Metrics(service)
    app = ServiceApp(service, metrics, browsers)
    app.url_map.merge_slashes = False
    app.register_error_handler(Exception, _answer_to)
    for group in routes:
        for endpoint in group.endpoints:
            _add(app, endpoint, body_limit, identify)
    public = [group for group in routes if group.documented]
    login = asks_for_login(identify)

    @cache
    def document() -> bytes:
        return dump(
            openapi.document(title=service, version=VERSION, description=description, routes=public, login=login)
        )

    _add_service_pages(app, service, checks, metrics, document)
    return app


def json_response(body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A Flask response with strict JSON."""
    return Response(dump(body), status, mimetype="application/json", headers=dict(headers or {}))


def read_body(request: Request, limit: int) -> bytes:
    """Read the request's body; raises `TooLarge` above `limit` bytes, whatever the framing, and `UnsupportedMediaType`
    for a compressed one.

    Counts the memory for the body and for parsing it as JSON; may raise `Overloaded`, before reading.
    """
    environ = request.environ
    length = environ.get("CONTENT_LENGTH", "")
    announced = int(length) if length.isdecimal() else 0
    if announced > limit:
        raise TooLarge(f"The body is larger than {limit} bytes.")
    # As text, as values and as what is made of them.
    least = 3 * announced
    memory.take(max(0, least - memory.taken()))
    source = environ["wsgi.input"] if environ.get("wsgi.input_terminated") else request.stream
    raw: bytes = source.read(limit + 1)
    if len(raw) > limit:
        raise TooLarge(f"The body is larger than {limit} bytes.")
    if "HTTP_CONTENT_ENCODING" in environ:
        _require_plain(environ["HTTP_CONTENT_ENCODING"])
    memory.take(max(0, len(raw) + weight(raw) - least))
    return raw


def _require_plain(codings: str) -> None:
    """Refuse a compressed body, and say so as RFC 9110 section 15.5.16 asks."""
    if any(coding.strip().lower() not in ("", "identity") for coding in codings.split(",")):
        problem = FieldError("Content-Encoding", "must be left out: bodies are read as plain JSON")
        raise UnsupportedMediaType(
            f"{problem.field}: {problem.message}", details=[problem], headers={"Accept-Encoding": "identity"}
        )


def _text(raw: bytes) -> str | bytes:
    """Decode a body, so that its bytes need not be held while it is parsed; invalid UTF-8 is refused there."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _add(app: ServiceApp, endpoint: Endpoint, default_limit: int, identify: Identify | None) -> None:
    header_keys = [(name, f"HTTP_{name.upper().replace('-', '_')}") for name in endpoint.headers]
    wants_headers = "headers" in endpoint.handler.__code__.co_varnames[: endpoint.handler.__code__.co_argcount]
    limit = endpoint.body_limit or default_limit
    name = f"{endpoint.method} {endpoint.path}"
    encode = encoder_of(endpoint.view)
    encoders = {view: encoder_of(view) for view in endpoint.views}
    tags_itself = {view for view in endpoint.views if issubclass(view, Resource) and view.tags_itself()}
    app.endpoints.append(endpoint)
    if endpoint.body is not None:
        app.body_limits[name] = limit
    caller_of = _caller_of(endpoint, identify)

    def view(request: Request, **path: str) -> WholeAnswer:
        caller = caller_of(request)
        seconds = max_age(request.environ.get("HTTP_CACHE_CONTROL")) if endpoint.shared else 0
        if not seconds:
            return answered(request, caller, path)
        assert endpoint.action is not None, "a shared answer is for whoever may do something"
        whose = caller if endpoint.shared == "by caller" else caller.reach(endpoint.action)
        key = (name, *path.values(), request.query_string, whose)
        answer, age = app.shared.get(key, seconds, lambda: answered(request, caller, path))
        return answer.of_age(age)

    def answered(request: Request, caller: Principal, path: Mapping[str, str]) -> WholeAnswer:
        arguments: dict[str, Any] = {
            name: text if endpoint.path_parameters[name] is str else id_from_path(name, text)
            for name, text in path.items()
        }
        if endpoint.wants_caller:
            arguments["caller"] = caller
        if endpoint.wants_client:
            arguments["client"] = _client_of(request)
        if endpoint.query is not None:
            arguments["query"] = parse_query(endpoint.query, request.query_string)
        if endpoint.body is not None:
            arguments["body"] = parse_body(
                endpoint.body,
                _text(read_body(request, limit)),
                request.environ.get("CONTENT_TYPE"),
                may_be_empty=endpoint.body_may_be_empty,
            )
        if wants_headers:
            arguments["headers"] = {name: request.environ.get(key) for name, key in header_keys}
        if endpoint.conditional:
            arguments["if_match"] = IfMatch(request.environ.get("HTTP_IF_MATCH"))
        answer = endpoint.handler(**arguments)
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        if endpoint.csv and request.accept_mimetypes.best_match(_TABLES) in (CSV, CSV_CONTENT_TYPE):
            return _table(endpoint, answer)
        shown = type(answer.data)
        data = encoders.get(shown, encode)(answer.data).encode()
        response = WholeAnswer(success_bytes(data), answer.status or endpoint.status)
        response.fields.extend(answer.headers.items())
        if endpoint.csv:
            response.fields.append(("Vary", "Accept"))
        response.fields.extend(("Set-Cookie", cookie) for cookie in answer.cookies)
        if endpoint.tagged:
            response.fields.append((ETAG, answer.data.etag if shown in tags_itself else tag_of(data)))
        return response

    app.declared[name] = view
    app.add_url_rule(
        endpoint.flask_rule,
        endpoint=name,
        view_func=partial(view, request),
        methods=[endpoint.method],
        provide_automatic_options=False,
    )


def _table(endpoint: Endpoint, answer: Answer[Any]) -> WholeAnswer:
    """The answer for a spreadsheet, as a file named after the path."""
    name = endpoint.path.rpartition("/")[2]
    response = WholeAnswer(as_csv(answer.data.table()), answer.status or endpoint.status, CSV_CONTENT_TYPE)
    response.fields += [("Content-Disposition", f'attachment; filename="{name}.csv"'), ("Vary", "Accept")]
    return response


def _caller_of(endpoint: Endpoint, identify: Identify | None) -> Callable[[Request], Principal]:
    """How an operation finds out who calls; raises for whoever may not do it."""
    action, guard = endpoint.action, endpoint.guard
    is_open = isinstance(identify, OpenToAll)
    # What everybody may do asks for nothing, so that an old token keeps nobody from logging in.
    if identify is not None and action is not None and (action is not Action.PUBLIC or endpoint.wants_caller):

        def judged(request: Request) -> Principal:
            caller = identify(request.environ.get("HTTP_AUTHORIZATION"))
            caller.reach(action)
            return caller

        if not is_open:
            return judged
        if guard is None:
            return lambda request: judged(request) if "HTTP_AUTHORIZATION" in request.environ else LOCAL
    if guard is not None:

        def guarded(request: Request) -> Principal:
            field = request.headers.get("Authorization")
            if action is not None and isinstance(identify, OpenToAll) and identify.knows(field):
                return judged(request)
            guard(field, request.remote_addr)
            return LOCAL

        return guarded
    return lambda _: LOCAL


def _client_of(request: Request) -> Sender:
    """The client, by X-Real-IP, which the gateway alone sets, or else by the last values of the forwarded fields: those
    are the gateway's own."""
    field = request.headers.get
    forwarded = field("X-Real-IP") or field("X-Forwarded-For") or request.remote_addr or ""
    address = forwarded.rpartition(",")[2].strip()
    secure = (field("X-Forwarded-Proto") or "").rpartition(",")[2].strip() == "https"
    return Sender(address, field("User-Agent") or "", secure, "text/html" in (field("Accept") or ""), request.cookies)


def _add_service_pages(
    app: ServiceApp,
    service: str,
    checks: Mapping[str, Check],
    metrics: Metrics,
    document: Callable[[], bytes],
) -> None:

    def page(path: str, view: Callable[[], Response]) -> None:
        app.add_url_rule(path, endpoint=path, view_func=view, methods=["GET"], provide_automatic_options=False)

    def show_life() -> bytes:
        return dump(success({"status": "alive", "service": service, "processes": app.processes()}))

    app.immediate["/livez"] = show_life
    page("/livez", lambda: Response(show_life(), 200, mimetype="application/json"))
    page("/readyz", lambda: json_response(success(readiness(checks)), 200))
    page("/openapi.json", lambda: Response(document(), 200, mimetype="application/json"))

    def show_metrics() -> Response:
        body, media_type = metrics.render()
        return Response(body, 200, content_type=media_type)

    page("/metrics", show_metrics)


@cache
def _template(rule: str) -> str:
    """A path of Flask's in our notation."""
    return rule.replace("<", "{").replace(">", "}")


def _answer_to(error: Exception) -> Response:
    """The answer to an error, which is logged unless it is the client's."""
    if isinstance(error, HTTPException):
        error = _translated(error)
    elif isinstance(error, AppError):
        log_failure(error)
    else:
        log_crash()
        error = AppError()
    status, headers, body = error_answer(error)
    return Response(body, status, dict(headers))


def _translated(error: HTTPException) -> AppError:
    if isinstance(error, WerkzeugMethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return MethodNotAllowed(headers={"Allow": allowed})
    if error.code == 404:
        return NotFound()
    if error.code == 413:
        return TooLarge()
    if error.code is not None and 400 <= error.code < 500:
        return Invalid("The request cannot be read.")
    return AppError()
