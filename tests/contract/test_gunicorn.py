"""What our server (servicekit/http_server) and our reload (servicekit/process/gunicorn_reload.py) take for granted of
gunicorn beyond its documentation: look here before an upgrade."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import re
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.asgi import protocol as theirs
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.workers.base import Worker
from gunicorn.workers.gasgi import ASGIWorker
from gunicorn.workers.gthread import ThreadWorker

from servicekit.http_server import connection, plain_head
from servicekit.http_server.connection import HttpConnection
from servicekit.http_server.event_loop_worker import EventLoopWorker
from servicekit.http_server.plain_head import PlainRequest
from tests.support.markdown import CHECKOUT


def attributes_used(cls: type) -> set[str]:
    """The names that the code of a class reaches for on itself, on its base and on the connections it knows."""
    names = {"self", "connection"}
    used = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Attribute):
            of = node.value
            on_self = isinstance(of, ast.Name) and of.id in names
            on_base = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "super"
            if on_self or on_base:
                used.add(node.attr)
    return used


def attributes_given(*classes: type) -> set[str]:
    """The methods of the classes, and what their methods set on themselves."""
    given: set[str] = set()
    for cls in classes:
        given.update(vars(cls))
        given.update(re.findall(r"self\.(\w+)(?:: [^=]+)? = ", inspect.getsource(cls)))
    return given


def test_the_version_that_was_looked_at_is_the_one_that_is_pinned() -> None:
    assert importlib.metadata.version("gunicorn") == "27.0.1"
    assert "gunicorn==27.0.1" in (CHECKOUT / "requirements" / "gateway.in").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (HttpConnection, (ASGIProtocol,)),
        (EventLoopWorker, (ASGIWorker, Worker)),
    ],
)
def test_every_name_we_reach_for_is_still_there(ours: type, theirs: tuple[type, ...]) -> None:
    own = {*vars(ours), "allowed", "close_if_idle", "connections", "joining", "listeners", "serving", "waited"}
    inherited = attributes_used(ours) - own
    assert inherited, "nothing was found: look at this test"
    assert inherited - attributes_given(*theirs) == set()


OVERRIDDEN = {
    "connection_made": ["transport"],
    "connection_lost": ["exc"],
    "data_received": ["data"],
    "eof_received": [],
    "_close_transport": [],
    "_feed_callback_parser": ["data"],
    "_on_body": ["chunk"],
    "_on_headers_complete": [],
    "_resume_reading": [],
    "_send_response_start": ["status", "headers", "request", "close"],
    "_will_close": ["request", "response_requires_close"],
    "_serve_http_request": ["request", "sockname", "peername"],
    "_arm_keepalive_timer": [],
    "_cancel_keepalive_timer": [],
    "_keepalive_timeout": [],
    "_is_websocket_upgrade": ["request"],
    "_send_error_response": ["status", "message"],
}


def test_every_method_we_replace_is_theirs_and_takes_what_it_took() -> None:
    ours = {name for name, value in vars(HttpConnection).items() if callable(value)}
    replaced = {name for name in ours if hasattr(ASGIProtocol, name)}
    assert replaced == set(OVERRIDDEN)
    for name, parameters in OVERRIDDEN.items():
        theirs = list(inspect.signature(getattr(ASGIProtocol, name)).parameters)[1:]
        assert theirs[: len(parameters)] == parameters, name


def test_nothing_of_ours_hides_a_name_of_theirs() -> None:
    assert vars(HttpConnection).keys() & attributes_given(ASGIProtocol) == {*OVERRIDDEN, "__doc__", "__module__"} - {
        "eof_received"
    }
    assert not {"allowed", "connections", "joining", "left", "listeners", "serving", "waited"} & attributes_given(
        ASGIWorker, Worker
    )
    assert not {"_lingering", "_read_on", "_leave"} & attributes_given(ThreadWorker, Worker)


def test_the_worker_makes_its_connections_by_the_name_we_replace() -> None:
    assert re.search(r"lambda: ASGIProtocol\(self\)", inspect.getsource(ASGIWorker._serve))
    assert inspect.iscoroutinefunction(ASGIWorker._shutdown)
    assert "await self._shutdown()" in inspect.getsource(ASGIWorker._serve)


def test_the_worker_hears_of_its_end_by_the_methods_we_name() -> None:
    source = inspect.getsource(ASGIWorker.init_signals)
    for number, handle in (("TERM", "exit"), ("INT", "quit"), ("QUIT", "quit")):
        assert f"self.loop.add_signal_handler(signal.SIG{number}, self.handle_{handle}_signal)" in source
    assert "self.loop.run_until_complete(self._serve())" in inspect.getsource(ASGIWorker.run)
    assert "server.close()" in inspect.getsource(ASGIWorker._shutdown)
    # A process that was told to end while it began looks before it goes on.
    assert "while self.alive:" in inspect.getsource(ASGIWorker._serve)


def test_refusals_of_the_parser_go_through_the_method_we_replace() -> None:
    statuses = re.findall(r"_send_error_response\((\d+)", inspect.getsource(ASGIProtocol._feed_callback_parser))
    assert set(map(int, statuses)) <= set(connection._REFUSALS)


def test_a_plain_request_has_all_that_gunicorn_asks_of_one() -> None:
    source = inspect.getsource(ASGIProtocol._handle_connection) + inspect.getsource(ASGIProtocol._will_close)
    asked = set(re.findall(r"\brequest\.(\w+)", source))
    assert asked == {"may_upgrade", "should_close"}
    for name in (*asked, "method", "version"):
        assert hasattr(PlainRequest, name)
        assert hasattr(CallbackRequest, name)


def test_the_parser_stands_where_a_request_begins_before_and_after_one_and_nowhere_else() -> None:
    parser = PythonProtocol()
    for _ in range(2):
        assert (parser._state, bytes(parser._buffer)) == ("request_line", b"")
        parser.feed(b"GET / HT")
        assert parser._buffer
        parser.feed(b"TP/1.1\r\n")
        assert parser._state == "headers"
        parser.feed(b"Host: a\r\n\r\n")
        assert (parser._state, parser.is_complete) == ("complete", True)
        parser.reset()


def test_a_parser_that_is_told_to_be_complete_keeps_what_comes_as_behind_a_complete_request() -> None:
    read, told = PythonProtocol(), PythonProtocol()
    read.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    told._state, told.is_complete = "complete", True
    for parser in (read, told):
        parser.feed(b"GET /next HT")
        parser.feed(b"TP/1.1\r\n")
        assert parser.remaining() == b"GET /next HTTP/1.1\r\n"
        assert parser.headers == [] or parser is read
    source = inspect.getsource(ASGIProtocol._http1_buffered)
    assert "parser.is_complete" in source
    assert "_buffer" in source


def test_a_request_is_waited_for_by_the_loop_of_a_connection_alone_and_only_if_there_is_none() -> None:
    source = inspect.getsource(theirs)
    assert set(re.findall(r"_request_ready\.(\w+)\(", source)) == {"is_set", "set", "clear", "wait"}
    assert source.count("_request_ready.wait()") == 1
    loop = inspect.getsource(ASGIProtocol._handle_connection)
    before = loop[: loop.index("await self._request_ready.wait()")]
    assert "if not self._request_ready.is_set():" in before
    assert "create_task(self._handle_connection())" in inspect.getsource(ASGIProtocol._start_http1)


def test_nothing_but_the_loop_of_a_connection_reads_the_request_that_was_taken() -> None:
    users = {
        name
        for name, value in vars(ASGIProtocol).items()
        if inspect.isfunction(value) and "self._current_request" in inspect.getsource(value)
    }
    assert users == {"__init__", "_on_headers_complete", "_handle_connection", "_h2c_arm_upgrade"} & users
    assert users >= {"_on_headers_complete", "_handle_connection"}


def test_the_lines_of_an_answer_that_are_gunicorns_are_whole_lines() -> None:
    assert theirs._get_cached_status_line((1, 1), 404, None) == b"HTTP/1.1 404 Not Found\r\n"
    reason = connection._REASONS.get(421)
    assert theirs._get_cached_status_line((1, 1), 421, reason) == b"HTTP/1.1 421 Misdirected Request\r\n"
    assert re.fullmatch(rb"Date: [^\r\n]+ GMT\r\n", theirs._get_cached_date_header())


def test_a_plain_head_is_below_every_limit_that_gunicorn_has_for_one() -> None:
    text = (CHECKOUT / "api_gateway" / "gunicorn.conf.py").read_text(encoding="utf-8")
    limits = {name: int(value) for name, value in re.findall(r"^(limit_\w+) = (\d+)", text, re.M)}
    assert min(limits["limit_request_line"], limits["limit_request_field_size"]) > plain_head.MAX_REQUEST
    assert limits["limit_request_fields"] >= plain_head.MAX_REQUEST_FIELDS


def test_the_worker_listens_without_a_backlog_and_notifies_once_it_does() -> None:
    source = inspect.getsource(ASGIWorker._serve)
    assert "self.loop.create_server(" in source
    assert "backlog" not in source
    assert source.index("create_server(") < source.index("self.notify()")
    assert source.count("self.notify()") == 1
    assert "self.loop = " in inspect.getsource(ASGIWorker._setup_event_loop)


@pytest.mark.parametrize(
    "file",
    [
        "api_gateway/gunicorn.conf.py",
        "service_tasks/streams/gunicorn.conf.py",
        "servicekit/http_server/event_loop_defaults.py",
    ],
)
def test_every_setting_is_known_to_gunicorn(file: str) -> None:
    text = (CHECKOUT / file).read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z]\w*) = ", text, re.M))
    assert names
    assert names <= {setting.name for setting in KNOWN_SETTINGS}


def test_the_master_is_told_to_reload_by_the_name_we_replace() -> None:
    assert 'getattr(self, "handle_%s" % signame, None)' in inspect.getsource(Arbiter.run)
    assert "self.cfg.on_starting(self)" in inspect.getsource(Arbiter.start)
    assert "self.app.reload()" in inspect.getsource(Arbiter.reload)
    assert "old_address != self.cfg.address" in inspect.getsource(Arbiter.reload)
    reloading = inspect.getsource(Arbiter.reload)
    assert reloading.index("self.spawn_worker()") < reloading.index("self.manage_workers()")
    assert "len(workers) > self.num_workers" in inspect.getsource(Arbiter.manage_workers)
    # A worker ignores SIGHUP from there on.
    source = inspect.getsource(Worker.init_process)
    assert source.index("self.init_signals()") < source.index("self.cfg.post_worker_init(self)")


class _Transport:
    """A client that takes nothing: what was written stays."""

    def __init__(self) -> None:
        self.aborted = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return

    def close(self) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 1000

    def abort(self) -> None:
        self.aborted = True


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.01)

    async def main() -> None:
        of_gunicorn: Any = SimpleNamespace(
            cfg=SimpleNamespace(), log=None, asgi=None, loop=asyncio.get_running_loop(), connections=set()
        )
        protocol = HttpConnection(of_gunicorn)
        transport = protocol.transport = _Transport()
        protocol._callback_parser = SimpleNamespace(_buffer=b"")
        protocol._close_transport()
        assert not transport.aborted
        async with asyncio.timeout(10):
            while not transport.aborted:
                await asyncio.sleep(0.01)

    asyncio.run(main())
