"""Every program of ours: what pages of others in somebody's browser get at its port, and what it does at SIGHUP."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import OTHERS, PROGRAMS, SERVERS, Program
from tests.support.waiting import eventually

Seen = tuple[int, str | None]


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One for all tests of it, in their order here."""
    folder = tmp_path_factory.mktemp(request.param)
    started = Program(folder, request.param, "ALLOWED_HOSTS=api.example.com, siteworks_users")
    yield started
    started.stop()


def ask(program: Program, method: str, path: str, **fields: str) -> Seen:
    """The status and the code of the envelope, if there is one."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in fields)
        for name, value in fields.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        assert answer.headers["X-Request-ID"]
        code = json.loads(body).get("error", {}).get("code") if body.startswith(b'{"success"') else None
        return answer.status, code
    finally:
        connection.close()


def test_every_port_refuses_what_pages_of_others_send(program: Program) -> None:
    evil = {"Host": f"evil.example:{program.port}"}
    misdirected, foreign = (421, "misdirected_request"), (403, "foreign_page")
    # A page whose own name leads here.
    assert ask(program, "GET", "/openapi.json", **evil) == misdirected
    assert ask(program, "POST", "/tasks", **evil, Origin=f"http://evil.example:{program.port}") == misdirected
    # A page that sends what it cannot read the answer to: no body, nothing that a browser would ask about before.
    assert ask(program, "POST", "/tasks", Origin="https://evil.example", Sec_Fetch_Site="cross-site") == foreign
    assert ask(program, "POST", "/tasks", Origin="null") == foreign
    assert ask(program, "POST", "/tasks", Sec_Fetch_Site="same-site") == foreign
    assert ask(program, "GET", "/openapi.json", Origin="https://evil.example") == foreign


def test_every_port_takes_what_others_send(program: Program) -> None:
    for host in (
        f"localhost:{program.port}",
        f"127.0.0.1:{program.port}",
        "[::1]",
        "api.example.com",
        "siteworks_users:1",
    ):
        assert ask(program, "GET", "/openapi.json", Host=host)[0] == 200
    own = f"http://127.0.0.1:{program.port}"
    assert ask(program, "GET", "/openapi.json", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(program, "BREW", "/openapi.json", Origin=own, Sec_Fetch_Site="same-origin")[0] == 405
    # Probes by whatever address; that their dependencies are away is another matter.
    for path in ("/livez", "/readyz", "/metrics"):
        assert ask(program, "GET", path, Host="10.9.8.7:8000", Origin="https://evil.example")[0] in {200, 404, 503}
    assert ask(program, "GET", "/livez", Host="10.9.8.7:8000") == (200, None)


@pytest.mark.parametrize("program", SERVERS, indirect=True)
def test_a_hangup_that_reaches_a_worker_ends_nothing(program: Program) -> None:
    (worker,) = program.pids()
    os.kill(worker, signal.SIGHUP)
    # The signal was delivered before this request was taken.
    assert program.answers()
    assert program.pids() == {worker}


@pytest.mark.parametrize("program", SERVERS, indirect=True)
def test_a_wrong_setting_at_a_reload_is_named_and_changes_nothing(program: Program) -> None:
    before = program.pids()
    program.write_env(program.wrong)
    program.hang_up()
    cause = program.refuses()
    assert f"{program.wrong.partition('=')[0]}: " in cause
    assert "secret" not in cause
    assert program.pids() == before
    assert program.answers()

    program.write_env()
    program.hang_up()
    eventually(lambda: program.pids() and not program.pids() & before, timeout=40, what="new processes")
    eventually(program.answers, what="they answer")


@pytest.mark.parametrize("program", OTHERS, indirect=True)
def test_a_process_that_cannot_reload_says_so_and_goes_on(program: Program) -> None:
    # The pages of a worker are there before it hears of signals; the other two hear before.
    eventually(lambda: _catches_hangups(program.process.pid), what="it hears")
    program.write_env(program.wrong)
    program.hang_up()
    assert program.refuses() == "this process reads its settings when it starts: restart it"
    assert program.answers()
    assert program.stop() == 0


def _catches_hangups(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & 1 << signal.SIGHUP - 1)
