"""What our workers (api_gateway/worker.py, servicekit/gunicorn_worker.py) take for granted of gunicorn beyond its
documentation: look here before an upgrade."""

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
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.workers.base import Worker
from gunicorn.workers.gasgi import ASGIWorker
from gunicorn.workers.gthread import ThreadWorker

from api_gateway import worker
from api_gateway.worker import GatewayProtocol, GatewayWorker
from servicekit.gunicorn_worker import ServiceWorker
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
        (GatewayProtocol, (ASGIProtocol,)),
        (GatewayWorker, (ASGIWorker, Worker)),
        (ServiceWorker, (ThreadWorker, Worker)),
    ],
)
def test_every_name_we_reach_for_is_still_there(ours: type, theirs: tuple[type, ...]) -> None:
    own = {*vars(ours), "connections", "close_if_idle"}
    inherited = attributes_used(ours) - own
    assert inherited, "nothing was found: look at this test"
    assert inherited - attributes_given(*theirs) == set()


OVERRIDDEN = {
    "connection_made": ["transport"],
    "connection_lost": ["exc"],
    "data_received": ["data"],
    "_close_transport": [],
    "_feed_callback_parser": ["data"],
    "_on_headers_complete": [],
    "_build_http_scope": ["request", "sockname", "peername"],
    "_is_websocket_upgrade": ["request"],
    "_send_error_response": ["status", "message"],
}


def test_every_method_we_replace_is_theirs_and_takes_what_it_took() -> None:
    ours = {name for name, value in vars(GatewayProtocol).items() if callable(value)}
    replaced = {name for name in ours if hasattr(ASGIProtocol, name)}
    assert replaced == set(OVERRIDDEN)
    for name, parameters in OVERRIDDEN.items():
        theirs = list(inspect.signature(getattr(ASGIProtocol, name)).parameters)[1:]
        assert theirs[: len(parameters)] == parameters, name


def test_nothing_of_ours_hides_a_name_of_theirs() -> None:
    assert vars(GatewayProtocol).keys() & attributes_given(ASGIProtocol) == {*OVERRIDDEN, "__doc__", "__module__"}
    assert "connections" not in attributes_given(ASGIWorker, Worker)


def test_the_worker_makes_its_connections_by_the_name_we_replace() -> None:
    assert re.search(r"lambda: ASGIProtocol\(self\)", inspect.getsource(ASGIWorker._serve))
    assert inspect.iscoroutinefunction(ASGIWorker._shutdown)
    assert "await self._shutdown()" in inspect.getsource(ASGIWorker._serve)


def test_refusals_of_the_parser_go_through_the_method_we_replace() -> None:
    statuses = re.findall(r"_send_error_response\((\d+)", inspect.getsource(ASGIProtocol._feed_callback_parser))
    assert set(map(int, statuses)) <= set(worker._REFUSALS)


def test_every_setting_of_the_gateway_is_known_to_gunicorn() -> None:
    text = (CHECKOUT / "api_gateway" / "gunicorn.conf.py").read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z]\w*) = ", text, re.M))
    assert names
    assert names <= {setting.name for setting in KNOWN_SETTINGS}


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
    monkeypatch.setattr(worker, "LINGER_SECONDS", 0.01)

    async def main() -> None:
        of_gunicorn: Any = SimpleNamespace(
            cfg=SimpleNamespace(), log=None, asgi=None, loop=asyncio.get_running_loop(), connections=set()
        )
        protocol = GatewayProtocol(of_gunicorn)
        transport = protocol.transport = _Transport()
        protocol._close_transport()
        assert not transport.aborted
        async with asyncio.timeout(10):
            while not transport.aborted:
                await asyncio.sleep(0.01)

    asyncio.run(main())
