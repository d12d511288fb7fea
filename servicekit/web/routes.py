"""Routes as data: a service's operations, declared once for Flask and OpenAPI."""

from __future__ import annotations

import hmac
import inspect
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from servicekit.identity.roles import Action
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import Body, Query, View
from servicekit.wire.errors import AppError, Forbidden, PreconditionFailed, TooManyRequests, Unauthorized

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
#: Checks the Authorization field of a client, given by its address, before anything else of a request is read; raises
#: to refuse it.
Guard = Callable[[str | None, str | None], None]
#: See `Endpoint.shared`.
Shared = Literal["by reach", "by caller"]
_PARAMETER = re.compile(r"\{(\w+)\}")
#: The most wrong tokens that one client may send in so many seconds.
WRONG_TOKENS = 10
WRONG_TOKENS_SECONDS = 60.0
#: Clients whose wrong tokens are remembered; beyond it the one that began first is forgotten.
_MOST_CLIENTS = 1000


class _WrongTokens:
    """Counts the wrong tokens of each client, in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: For each client how many, and when they are forgotten.
        self._of: dict[str, tuple[int, float]] = {}

    def check(self, client: str, now: float) -> None:
        """Raises `TooManyRequests` if the client has sent too many."""
        many, until = self._of.get(client, (0, now))
        if many >= WRONG_TOKENS and now < until:
            wait = math.ceil(until - now)
            raise TooManyRequests("Too many wrong tokens; wait.", headers={"Retry-After": str(wait)})

    def count(self, client: str, now: float) -> None:
        with self._lock:
            many, until = self._of.get(client, (0, now))
            if now >= until:
                self._of.pop(client, None)
                many, until = 0, now + WRONG_TOKENS_SECONDS
            self._of[client] = many + 1, until
            if len(self._of) > _MOST_CLIENTS:
                del self._of[next(iter(self._of))]


def bearer_guard(
    token: str | None, *, name: str, closed: str, puts_off: bool = True, now: Callable[[], float] = time.monotonic
) -> Guard:
    """A guard that admits only requests with `token` as `Authorization: Bearer TOKEN` (RFC 6750), compared in constant
    time; raises `Unauthorized` for others. Without a token it raises `Forbidden` for all, with `closed` as the reason.

    A client that has sent WRONG_TOKENS wrong ones gets `TooManyRequests`, whatever it sends, until WRONG_TOKENS_SECONDS
    after the first of them; without `puts_off` nobody is put off, for a sender at whose address anybody may guess.
    `name` says which token to send, such as "admin".
    """
    wrong = _WrongTokens()

    def check(authorization: str | None, client: str | None) -> None:
        if not token:
            raise Forbidden(closed)
        if puts_off:
            wrong.check(client or "", now())
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            if given and puts_off:
                wrong.count(client or "", now())
            raise Unauthorized(
                f"Send the {name} token as Authorization: Bearer TOKEN.", headers={"WWW-Authenticate": "Bearer"}
            )

    return check


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A successful answer with its own status or header fields."""

    data: T
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The values of its Set-Cookie fields.
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sender:
    """From where a request comes, as the gateway tells."""

    address: str
    #: What its User-Agent says it is.
    agent: str = ""
    #: Whether it came by TLS.
    secure: bool = False
    #: Whether it is a browser that shows the answer as a page.
    wants_page: bool = False
    cookies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """One operation: its input, output and possible errors."""

    method: str
    path: str
    tag: str
    handler: Callable[..., Any]
    status: int
    errors: tuple[type[AppError], ...]
    body: type[Body] | None
    body_may_be_empty: bool
    body_limit: int | None
    query: type[Query] | None
    view: type[View]
    #: All that it may answer with, `view` first.
    views: tuple[type[View], ...]
    headers: Mapping[str, str]
    #: Whether it reads If-Match.
    conditional: bool
    #: The `{…}` parts of the path, in order: UUID, or str for any text.
    path_parameters: Mapping[str, type]
    #: Whether it asks who calls.
    wants_caller: bool
    #: Whether it asks from where they call.
    wants_client: bool
    #: What it does, in the role table; None where the guard alone decides who may.
    action: Action | None
    guard: Guard | None
    #: Of a successful answer. Anything but JSON has no envelope, and is not served by make_app().
    media_type: str = "application/json"
    #: Describes when it answers 204 instead; empty if never.
    no_content: str = ""
    #: Whether it answers with the view's `table` to whoever prefers text/csv.
    csv: bool = False
    #: Describes when it answers 304 instead; empty if never.
    not_modified: str = ""
    #: For whom an answer is the same, if another request is answered with it: all who reach the same rows, or a caller.
    shared: Shared | None = None

    @property
    def tagged(self) -> bool:
        """Whether a successful answer carries the resource's ETag; a deleted one has none."""
        return issubclass(self.view, Resource) and self.method != "DELETE"

    @property
    def flask_rule(self) -> str:
        """The path in Flask's notation."""
        return _PARAMETER.sub(r"<\1>", self.path)


