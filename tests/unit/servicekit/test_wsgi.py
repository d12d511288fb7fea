"""A WSGI application on the threads of the event-loop server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from wsgiref.validate import validator

import pytest

from servicekit.http_server import wsgi
from servicekit.http_server.request import NO_BODY, Fields, Request, RequestBody, RequestFields
from servicekit.http_server.request_lifecycle import RequestRecord
from servicekit.http_server.wsgi import WsgiHandler
from servicekit.observing.metrics import Metrics
from servicekit.wire.memory import Budget
from tests.unit.servicekit.test_request_lifecycle import Connection

SECONDS = 10.0


class App:
    """Answers with what it was asked, once it may."""

    def __init__(self, check: bool = False) -> None:
        self.budget = Budget(1 << 20)
        self.metrics = Metrics("pumps")
        self.record = RequestRecord(self.metrics)
        self.immediate = {"/immediate": lambda: b"{}"}
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.seen: list[dict[str, Any]] = []
        self._answer = validator(self._say) if check else self._say

    def body_limit(self, method: str, target: str) -> int:
        return 1000 if method == "POST" else 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(environ)
        assert self.may_go_on.wait(SECONDS)
        return self._answer(environ, start_response)

    def _say(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise SystemExit("SELECT secret")
        body = environ["wsgi.input"].read(1000) if environ["REQUEST_METHOD"] == "POST" else b""
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("X-Pump", "é")])
        return [body]


def request(
    client: Connection,
    method: str = "GET",
    target: str = "/pumps",
    body: bytes | None = None,
    *more: tuple[bytes, bytes],
) -> Request:
    fields: Fields = [(b"host", b"localhost:8001"), (b"x-a", b"1"), (b"x-a", b"2"), *more]
    read = NO_BODY
    if body is not None:
        fields.append((b"content-length", b"%d" % len(body)))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        read = RequestBody(RequestFields(fields), receive)
    return Request(method, target, "1.1", RequestFields(fields), read, client)  # type: ignore[arg-type]


def run(app: App, threads: int, main: Callable[[WsgiHandler], Any]) -> None:
    async def all_of_it() -> None:
        handler = WsgiHandler(app, threads)
        try:
            async with asyncio.timeout(SECONDS):
                await main(handler)
        finally:
            app.may_go_on.set()
            handler.end_threads()
        for thread in handler._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    asyncio.run(all_of_it())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def counted(app: App) -> list[str]:
    lines = app.metrics.render()[0].decode().splitlines()
    return [line for line in lines if line.startswith("siteworks_http_requests_total")]


@pytest.mark.parametrize(
    ("method", "target", "body", "path", "query"),
    [
        ("GET", "/pumps?limit=1&q=%C3%A9", None, "/pumps", "limit=1&q=%C3%A9"),
        ("GET", "/pumps/%C3%A9", None, "/pumps/Ã©", ""),
        ("POST", "/pumps", b'{"name": "x"}', "/pumps", ""),
        ("POST", "/pumps", b"", "/pumps", ""),
    ],
)
def test_the_application_sees_the_request_as_pep_3333_has_it(
    method: str, target: str, body: bytes | None, path: str, query: str
) -> None:
    app, client = App(check=True), Connection()

    async def main(handler: WsgiHandler) -> None:
        assert await handler.answer(request(client, method, target, body))

    run(app, 1, main)
    assert client.sent == [(200, body or b"")]
    (environ,) = app.seen
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert (environ["HTTP_X_A"], environ["HTTP_HOST"], environ["REMOTE_ADDR"]) == ("1,2", "localhost:8001", "127.0.0.1")
    assert app.budget.taken == 0


def test_a_request_whose_client_has_left_is_not_begun() -> None:
    app = App()
    app.may_go_on.clear()

    async def main(handler: WsgiHandler) -> None:
        first = asyncio.create_task(handler.answer(request(Connection(), target="/first")))
        await until(lambda: bool(app.seen))
        second = asyncio.create_task(handler.answer(request(Connection(), "POST", "/second", b"x" * 1000)))
        await until(lambda: app.budget.taken == 1000)
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        third = asyncio.create_task(handler.answer(request(Connection(), target="/third")))
        app.may_go_on.set()
        await asyncio.gather(first, third)

    run(app, 1, main)
    assert [environ["PATH_INFO"] for environ in app.seen] == ["/first", "/third"]
    assert ['status="499"' in line for line in counted(app)] == [True]
    assert app.budget.taken == 0


def test_what_a_thread_still_holds_for_a_client_that_left_is_counted_until_its_end() -> None:
    app = App()
    app.may_go_on.clear()

    async def main(handler: WsgiHandler) -> None:
        call = asyncio.create_task(handler.answer(request(Connection(), "POST", body=b"x" * 1000)))
        await until(lambda: bool(app.seen))
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        assert app.budget.taken == 1000
        app.may_go_on.set()
        await until(lambda: app.budget.taken == 0)

    run(app, 1, main)
    # The application counts what it was given.
    assert counted(app) == []


def test_a_client_that_leaves_at_the_moment_of_its_answer_leaves_nothing_counted() -> None:
    app = App()

    async def main(handler: WsgiHandler) -> None:
        call = asyncio.create_task(handler.answer(request(Connection(), "POST", body=b"x" * 1000)))
        tell = handler._tell
        handler._tell = lambda: (tell(), call.cancel())  # type: ignore[method-assign,assign]
        with suppress(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert app.budget.taken == 0

    run(app, 1, main)


def test_a_full_queue_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "MAX_WAITING", 2)
    app, refused = App(), Connection()
    app.may_go_on.clear()

    async def main(handler: WsgiHandler) -> None:
        first = asyncio.create_task(handler.answer(request(Connection())))
        await until(lambda: bool(app.seen))
        calls = [first, *(asyncio.create_task(handler.answer(request(Connection()))) for _ in range(2))]
        await until(lambda: handler.waiting == 2)
        await handler.answer(request(refused))
        # One that left makes room.
        calls.pop().cancel()
        await until(lambda: handler.waiting == 1)
        calls.append(asyncio.create_task(handler.answer(request(Connection()))))
        await until(lambda: handler.waiting == 2)
        app.may_go_on.set()
        await asyncio.gather(*calls)

    run(app, 1, main)
    ((status, body),) = refused.sent
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
    assert ['status="503"' in line or 'status="499"' in line for line in counted(app)] == [True, True]


def test_without_a_free_thread_deadlines_are_kept_and_some_are_answered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wsgi, "LATE_SECONDS", 0.2)
    app = App()
    app.may_go_on.clear()
    clients = {target: Connection() for target in ("/waits", "/immediate", "/after")}
    soon = (b"x-request-timeout-ms", b"100")

    async def main(handler: WsgiHandler) -> None:
        while not app.seen:
            # Again, should its time have been over before the thread came to it.
            clients["/begun"] = Connection()
            begun = asyncio.create_task(handler.answer(request(clients["/begun"], "POST", "/begun", b"x" * 1000, soon)))
            await until(lambda task=begun: bool(app.seen) or task.done())
        waits = asyncio.create_task(handler.answer(request(clients["/waits"], "POST", "/waits", b"x" * 1000, soon)))
        await handler.answer(request(clients["/immediate"], target="/immediate"))
        await asyncio.gather(begun, waits)
        app.may_go_on.set()
        await handler.answer(request(clients["/after"], target="/after"))
        await until(lambda: app.budget.taken == 0)

    run(app, 1, main)
    assert {target: client.sent[0][0] for target, client in clients.items()} == {
        "/waits": 504, "/immediate": 200, "/after": 200, "/begun": 504,
    }  # fmt: skip
    assert [environ["PATH_INFO"] for environ in app.seen] == ["/begun", "/after"]
    # The application counts what it was given.
    assert sorted([line.partition("}")[0].rpartition("route=")[2] for line in counted(app)]) == [
        '"/immediate",service="pumps",status="200"', '"unmatched",service="pumps",status="504"',
    ]  # fmt: skip


def test_a_crash_is_a_500_that_tells_nothing_and_its_thread_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    app, broken, after = App(), Connection(), Connection()

    async def main(handler: WsgiHandler) -> None:
        await handler.answer(request(broken, target="/broken"))
        await handler.answer(request(after))

    run(app, 1, main)
    ((status, body),) = broken.sent
    assert (status, json.loads(body)["error"]["code"], b"secret" in body) == (500, "internal_error", False)
    assert app.seen[0]["HTTP_X_REQUEST_ID"] in capsys.readouterr().out
    assert [status for status, _ in after.sent] == [200]
    # The application could not.
    assert ['status="500"' in line for line in counted(app)] == [True]


def test_threads_work_at_the_same_time_and_no_end_goes_unnoticed() -> None:
    app = App()

    async def main(handler: WsgiHandler) -> None:
        clients = [Connection() for _ in range(500)]
        await asyncio.gather(*(handler.answer(request(client)) for client in clients))
        assert all([status for status, _ in client.sent] == [200] for client in clients)

    run(app, 4, main)
    assert len(app.seen) == 500
