"""A whole instance through its command line: what happens when things are killed, stopped and started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.instance import archive
from scripts.instance.backup import backup
from scripts.instance.credentials import Credentials
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.ports import Ports
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.reclaim import is_alive
from scripts.instance.settings import OF_A_PROCESS, OF_THE_LEADER
from servicekit.process.services import services
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

_NO_BROKER = "amqp://who:secret@127.0.0.1:9/"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    running = RunningSystem(
        tmp_path_factory.mktemp("50% #1 ;x Объект") / "data",
        environment={"WORKER_GRACE_SECONDS": "2", "SERVICE_PROCESSES": "2"},
    )
    running.start("--workers", "1")
    yield running
    running.stop()


def _user(system: RunningSystem, email: str) -> str:
    created = system.post("/users", {"email": email, "name": "Anna"})
    assert created.status == 201, created
    return str(created.data["id"])


def _pids(system: RunningSystem) -> dict[str, int]:
    return {name: process.pid for name, process in system.processes().items()}


def _supervisor(system: RunningSystem) -> psutil.Process:
    return psutil.Process(int((system.data / "run" / "supervisord.pid").read_text()))


def test_status_names_every_process_and_answers_0_when_all_run(system: RunningSystem) -> None:
    done = system.cli("status")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [
        "postgres",
        "users",
        "orders",
        "tasks",
        "sites",
        "events",
        "worker-1",
        "relay",
        "gateway",
    ]
    serving = {name: one["processes"] for name, one in system.status().items() if one["processes"] is not None}
    assert serving == {"users": 2, "orders": 2, "tasks": 2, "sites": 2, "events": 1, "gateway": 1}


def test_a_stopped_service_stays_stopped_and_comes_back_when_asked(system: RunningSystem) -> None:
    system.cli("stop", "orders")
    told = system.cli("status", check=False)
    assert told.returncode == 3
    assert system.status()["orders"]["state"] == "stopped"
    system.cli("start", "orders")
    assert system.cli("status").returncode == 0
    before = system.processes()["worker-1"].pid
    system.cli("restart", "worker")
    assert system.processes()["worker-1"].pid != before


def test_a_service_that_cannot_start_again_is_one_line_and_status_tells_it_too(system: RunningSystem) -> None:
    launch = system.data / "run" / "tasks.json"
    right = launch.read_text()
    launch.write_text(json.dumps(json.loads(right) | {"set": {**json.loads(right)["set"], "TASK_MODULES": "nowhere"}}))
    done = system.cli("restart", "tasks", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("run: tasks does not start: TASK_MODULES: cannot import 'nowhere'")
    assert (done.stderr.count("\n"), done.stderr.count("cannot import")) == (1, 1)

    told = system.cli("status", check=False)
    assert told.returncode == 3
    assert any(line.split()[:3] == ["tasks", "not", "ready"] for line in told.stdout.splitlines())
    assert "tasks: TASK_MODULES: cannot import 'nowhere'" in told.stdout
    seen = system.status()
    assert (seen["users"]["problem"], "nowhere" in seen["tasks"]["problem"]) == (None, True)

    launch.write_text(right)
    system.cli("restart", "tasks")
    assert system.cli("status").returncode == 0


def test_a_restart_that_could_not_succeed_stops_nothing(system: RunningSystem) -> None:
    launch = system.data / "run" / "relay.json"
    right = launch.read_text()
    before = _pids(system)
    wrong = {**json.loads(right)["set"], "RELAY_KEEP_DAYS": "many"}
    launch.write_text(json.dumps(json.loads(right) | {"set": wrong}))
    done = system.cli("restart", check=False)
    launch.write_text(right)
    assert done.stderr.startswith("run: relay does not start: RELAY_KEEP_DAYS: ")
    refused = system.cli("restart", "--workers", "64", check=False).stderr
    assert re.search(r"may take \d+ database connections, and PostgreSQL accepts 200 until", refused)
    assert _pids(system) == before


def test_nobody_opens_more_connections_than_postgresql_is_told_of(system: RunningSystem) -> None:
    layout = Layout.of(system.data)
    ports = Ports(system.port)
    server = EmbeddedPostgres(layout.postgres, ports["postgres"], Credentials(layout.secrets)["postgres"])
    asked = "SELECT application_name, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1"
    shown = server.tool("psql", "-X", "-A", "-t", "-c", asked, "-c", "SHOW max_connections").stdout.splitlines()
    *counts, accepted = shown
    opened = {name: int(count) for name, _, count in (line.rpartition("|") for line in counts)}
    assert 0 < opened["task_worker"] + opened["task_worker heartbeat"] <= OF_A_PROCESS["worker"] + OF_THE_LEADER
    assert 0 < opened["task_events"] <= OF_A_PROCESS["events"]
    assert 0 < opened["relay"] <= len(services()) * OF_A_PROCESS["relay"]
    assert accepted == "200"


def test_a_restart_of_all_spares_postgresql_and_may_change_the_number_of_workers(system: RunningSystem) -> None:
    before = _pids(system)
    said = system.cli("restart", "--workers", "2").stdout
    assert said.splitlines()[-1] == "users, orders, tasks, sites, events, worker, relay, gateway: ready again"
    after = _pids(system)
    assert after.keys() == before.keys() | {"worker-2"}
    assert [name for name in before if before[name] == after[name]] == ["postgres"]
    system.cli("start", "worker", "--workers", "1")
    assert _pids(system).keys() == before.keys()
    refused = system.cli("--workers", "3", check=False).stderr
    assert f"./scripts/run restart --workers 3 --data '{system.data}' changes" in refused


def test_the_logs_of_all_are_followed_at_once(system: RunningSystem) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.instance", "--data", str(system.data), "logs"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
    ) as following:  # fmt: skip
        assert following.stdout is not None
        heads = (line.split("/")[-1].split(".log")[0] for line in following.stdout if line.startswith("==> "))
        wanted = {*system.processes()}
        while wanted:
            wanted.discard(next(heads))
        following.terminate()


def test_a_second_run_on_the_same_folder_is_one_line(system: RunningSystem) -> None:
    done = system.cli("--port", str(system.port + 20), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"run: already running on http://localhost:{system.port} ")
    assert done.stderr.count("\n") == 1


def test_another_instance_on_the_same_ports_is_one_line(system: RunningSystem, tmp_path: Path) -> None:
    other = RunningSystem(tmp_path / "other")
    done = other.cli("--port", str(system.port), check=False)
    assert done.returncode == 1
    assert f"port {system.port} for gateway is taken" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_everything_stays_inside_the_data_folder(system: RunningSystem) -> None:
    inside = sorted(path.name for path in system.data.iterdir())
    assert inside == ["identity", "instance.json", "lock", "logs", "postgres", "run", "secrets", "tmp"]
    for process in _supervisor(system).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # workers of PostgreSQL's end by themselves
            for opened in process.open_files():
                path = Path(opened.path)
                allowed = [system.data, CHECKOUT, Path(sys.prefix), Path("/dev"), Path("/proc")]
                assert opened.mode == "r" or any(path.is_relative_to(folder) for folder in allowed), (process, opened)


@pytest.mark.parametrize("name", ["postgres", "users", "worker-1"])
def test_whatever_is_killed_comes_back_and_loses_nothing(system: RunningSystem, name: str) -> None:
    kept = _user(system, f"{os.urandom(8).hex()}@example.com")
    pid = system.kill(name)
    system.wait_until_replaced(name, pid)
    eventually(lambda: _reads(system, kept), timeout=30, what="the user is there again")


def _reads(system: RunningSystem, user_id: str) -> bool:
    """Whether a user can be read, soon enough for the gateway to go on asking."""
    try:
        read = system.get(f"/users/{user_id}").status == 200
        return read and system.get("/health").data["upstreams"]["users"]["state"] == "closed"
    except OSError:
        return False  # the gateway itself is only just coming back


def test_a_killed_supervisor_leaves_processes_that_the_next_run_reclaims_and_no_others(system: RunningSystem) -> None:
    kept = _user(system, "kept@example.com")
    supervisor = _supervisor(system)
    left = supervisor.children(recursive=True)
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE, cwd=system.data, env={**os.environ, "SITEWORKS_INSTANCE": "/another/instance"},
    )  # fmt: skip
    try:
        supervisor.kill()
        eventually(lambda: not is_alive(supervisor), what="supervisor is gone")
        told = system.cli("status", check=False)
        assert told.returncode == 3 or "reclaims them" in told.stdout
        (system.data / "tmp" / "left").touch()
        system.start("--workers", "1")
        eventually(lambda: not [p for p in left if is_alive(p)], timeout=15, what="the leftovers are gone")
        assert not (system.data / "tmp" / "left").exists()
        assert bystander.poll() is None
        assert system.get(f"/users/{kept}").data["email"] == "kept@example.com"
    finally:
        bystander.communicate()


def test_a_backup_restores_into_a_new_instance_where_an_order_is_of_a_user_in_it_or_cancelled_soon(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _user(system, "backed-up@example.com")
    goes = [_user(system, f"goes-{number}@example.com") for number in range(len(services()))]
    for user_id in (kept, *goes):
        _order(system, user_id)
    run_tool = EmbeddedPostgres.tool
    dumps = []

    def meanwhile(server: EmbeddedPostgres, name: str, *arguments: str, **options: Any) -> Any:
        """Each dump, and before the next one a user comes and orders, and another who had ordered goes."""
        done = run_tool(server, name, *arguments, **options)
        if name == "pg_dump":
            dumps.append(arguments[-1])
            _order(system, _user(system, f"comes-{len(dumps)}@example.com"))
            gone = goes[len(dumps) - 1]
            assert system.delete(f"/users/{gone}").status == 200
            # Its event has been delivered: nothing of it waits any more when the next dump begins.
            eventually(lambda: not _open_orders(system, gone), what="the orders of the deleted user are cancelled")
        return done

    file = tmp_path / "backup.tar"
    monkeypatch.setattr(EmbeddedPostgres, "tool", meanwhile)
    backup(Layout(system.data), file)
    monkeypatch.undo()
    assert len(dumps) == len(goes)
    assert file.stat().st_mode & 0o777 == 0o600
    again = _script("backup", str(file), "--data", str(system.data))
    assert again.returncode == 1
    assert "exists" in again.stderr

    onto_itself = _script("restore", str(file), "--data", str(system.data))
    assert onto_itself.returncode == 1
    assert "already running" in onto_itself.stderr

    other = RunningSystem(tmp_path / "restored")
    assert _script("restore", str(file), "--data", str(other.data)).returncode == 0
    twice = _script("restore", str(file), "--data", str(other.data))
    assert twice.returncode == 1
    assert "already holds an instance" in twice.stderr
    assert _script("migrate", "--data", str(other.data)).stdout.count("nothing to do") == len(goes)

    # Of a stopped instance too, whose PostgreSQL is started for it alone. It knows whether people log in there.
    second, closed = tmp_path / "second.tar", Layout(other.data).closed
    closed.touch()
    assert _script("backup", str(second), "--data", str(other.data)).returncode == 0
    closed.unlink()
    assert [archive.read(one, tmp_path)[0].closed for one in (file, second)] == [False, True]
    other.cli("start", "--port", str(other.port), "--workers", "0")
    try:
        assert "started without workers" in other.cli("restart", "--workers", "1", check=False).stderr
        assert other.get(f"/users/{kept}").data["email"] == "backed-up@example.com"
        assert other.get(f"/users/{kept}/details").data["orders"][0]["total_amount"] == "520.00"
        users = {str(user["id"]) for user in other.get("/users?limit=100").data["users"]}
        of_nobody = lambda: [order for order in _open_orders(other) if order["user_id"] not in users]  # noqa: E731
        eventually(lambda: not of_nobody(), what="no open order is of a user who does not exist")
        assert {goes[-1]} == users & set(goes), "deleted after the last dump"
        assert _open_orders(other, goes[-1])
    finally:
        other.stop()


def _order(system: RunningSystem, user_id: str) -> None:
    order = {"user_id": user_id, "items": [{"product": "Чокопай", "quantity": 10, "price": 52}]}
    assert system.post("/orders", order).status == 201


def _open_orders(system: RunningSystem, user_id: str | None = None) -> list[dict[str, Any]]:
    of_user = "" if user_id is None else f"&user_id={user_id}"
    page = system.get(f"/orders?status=created&limit=100{of_user}").data
    assert page["total"] <= 100
    return list(page["orders"])


def test_a_damaged_backup_is_refused_before_anything_is_touched(system: RunningSystem, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    assert _script("backup", str(file), "--data", str(system.data)).returncode == 0
    content = bytearray(file.read_bytes())
    where = content.index(b"PGDMP") + 100
    content[where] ^= 0xFF
    file.write_bytes(content)
    done = _script("restore", str(file), "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "does not have the recorded checksum" in done.stderr
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture(scope="module")
def stopped(system: RunningSystem) -> RunningSystem:
    """The same instance once it was stopped: the tests of a running one come before."""
    system.stop()
    return system


def test_the_foreground_reloads_on_a_change_and_at_ctrl_c_stops_everything_in_order(stopped: RunningSystem) -> None:
    system = stopped
    log = system.data / "logs" / "postgres.log"
    logged = log.stat().st_size
    foreground = subprocess.Popen(
        [
            sys.executable, "-m", "scripts.instance",
            "--data", str(system.data), f"--port={system.port}", "--workers=1", "--reload",
        ],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert foreground.stdout is not None
    for line in foreground.stdout:
        if "stop " in line:  # the last line of the box but one
            break
    supervisor = _supervisor(system)
    everything = [supervisor, *supervisor.children(recursive=True)]
    os.utime(CHECKOUT / "tests" / "support" / "crane_tasks" / "__init__.py")
    # Other tests beside these write and remove a module of their own in the checkout.
    assert any("tests/support/crane_tasks/__init__.py" in line for line in foreground.stdout)
    assert "tasks, worker: ready again\n" in foreground.stdout
    everything += supervisor.children(recursive=True)
    foreground.send_signal(signal.SIGINT)
    said, _ = foreground.communicate(timeout=60)
    assert foreground.returncode == 0
    again = f"./scripts/run --port {system.port} --workers 1 --data '{system.data}'"
    assert said.splitlines()[-1] == f"stopped; nothing was lost. Start again with {again}"
    steps = [
        line.removeprefix("  stopping ").split(", ") for line in said.splitlines() if line.startswith("  stopping ")
    ]
    assert [("gateway" in step, "orders" in step, "postgres" in step) for step in steps] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert not [process for process in everything if is_alive(process)]
    assert b"database system is shut down" in log.read_bytes()[logged:]


def test_a_service_that_cannot_start_ends_the_start_with_its_own_words(tmp_path: Path) -> None:
    system = RunningSystem(tmp_path / "data", environment={"TASK_MODULES": "nowhere"})
    done = system.cli("--port", str(system.port), "--detach", "--workers=1", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("run: worker does not start: TASK_MODULES: cannot import 'nowhere'")
    assert "migrations" not in done.stdout
    with socket.socket() as free:
        free.bind(("127.0.0.1", system.port))


@pytest.mark.parametrize(
    "wrong", [{"SERVICE_THREADS": "0"}, {"TASK_MODULES": "nowhere"}, {"RABBITMQ_URL": "nowhere"}], ids=str
)
def test_a_start_afresh_that_could_not_succeed_forgets_nothing(stopped: RunningSystem, wrong: dict[str, str]) -> None:
    kept = [path.stat().st_ino for path in (stopped.data / "postgres" / "PG_VERSION", stopped.data / "secrets")]
    system = RunningSystem(stopped.data, environment=wrong)
    broker = ["--rabbitmq"] if "RABBITMQ_URL" in wrong else []
    done = system.cli("--port", str(system.port), "--reset", "--detach", *broker, check=False)
    assert (done.returncode, *wrong) == (1, *(name for name in wrong if name in done.stderr))
    assert kept == [path.stat().st_ino for path in (stopped.data / "postgres" / "PG_VERSION", stopped.data / "secrets")]


def test_a_failed_migration_ends_the_start_with_its_own_words(stopped: RunningSystem) -> None:
    system = stopped
    # A database that a later version has already changed.
    script = """if True:
        import sys
        from scripts.instance.databases import database_server
        from scripts.instance.layout import Layout
        with database_server(Layout.of(sys.argv[1]), "a test") as server:
            sql = "UPDATE alembic_version SET version_num = '9999_from_the_future'"
            assert server.tool("psql", "-X", "-d", "orders", "-c", sql).returncode == 0
    """
    subprocess.run([sys.executable, "-c", script, str(system.data)], cwd=CHECKOUT, check=True)
    done = system.cli("--port", str(system.port), "--detach", check=False)
    assert done.returncode == 1
    assert "a migration failed" in done.stderr
    assert "9999_from_the_future" in done.stderr
    assert "migrations.log" in done.stderr


@pytest.mark.parametrize(
    ("task", "in_file", "environment", "status", "told"),
    [
        (["{}"], "", {"RABBITMQ_URL": _NO_BROKER}, 1, "publish: no RabbitMQ can be used at 127.0.0.1:9 ("),
        (["{}"], f"RABBITMQ_URL={_NO_BROKER}", {}, 1, "publish: no RabbitMQ can be used at 127.0.0.1:9 ("),
        ([], "", {"RABBITMQ_URL": _NO_BROKER}, 2, "usage: ./scripts/publish TASK"),
    ],
)
def test_publishing_without_a_broker_or_a_task_is_one_clear_line(
    task: list[str], in_file: str, environment: dict[str, str], status: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(in_file)
    script = tmp_path / "scripts" / "publishing.py"
    script.parent.mkdir()
    script.write_bytes((CHECKOUT / "scripts" / "publishing.py").read_bytes())
    done = subprocess.run([sys.executable, script, *task], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(told)
    assert (done.stderr.count("\n"), "secret" in done.stderr) == (1, False)
    assert status == 2 or "./scripts/run status shows its port" in done.stderr


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"scripts.instance.{name}", *arguments],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
