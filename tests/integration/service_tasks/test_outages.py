"""PostgreSQL goes away under running workers; worker processes are killed, stopped and started badly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from service_tasks.domain.task import State
from service_tasks.task_types import TaskContext, task_type
from service_tasks.task_types.noop import noop
from servicekit.database import migrations
from servicekit.database.engine import Database
from servicekit.wire.errors import DatabaseUnavailable
from tests.integration.service_tasks.conftest import Bench, RunningWorker
from tests.support.installed import install
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory) -> Iterator[TestServer]:
    """A server that a test may stop, and starts again."""
    server = TestServer(tmp_path_factory.mktemp("own server"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_database(own_server) -> Iterator[ServiceDatabase]:
    """A database on it; the test leaves its server running."""
    yield from own_server.service_database("service_tasks")


@contextmanager
def disk_full(server: TestServer, database: ServiceDatabase) -> Iterator[None]:
    """Every write fails with what PostgreSQL says when it has no room."""
    database.administer(
        """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END$$"""
    )
    tables = Bench(database.database).sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        database.administer(
            f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE OR DELETE ON {table} EXECUTE FUNCTION no_room()",
        )
    try:
        yield
    finally:
        database.administer("DROP FUNCTION no_room() CASCADE")


OUTAGES = {
    "stopped": lambda server, database: server.stopped(),
    "read-only": lambda server, database: server.read_only(),
    "disk full": disk_full,
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_database_that_is_away_for_longer_than_a_lease_loses_no_result(own_server, own_database, outage):
    started, release, finished = threading.Event(), threading.Event(), threading.Event()

    @task_type("waiting")
    async def waiting(ctx: TaskContext, payload: object) -> str:
        started.set()
        while not release.is_set():
            await asyncio.sleep(0.01)
        finished.set()
        return "kept"

    bench = Bench(own_database.database)
    # Two of them: neither may take the other for dead when the database comes back.
    workers = [RunningWorker(own_database.url, [waiting, noop], lease_seconds=1.0) for _ in range(2)]
    try:
        task_id = bench.add("waiting")
        assert started.wait(10)

        with outage(own_server, own_database):
            release.set()
            assert finished.wait(10)
            away_since = time.monotonic()
            eventually(lambda: time.monotonic() - away_since > 1.5, what="longer than a lease")
            assert [worker.status for worker in workers] == [None, None]

        task = bench.wait_for(task_id, State.COMPLETED, timeout=20)
        assert (task.result, task.attempts, json.loads(task.errors)) == ('"kept"', 1, [])
        # And everything works as before: claims, timed tasks, the rest.
        bench.wait_for(bench.add(), State.COMPLETED, timeout=10)
    finally:
        statuses = [worker.stop() for worker in workers]
    assert statuses == [0, 0]


def test_a_worker_waits_for_a_database_that_is_not_there_yet(own_server, own_database):
    bench = Bench(own_database.database)
    task_id = bench.add()
    own_server.stop()

    worker = RunningWorker(own_database.url, [noop])
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 0.5, what="a few tries")
    assert worker.status is None
    own_server.start()

    bench.wait_for(task_id, State.COMPLETED, timeout=20)
    assert worker.stop() == 0


@pytest.fixture
def as_tasks(postgres_server: TestServer, empty_database: str) -> str:
    """The empty database, for the role of the tasks."""
    return postgres_server.url(str(make_url(empty_database).database), "tasks")


def test_a_worker_waits_for_migrations_that_have_not_run_yet(empty_database, as_tasks):
    worker = RunningWorker(as_tasks, [noop])
    database = Database(as_tasks, application_name="test", pool_size=2)
    bench = Bench(database)
    with pytest.raises(DatabaseUnavailable):
        bench.add()
    assert worker.status is None

    migrations.upgrade("service_tasks", empty_database)

    bench.wait_for(bench.add(), State.COMPLETED, timeout=20)
    assert worker.stop() == 0
    database.dispose()


@pytest.mark.parametrize("reached", ["0001", "0006"])
def test_a_worker_waits_for_the_last_of_the_migrations(empty_database, as_tasks, reached):
    migrations.upgrade("service_tasks", empty_database, to=reached)
    worker = RunningWorker(as_tasks, [noop])
    database = Database(as_tasks, application_name="test", pool_size=2)
    bench = Bench(database)
    eventually(lambda: bench.sql("SELECT id FROM workers"), timeout=20, what="the first beat, which that table allows")

    migrations.upgrade("service_tasks", empty_database)

    bench.wait_for(bench.add(), State.COMPLETED, timeout=20)
    assert worker.stop() == 0
    database.dispose()


def test_a_worker_that_never_reached_its_database_stops_when_told(tmp_path):
    worker = RunningWorker("postgresql+psycopg2://tasks:x@127.0.0.1:9/tasks", [noop])

    assert worker.stop() == 0


# Processes


def test_after_kill_9_the_tasks_of_a_worker_run_elsewhere_within_its_lease(bench, start_process):
    first = start_process()
    task_id = bench.add("io", payload='{"seconds": 600}')
    bench.wait_for(task_id, State.RUNNING, timeout=20)
    second = start_process()
    eventually(lambda: bench.store.live_types().get("io") == 2, timeout=20)
    # A rescuer acts after a whole lease of its own; with that behind it, the time below is the promise.
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 2.5, what="a lease and a little")

    first.end(signal.SIGKILL)
    killed_at = time.monotonic()

    eventually(lambda: bench.get(task_id).attempts == 2, timeout=20)
    # The lease, the rescuer's own pause of a quarter of it with its jitter, the backoff; and a busy machine.
    assert time.monotonic() - killed_at < 2 + 2 * 0.25 * 1.25 + 0.1 * 1.2 + 4
    assert bench.get(task_id).state is State.RUNNING
    assert json.loads(bench.get(task_id).errors)[0]["type"] == "WorkerLost"
    assert second.process.poll() is None


def test_a_worker_that_was_stopped_past_its_lease_does_not_begin_what_it_had_claimed(bench, start_process, tmp_path):
    (tmp_path / "site_tasks.py").write_text(
        """
