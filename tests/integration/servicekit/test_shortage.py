"""A server that runs out of open files goes on with whom it has, and takes the others when it can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.raw_http import RawClient
from tests.support.shortage import at_most, filled
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[3]
FILES = 80
APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
"""
CONF = """
from servicekit.observing import logs, shortage
from servicekit.process.gunicorn_defaults import *

# However long this takes.
shortage.LOG_SECONDS = 600.0
logs.configure("pumps", fmt="json", level="info")
bind = "127.0.0.1:{port}"
worker_class = "servicekit.http_server.event_loop_worker.EventLoopWorker"
asgi_loop = "{loop}"
asgi_lifespan = "off"
backlog = 2048
"""


class Server:
    def __init__(self, folder: Path, loop: str) -> None:
        self.port = free_port()
        self.log = folder / "log"
        (folder / "pumps.py").write_text(APP)
        (folder / "conf.py").write_text(CONF.format(port=self.port, loop=loop))
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", str(folder / "conf.py"), "pumps:app"],
                cwd=CHECKOUT, env=os.environ | {"PYTHONPATH": f"{folder}:{CHECKOUT}"},
                stdout=out, stderr=subprocess.STDOUT, preexec_fn=at_most(FILES),
            )  # fmt: skip
        eventually(self._answers, timeout=20, what="the server to answer")
        (self.worker,) = psutil.Process(self.process.pid).children()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return RawClient(self.port).get("/").status == 200
        except ConnectionRefusedError:
            return False


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, request.param)
    yield server
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)


def test_nobody_is_turned_away_and_the_log_has_a_line(server: Server) -> None:
    client = RawClient(server.port)
    with client.connect() as known:
        assert client.request("GET", "/", connection=known).status == 200
        with filled(server.worker, server.port) as connections:
            for _ in range(20):
                assert client.request("GET", "/", connection=known).status == 200
            for connection in connections[:40]:
                connection.close()
            for connection in connections[40:]:
                assert client.request("GET", "/", connection=connection).status == 200
    lines = server.log.read_text().splitlines()
    assert sum("out_of_resources" in line for line in lines) == 1
    assert len(lines) < 30, lines[:30]
