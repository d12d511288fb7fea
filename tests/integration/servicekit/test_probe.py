"""The health check of the containers that serve HTTP, against a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from servicekit.process.probe import problem_of
from tests.support.ports import free_port


class _Readiness(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        body = b"the database is away" if self.path == "/readyz" else b"not asked for"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def readiness() -> Iterator[tuple[type[_Readiness], int]]:
    """Give a server's handler class, whose `status` may be set, and its port."""

    class Handler(_Readiness):
        pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Handler, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_200_is_well(readiness: tuple[type[_Readiness], int]) -> None:
    _, port = readiness
    assert problem_of(port) is None


def test_any_other_answer_is_told(readiness: tuple[type[_Readiness], int]) -> None:
    handler, port = readiness
    handler.status = 503
    assert problem_of(port) == "503 the database is away"


def test_no_answer_is_told() -> None:
    assert problem_of(free_port()) == "no answer: nothing listens there yet"


def test_a_proxy_of_the_environment_is_not_asked(
    readiness: tuple[type[_Readiness], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = readiness
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert problem_of(port) is None