class Routes:
    """The operations of one resource.

    A handler's parameters are found by name: `caller` (a `Principal`), `client` (a `Sender`), `body`, `query`,
    `headers` (a mapping of the declared request fields to text or None), `if_match` (an `IfMatch`), and each `{name}`
    of the path, as the UUID or str of its annotation. Its return annotation is a `View`, or `Answer[View]` when it sets
    a status or header fields itself; a union of views where not everybody is shown the same.
    """

    def __init__(self, tag: str, *, documented: bool = True) -> None:
        """`documented` adds the operations to /openapi.json."""
        self.tag = tag
        self.documented = documented
        self.endpoints: list[Endpoint] = []

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a GET (which includes HEAD)."""
        return self._route("GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[F], F]:
        return self._route("POST", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[F], F]:
        """Declare a PUT, and a PATCH that does the same: both change the fields that are sent."""

        def declare(handler: F) -> F:
            return self._route("PATCH", path, **options)(self._route("PUT", path, **options)(handler))

        return declare

    def delete(self, path: str, **options: Any) -> Callable[[F], F]:
        return self._route("DELETE", path, **options)

    def _route(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        errors: tuple[type[AppError], ...] = (),
        body_may_be_empty: bool = False,
        body_limit: int | None = None,
        headers: Mapping[str, str] | None = None,
        action: Action | None = None,
        guard: Guard | None = None,
        media_type: str = "application/json",
        no_content: str = "",
        csv: bool = False,
        not_modified: str = "",
        shared: Shared | None = None,
    ) -> Callable[[F], F]:
        """Each operation names its `action`, has a `guard` for callers without a login, or both: then the guard decides
        where nobody logs in.

        `headers` maps each request field that the operation reads to its description.

        With another `media_type` (for an event stream), the view holds each event's data under the event's name. With
        `csv`, the view has a method `table` that returns the rows of `as_csv`.
        """

        if action is None and guard is None:
            raise TypeError(f"{method} {path}: name an action of the role table, or a guard")

        def declare(handler: F) -> F:
            hints = get_type_hints(handler)
            view = hints["return"]
            if get_origin(view) is Answer:
                (view,) = get_args(view)
            views: tuple[type[View], ...] = get_args(view) if isinstance(view, UnionType) else (view,)
            path_parameters = {name: hints.get(name, UUID) for name in _PARAMETER.findall(path)}
            known = {"caller", "client", "body", "query", "headers", "if_match", *path_parameters}
            named = set(inspect.signature(handler).parameters)
            strange = named - known
            if "caller" in named and action is None:
                raise TypeError(f"{method} {path}: whoever passes a guard is nobody in particular")
            if strange:
                raise TypeError(f"{method} {path}: no value for the parameters {sorted(strange)}")
            self.endpoints.append(
                Endpoint(
                    method=method,
                    path=path,
                    tag=self.tag,
                    handler=handler,
                    status=status,
                    errors=(*errors, PreconditionFailed) if "if_match" in named else errors,
                    body=hints.get("body"),
                    body_may_be_empty=body_may_be_empty,
                    body_limit=body_limit,
                    query=hints.get("query"),
                    view=views[0],
                    views=views,
                    headers=headers or {},
                    conditional="if_match" in named,
                    path_parameters=path_parameters,
                    wants_caller="caller" in named,
                    wants_client="client" in named,
                    action=action,
                    guard=guard,
                    media_type=media_type,
                    no_content=no_content,
                    csv=csv,
                    not_modified=not_modified,
                    shared=shared,
                )
            )
            return handler

        return declare
