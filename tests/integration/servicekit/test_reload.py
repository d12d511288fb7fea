"""SIGHUP and what is wrong then: whatever serves goes on to serve, and the log says what to mend."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.programs import Program
from tests.support.waiting import eventually

Start = Callable[[str], Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Program] = []

    def begin(name: str) -> Program:
        started.append(Program(tmp_path, name))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


def test_a_process_that_replaces_one_has_the_settings_of_the_others(start: Start) -> None:
    server = start("users")
    (worker,) = server.pids()
    server.write_env("SERVICE_THREADS=0")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: worker not in server.pids() and server.answers(), timeout=30, what="another worker")


def test_task_types_that_cannot_be_read_at_a_reload_change_nothing(start: Start) -> None:
    server = start("tasks")
    before = server.pids()
    (server.folder / "broken_types.py").write_text("raise RuntimeError('half written')")
    server.write_env("TASK_MODULES=broken_types")
    server.hang_up()
    assert "broken_types" in server.refuses()
    assert server.pids() == before
    assert server.answers()


def test_a_reload_moves_to_a_new_address_and_stays_where_that_is_taken(start: Start) -> None:
    server = start("users")
    before = server.pids()
    old, new = server.port, free_port()
    with socket.create_server(("127.0.0.1", new)):
        server.port = new
        server.write_env()
        server.hang_up()
        assert server.refuses() == f"it cannot listen on 127.0.0.1:{new}: Address already in use"
        assert server.answers(old)
        assert server.pids() == before
    server.hang_up()
    eventually(server.answers, timeout=40, what="it answers at the new address")
