"""Runs a WSGI application (PEP 3333) on a few threads of the event-loop server.

The event loop receives requests and sends answers, so a slow client occupies no thread. A thread gets a request once it
is complete, unless its client has left by then.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from servicekit.http_server.application import Application
from servicekit.http_server.request import Fields, Request, RequestFields
from servicekit.http_server.request_lifecycle import Exchange, ObservedHandler, RequestRecord, error_answer
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import UNMATCHED, Metrics
from servicekit.wire.deadline import TIMEOUT_MS, seconds_from_header
from servicekit.wire.errors import AppError, DeadlineExceeded, Overloaded
from servicekit.wire.memory import Account, Budget

#: How many requests may wait for a thread, in all; the next is refused.
MAX_WAITING = 1024
#: How often the event loop looks for requests whose deadline has passed, in seconds, and how much longer it waits for a
#: thread that has begun one, and may know why it takes so long.
LOOK_SECONDS = 0.1
LATE_SECONDS = 0.5
#: How long log lines may be held, so that those of many requests are written at once, in seconds.
LOG_SECONDS = 0.05
#: Where the application finds when the request was complete (`time.perf_counter()`), and the account of its memory.
BEGAN = "siteworks.began"
ACCOUNT = "siteworks.account"
#: The status with which the client was answered meanwhile, if it was.
ANSWERED = "siteworks.answered"

#: Fields that an application must not set (PEP 3333): they belong to the connection.
_OF_THE_CONNECTION = frozenset({"connection", "date", "keep-alive", "server", "transfer-encoding"})
#: Of a request; Werkzeug would take one that offers an upgrade for a WebSocket's.
_OF_ONE_CONNECTION = frozenset({b"connection", b"transfer-encoding", b"upgrade"})
_TIMEOUT_MS = TIMEOUT_MS.lower().encode()
_UNPREFIXED = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}

#: Of every request.
_CONSTANTS: Mapping[str, Any] = {
    "SCRIPT_NAME": "",
    "SERVER_PORT": "80",
    "wsgi.version": (1, 0),
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}

_log = get_logger(__name__)

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class WsgiApp(Protocol):
    """A WSGI application and what it lets a process hold."""

    #: The memory of all requests.
    budget: Budget
    metrics: Metrics
    #: Counts and logs the requests that it is given; the server replaces it by one that writes many lines at once.
    record: RequestRecord
    #: What answers GET of these targets, as JSON, on the event loop: it must take no time.
    immediate: Mapping[str, Callable[[], bytes]]

    def body_limit(self, method: str, target: str) -> int:
        """The largest body that it reads of such a request, in bytes; 0 if it reads none."""

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]: ...


class WsgiServer(Application):
    """Serves a WSGI application; its threads start with the event loop."""

    def __init__(self, app: WsgiApp, *, threads: int) -> None:
        self._app = app
        self._threads = threads

    def start(self) -> None:
        self.handler: WsgiHandler = WsgiHandler(self._app, self._threads)

    async def stop(self) -> None:
        if "handler" in vars(self):
            self.handler.end_threads()


class _Job(Exchange):
    """A request and, once a thread has run it, its answer."""

    __slots__ = ("account", "answered", "begun", "body", "ends_at", "environ", "fields", "left", "told")

    def __init__(self, request: Request, account: Account) -> None:
        super().__init__(request)
        self.account = account
        #: Whether there is an answer; False when its deadline has passed.
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        #: Nobody waits for it any more; a thread has taken it; its end has been told to the event loop.
        self.left = self.begun = self.told = False
        #: Its deadline, on the clock of `began`.
        self.ends_at = math.inf
        self.environ: Environ = {}
        self.fields: Fields = []
        self.body = b""

    def close(self) -> None:
        # A thread that still works on what nobody waits for counts until it ends.
        if not self.left and self.account.taken:
            self.account.close()

    def take(self, error: AppError) -> None:
        """Make the answer that of an error."""
        answer = error_answer(error)
        length, made = b"%d" % len(answer.body), self.request_id.encode("ascii")
        self.status = answer.status
        self.fields = [*answer.fields, (b"content-length", length), (b"x-request-id", made)]
        self.body = b"" if self.request.method == "HEAD" else answer.body

    def answer_at_once(self, body: bytes) -> None:
        """Send an answer that took no thread, as JSON."""
        self.route, self.status = self.request.target, 200
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode("ascii")),
        ]
        self.client.send(200, fields, b"" if self.request.method == "HEAD" else body)

    def run(self, app: WsgiApp) -> None:
        """Run the application, on a thread."""
        pieces: list[bytes] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
        ) -> Callable[[bytes], None]:
            self.status = int(status[:3])
            self.fields = [
                (lower.encode("latin-1"), value.encode("latin-1"))
                for name, value in headers
                if (lower := name.lower()) not in _OF_THE_CONNECTION
            ]
            return pieces.append

        result = app(self.environ, start_response)
        try:
            pieces.extend(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)


class WsgiHandler(ObservedHandler[_Job]):
    """Hands complete requests to threads, first come first served; belongs to one event loop.

    The application counts and logs its requests itself; those that it never sees are counted here.
    """

    def __init__(self, app: WsgiApp, threads: int) -> None:
        app.record = RequestRecord(app.metrics, self._log_later)
        super().__init__(app.record)
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        #: What wakes each thread that has nothing to do, the last to have had something last: a few threads that are
        #: always busy cost a tenth less than many that take turns.
        self._resting: list[SimpleQueue[None]] = []
        self._is_ending = False
        #: Those that somebody waits for, begun or not.
        self._awaited: set[_Job] = set()
        self._is_looking = False
        self._done: deque[_Job] = deque()
        self._is_told = False
        self._threads = [
            threading.Thread(target=self._work, name=f"requests-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread, without those that nobody waits for."""
        return max(0, len(self._awaited) - len(self._threads))

    def _log_later(self, write: Callable[[], None]) -> None:
        # Without its loop the process ends, and writes what is held.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, LOG_SECONDS, write)

    def end_threads(self) -> None:
        """Let each thread end once no request waits."""
        self._is_ending = True
        while self._wake_one():
            pass

    def end_streams(self) -> None:
        """There are none."""

    def begin(self, request: Request) -> _Job:
        return _Job(request, Account(self._app.budget))

    async def handle(self, exchange: _Job) -> bool:
        request = exchange.request
        request.check_fields()
        immediate = self._app.immediate.get(request.target)
        if immediate is not None and request.method in ("GET", "HEAD"):
            exchange.answer_at_once(immediate())
            return True
        if self.waiting >= MAX_WAITING:
            raise Overloaded
        body = b""
        if request.body.present and (limit := self._app.body_limit(request.method, request.target)):
            body = await request.body.read(limit, exchange.account)
        # The body is held by `wsgi.input` alone, which lets go of it.
        environ = exchange.environ = _environ(exchange, body)
        del body
        left = seconds_from_header(request.fields.get(_TIMEOUT_MS))
        if left is not None:
            exchange.ends_at = environ[BEGAN] + left
            if not self._is_looking:
                self._is_looking = True
                self._loop.call_later(LOOK_SECONDS, self._look)
        self._awaited.add(exchange)
        self._jobs.append(exchange)
        self._wake_one()
        try:
            if not await exchange.answered:
                raise DeadlineExceeded
        except asyncio.CancelledError:
            exchange.left = not exchange.told
            if exchange.begun:
                exchange.status = 0
            raise
        finally:
            self._awaited.discard(exchange)
        client = exchange.client
        client.send(exchange.status, exchange.fields, exchange.body)
        # The application has counted it.
        exchange.status = 0
        if client.is_behind:
            await client.drain()
        return True

    def refuse(self, exchange: _Job, error: AppError) -> None:
        exchange.take(error)
        exchange.client.send(exchange.status, exchange.fields, exchange.body)
        if exchange.begun:
            # The application counts it.
            exchange.status = 0

    def _look(self) -> None:
        """Answer the requests whose time is gone, so that none waits for a thread that waits for others."""
        now = time.perf_counter()
        self._is_looking = False
        for job in self._awaited:
            if job.ends_at < math.inf:
                self._is_looking = True
            if job.ends_at + (LATE_SECONDS if job.begun else 0.0) <= now and not job.answered.done():
                job.left = True
                job.environ[ANSWERED] = HTTPStatus.GATEWAY_TIMEOUT.value
                job.answered.set_result(False)
        if self._is_looking:
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _wake_one(self) -> bool:
        """Wake a thread that rests; returns whether there was one."""
        try:
            self._resting.pop().put(None)
        except IndexError:
            return False
        return True

    def _next_job(self, bell: SimpleQueue[None]) -> _Job | None:
        """Wait for a request, on a thread; None at the end."""
        while True:
            try:
                return self._jobs.popleft()
            except IndexError:
                self._resting.append(bell)
            # In this order: whoever adds a request, or ends it all, looks for resting threads after that.
            if self._jobs or self._is_ending:
                with suppress(ValueError):
                    self._resting.remove(bell)
                    if not self._jobs and self._is_ending:
                        return None
                    continue
            bell.get()

    def _work(self) -> None:
        bell: SimpleQueue[None] = SimpleQueue()
        while (job := self._next_job(bell)) is not None:
            if not job.left:
                job.begun = True
                try:
                    job.run(self._app)
                except BaseException as error:  # a bug, since the application answers every error itself
                    self._fail(job, error)
            self._done.append(job)
            # One call for all that are done by the time it runs.
            if not self._is_told:
                self._is_told = True
                try:
                    self._loop.call_soon_threadsafe(self._tell)
                except RuntimeError:
                    # The loop is closed: the process ends.
                    return

    def _fail(self, job: _Job, error: BaseException) -> None:
        _log.error("request_crashed", exc_info=error, request_id=job.request_id)
        job.take(AppError())
        self._record.ended(job.request.method, UNMATCHED, job.status, time.perf_counter() - job.began)

    def _tell(self) -> None:
        # Before the look: whoever adds a job after it calls again.
        self._is_told = False
        while self._done:
            job = self._done.popleft()
            job.told = True
            if job.left:
                job.account.close()
            elif not job.answered.done():
                job.answered.set_result(True)