import time
from service_tasks.engine import loop_watch
from service_tasks.task_types import TaskContext, task_type

# It is not to hand back what waits before it is stopped, however long that takes.
loop_watch.LATE_SECONDS = 60.0

@task_type("block", max_attempts=1)
async def block(ctx: TaskContext, payload: float) -> None:
    open("blocks.txt", "x").close()
    time.sleep(payload)

@task_type("count")
async def count(ctx: TaskContext, payload: object) -> None:
    with open("runs.txt", "a") as runs:
        runs.write(f"{ctx.task_id}\\n")
""",
        encoding="utf-8",
    )
    types = {"TASK_MODULES": "site_tasks", "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{tmp_path}"}
    first = start_process(**types)
    bench.add("block", payload="6", max_attempts=1)
    # Not only claimed: until then the event loop is free.
    eventually((tmp_path / "blocks.txt").exists, timeout=20, what="the event loop sleeps")
    blocked_at = time.monotonic()
    task_id = bench.add("count")
    # Claimed, and waits for the event loop, which is still asleep when the process is stopped, and awake as soon as it
    # may go on: before the next beat has told that the task is lost.
    bench.wait_for(task_id, State.RUNNING, timeout=5)
    first.process.send_signal(signal.SIGSTOP)
    start_process("--types", "count", **types)
    # The attempt was given back, since what blocked was lost with it.
    taken = bench.wait_for(task_id, State.COMPLETED, timeout=30)
    assert (taken.attempts, [error["attempt"] for error in json.loads(taken.errors)]) == (1, [1])
    eventually(lambda: time.monotonic() - blocked_at > 6.5, what="the end of the block")

    first.process.send_signal(signal.SIGCONT)

    # Handed back in vain; or the beat was the faster one.
    said = {f'"event": "{event}"' for event in ("late_result_refused", "lease_lost")}
    eventually(
        lambda: [
            line for line in first.said().splitlines() if str(task_id) in line and any(event in line for event in said)
        ],
        what="the first worker is done with the task",
    )
    assert (tmp_path / "runs.txt").read_text(encoding="utf-8").split() == [str(task_id)]
    assert bench.get(task_id) == taken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_process_told_to_stop_hands_back_what_it_holds_and_exits_well(bench, start_process, number):
    worker = start_process()
    task_id = bench.add("io", payload='{"seconds": 600}')
    bench.wait_for(task_id, State.RUNNING, timeout=20)

    assert worker.end(number) == 0

    task = bench.get(task_id)
    assert (task.state, task.attempts) == (State.READY, 0)
    said = worker.said()
    assert "worker_stopped" in said
    assert "Traceback" not in said
    for line in said.splitlines():
        json.loads(line)


def test_modules_of_ones_own_add_task_types(bench, start_process, tmp_path):
    (tmp_path / "site_tasks.py").write_text(
        """
