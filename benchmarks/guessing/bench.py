"""Ten thousand wrong logins from one network: what others notice of them, and the administrator whom they are for.

Our whole stack, asked at a fixed rate by people who are logged in, first alone and then while somebody else guesses:
half of the time the administrator's password, else those of others. No peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import requests

from benchmarks.load import NUMBER, Ask, write_asks
from benchmarks.logins import with_tokens
from benchmarks.open_load import Summary, TimedRequest, summary
from benchmarks.processes import free_port
from benchmarks.report import CHECKOUT, OURS, ReportRow
from benchmarks.system.rows import row_id
from benchmarks.system.stacks import GATEWAY, RunningStack, Tables, ours, running
from benchmarks.tasks.subjects import Server
from service_users.accounts.create_admin import make_admin

_ADMINISTRATOR, _PASSWORD = "admin@example.com", "seven brown cranes at noon"
_ROWS = 100
#: Requests of people, and guesses, a second.
_PEOPLE, _GUESSES = 50, 200
_ATTEMPTS, _QUICK_ATTEMPTS = 10_000, 2_000
_OTHERS = 20
_PATIENCE = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attempts", type=int, help=f"wrong logins ({_ATTEMPTS:,}; quick: {_QUICK_ATTEMPTS:,})")
    parser.add_argument("--rate", type=float, default=_GUESSES, help="how many of them a second (%(default)s)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    attempts = arguments.attempts or (_QUICK_ATTEMPTS if arguments.quick else _ATTEMPTS)
    seconds = attempts / arguments.rate
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="bench-guessing-")))
        # PostgreSQL may run as another user than we do.
        folder.chmod(0o755)
        server = Server(folder, free_port())
        server.start()
        started.callback(server.stop)
        stack = ours(has_logins=True)
        databases = Tables(server, _ROWS).of(stack)
        up = started.enter_context(running(stack, databases, _ROWS, folder, None, whole=True))
        return _measure(up, folder, seconds, arguments.rate)


def _measure(stack: RunningStack, folder: Path, seconds: float, rate: float) -> list[ReportRow]:
    assert stack.logins is not None
    users, base = stack.processes["users"], stack.urls[GATEWAY]
    make_admin(stack.databases["users"].url, _ADMINISTRATOR, password=_PASSWORD)
    device = _log_in(base)[1]["data"]["device_token"]

    people, guesses = folder / "people.tsv", folder / "guesses.tsv"
    write_asks(people, with_tokens([Ask("GET", f"/users/{row_id(1)}")], stack.logins.tokens()))
    write_asks(guesses, [_guess(_ADMINISTRATOR if at % 2 else f"user{at}@example.com") for at in range(2 * _OTHERS)])
    print(f"{_PEOPLE} requests a second for {seconds:g} s, alone", file=sys.stderr)
    quiet = summary(_ended(_load(base, _PEOPLE, seconds, people)))
    before = users.resident_mib() or 0.0
    print(f"and beside {rate:g} guesses a second", file=sys.stderr)
    guessing = _load(base, rate, seconds, guesses)
    asking = _load(base, _PEOPLE, seconds, people)
    # When most guesses have been made, so that the pause is at its longest.
    time.sleep(seconds * 0.8)
    began = time.perf_counter()
    status, _ = _log_in(base, device_token=device)
    took = time.perf_counter() - began
    if guessing.poll() is not None:
        raise RuntimeError("the guesses had ended when the administrator was in: take more --attempts")
    elsewhere, _ = _log_in(base)
    busy, wrong = summary(_ended(asking)), Counter(request.status for request in _ended(guessing))
    after = users.resident_mib() or 0.0

    def row(metric: str, unit: str, value: float, note: str = "") -> ReportRow:
        return ReportRow("wrong logins", OURS, metric, unit, (value,), note)

    return [
        *_rows("people, alone", quiet),
        *_rows("people, beside guesses", busy),
        row("answers 401", "1", wrong[401]),
        row("answers 429", "1", wrong[429]),
        row("answers 503", "1", wrong[503]),
        row("other answers, and none", "1", wrong.total() - wrong[401] - wrong[429] - wrong[503]),
        row("status of the administrator's login from a known device meanwhile", "1", status),
        row("and how long it took", "ms", took * 1000),
        row("status of the same from elsewhere in that network", "1", elsewhere),
        row("resident memory of users before", "MiB", before),
        row("resident memory of users after", "MiB", after),
    ]


def _rows(work: str, seen: Summary) -> list[ReportRow]:
    good = seen.answers[200]
    return [
        ReportRow(work, OURS, "answers 200", "1", (good,)),
        ReportRow(work, OURS, "other answers, and none", "1", (seen.answers.total() - good,)),
        ReportRow(work, OURS, "p50 latency", "ms", (seen.p50,)),
        ReportRow(work, OURS, "p99 latency", "ms", (seen.p99,)),
    ]


def _guess(email: str) -> Ask:
    return Ask("POST", "/auth/login", json.dumps({"email": email, "password": f"it might be {NUMBER}"}))


def _log_in(base: str, **more: str) -> tuple[int, dict[str, dict[str, str]]]:
    body = {"email": _ADMINISTRATOR, "password": _PASSWORD, **more}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{base}/auth/login", json=body, timeout=_PATIENCE)
    return answer.status_code, answer.json()


def _load(base: str, rate: float, seconds: float, asks: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.open_load", base, str(rate), str(seconds), str(_PATIENCE), str(asks)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def _ended(load: subprocess.Popen[str]) -> list[TimedRequest]:
    said, _ = load.communicate(timeout=600)
    return [TimedRequest(*one) for one in json.loads(said.splitlines()[-1])["requests"]]