class _Input:
    """`wsgi.input` of a body that is here; lets go of what was read."""

    def __init__(self, body: bytes) -> None:
        self._rest = body

    def read(self, size: int = -1) -> bytes:
        rest = self._rest
        if size < 0 or size >= len(rest):
            self._rest = b""
            return rest
        self._rest = rest[size:]
        return rest[:size]

    def readline(self, size: int = -1) -> bytes:
        end = self._rest.find(b"\n") + 1 or len(self._rest)
        return self.read(end if size < 0 else min(end, size))

    def readlines(self, hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Any:
        return iter(self.readline, b"")


def _environ(job: _Job, body: bytes) -> Environ:
    request = job.request
    fields = request.fields
    shared = fields.shared.environ
    if shared is None:
        shared = fields.shared.environ = _shared_environ(fields.shared)
    path, _, query = request.target.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    environ: Environ = {
        **_CONSTANTS,
        **shared,
        "REQUEST_METHOD": request.method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "REMOTE_ADDR": job.client.address,
        "wsgi.url_scheme": job.client.scheme,
        "wsgi.input": _Input(body),
        "wsgi.errors": sys.stderr,
        BEGAN: time.perf_counter(),
        ACCOUNT: job.account,
    }
    for name, value in fields.own:
        if name not in _OF_ONE_CONNECTION:
            environ[_key(name)] = value.decode("latin-1")
    if b"transfer-encoding" in fields.first:
        # It is here.
        environ["CONTENT_LENGTH"] = str(len(body))
    # Its log lines must name what its client is told, even where the event loop answers in its stead.
    environ["HTTP_X_REQUEST_ID"] = job.request_id
    return environ


def _shared_environ(fields: RequestFields) -> dict[str, str]:
    host = fields.get(b"host") or ""
    environ = {"SERVER_NAME": host.rpartition(":")[0] or host}
    for name, value in fields.pairs:
        if name not in _OF_ONE_CONNECTION:
            key, text = _key(name), value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


@lru_cache(maxsize=256)
def _key(name: bytes) -> str:
    return _UNPREFIXED.get(name) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