from service_tasks.task_types import TaskContext, task_type

@task_type("measure")
def measure(ctx: TaskContext, payload: dict) -> dict:
    return {"area": payload["width"] * payload["height"]}
""",
        encoding="utf-8",
    )
    start_process(TASK_MODULES="site_tasks", PYTHONPATH=f"{CHECKOUT}{os.pathsep}{tmp_path}")

    task = bench.wait_for(bench.add("measure", payload='{"width": 2.5, "height": 4}'), State.COMPLETED, timeout=20)

    assert task.result is not None
    assert float(json.loads(task.result)["area"]) == 10


@pytest.mark.parametrize("way", ["an entry point", "TASK_MODULES"])
def test_a_package_of_task_types_is_found_run_and_listed(bench, start_process, tmp_path, tasks_database, way):
    install("crane_tasks", tmp_path, entry_points={"crane": "crane_tasks"} if way == "an entry point" else {})
    environment = {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{tmp_path}"}
    if way == "TASK_MODULES":
        environment["TASK_MODULES"] = "crane_tasks"
    start_process(**environment)

    lifted = bench.add("crane_lift", payload='{"load": "бетон", "metres": 12.5}')
    refused = bench.add("crane_check")

    result = bench.wait_for(lifted, State.COMPLETED, timeout=20).result
    assert json.loads(result or "") == {"load": "бетон", "seconds": 25.0}
    assert bench.wait_for(refused, State.FAILED, timeout=20).error == "the wind is too strong"

    listed = subprocess.run(
        [sys.executable, "-c", _LIST_TYPES],
        env={**os.environ, **environment, "TASKS_DATABASE_URL": tasks_database.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    kinds = {kind["name"]: kind for kind in json.loads(listed.stdout.splitlines()[-1])["data"]["task_types"]}
    assert (kinds["crane_lift"]["workers"], kinds["crane_check"]["workers"]) == (1, 1)
    lift = kinds["crane_lift"]
    assert lift["description"] == "Lifts a load at half a metre a second."
    assert lift["payload_schema"]["properties"]["metres"]["maximum"] == 60
    assert lift["result_schema"]["required"] == ["load", "seconds"]
    assert (lift["timeout"], lift["max_attempts"]) == (120, 2)
    assert lift["retry"] == {"base_seconds": 1, "factor": 1.5, "cap_seconds": 10, "jitter": 0.1}
    assert lift["limits"] == {"max_running": 4, "max_running_per_user": 1}
    assert kinds["crane_check"]["payload_schema"] == kinds["crane_check"]["result_schema"] == {}


#: A service with an environment of its own, as the worker has one.
_LIST_TYPES = """
from service_tasks.app import create_app
from service_tasks.settings import TasksSettings
print(create_app(TasksSettings()).test_client().get("/task-types").get_data(as_text=True))
"""


def test_a_worker_leaves_out_types_whose_settings_are_missing_and_takes_them_once_they_are_set(bench, start_process):
    first = start_process()
    eventually(lambda: bench.store.live_types(), timeout=20)
    assert set(bench.store.live_types()) == {"io", "noop"}
    left_out = [json.loads(line) for line in first.said().splitlines() if "task_type_left_out" in line]
    assert {line["task_type"]: line["not_set"] for line in left_out} == {
        "account_mail": ["SMTP_HOST", "SMTP_FROM", "MAIL_TOKEN"],
        "callback": ["CALLBACK_HOSTS"],
        "http_request": ["HTTP_REQUEST_ALLOWED_HOSTS"],
        "send_email": ["SMTP_HOST", "SMTP_FROM"],
    }

    start_process(HTTP_REQUEST_ALLOWED_HOSTS="api.example.com", SMTP_HOST="mail.test", SMTP_FROM="robot@example.com")
    eventually(lambda: set(bench.store.live_types()) == {"http_request", "io", "noop", "send_email"}, timeout=20)


#: How a command line and its environment end before there is any work: the status, and what is said on the one line.
_MAIL = {"SMTP_HOST": "mail.test", "SMTP_FROM": "robot@example.com"}
_ENDS = [
    (["--types", "send_email"], {**_MAIL, "SMTP_TLS": "maybe"}, "the task type 'send_email': SMTP_TLS"),
    (
        [],
        {"HTTP_REQUEST_ALLOWED_HOSTS": "a, https://x/"},
        "'http_request': HTTP_REQUEST_ALLOWED_HOSTS: entry 2 is no host",
    ),
    ([], {"WORKER_CONCURRENCY": "many"}, "WORKER_CONCURRENCY"),
    ([], {"TASKS_DATABASE_URL": "mysql://x"}, "TASKS_DATABASE_URL"),
    ([], {"TASK_MODULES": "no_such_module"}, "TASK_MODULES: cannot import 'no_such_module'"),
    (
        ["--types", "noop,paint"],
        {},
        "there is no task type paint; there are account_mail, callback, http_request, io, noop",
    ),
    (["--types", ","], {}, "there is no task type (none named)"),
    (["--concurrency", "0"], {}, "WORKER_CONCURRENCY"),
    (["--grace", "long"], {}, "WORKER_GRACE_SECONDS"),
    (["--check"], {"TASK_MODULES": "no_such_module"}, "TASK_MODULES: cannot import 'no_such_module'"),
    (["--check"], {"SERVICE_THREADS": "lots"}, "the services cannot start: SERVICE_THREADS: "),
    (["--check"], {}, ""),
    (["--help"], {}, "WORKER_GRACE_SECONDS"),
]
#: Runs each in a process of its own, which need not import everything again.
_RUN_EACH = """if True:
    import json, os, sys
    from service_tasks.cli import main
    for number, (options, environment) in enumerate(json.load(sys.stdin)):
        if os.fork() == 0:
            os.environ.update(environment)
            for stream in (1, 2):
                os.dup2(os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            sys.exit(main(["worker", *options]))
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> list[tuple[int, str]]:
    """The status and the words of each."""
    folder = tmp_path_factory.mktemp("ends")
    done = subprocess.run(
        [sys.executable, "-c", _RUN_EACH],
        input=json.dumps([(options, environment) for options, environment, _ in _ENDS]),
        env={"PYTHONPATH": str(CHECKOUT), "TASKS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        cwd=folder, stdout=subprocess.PIPE, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [(int(status), (folder / str(number)).read_text()) for number, status in enumerate(done.stdout.split())]


@pytest.mark.parametrize(
    "number", range(len(_ENDS)), ids=[f"{options} {environment}" for options, environment, _ in _ENDS]
)
def test_what_is_wrong_with_the_start_is_one_clear_line_and_a_check_needs_no_database(ends, number):
    options, environment, expected = _ENDS[number]
    status, said = ends[number]

    assert expected in said
    assert "worker_started" not in said
    if options == ["--help"] or (options, environment) == (["--check"], {}):
        assert status == 0
    else:
        assert status == 1
        (line,) = said.splitlines()
        who = "the services" if "SERVICE_THREADS" in environment else "task_worker"
        assert line.startswith(f"{who} cannot start: ")


def test_options_of_the_command_go_before_the_environment(bench, start_process):
    worker = start_process("--types", "noop", "--concurrency", "7", "--grace", "0", WORKER_CONCURRENCY="9")
    other = bench.add("io", payload='{"seconds": 0}')
    bench.wait_for(bench.add(), State.COMPLETED, timeout=20)

    assert bench.store.live_types() == {"noop": 1}
    assert bench.get(other).state is State.READY
    assert worker.end(signal.SIGTERM) == 0
    assert '"concurrency": 7' in worker.said()
