"""Which processes there are, and what each of them is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest

from scripts.instance import supervision
from scripts.instance.credentials import Credentials
from scripts.instance.errors import StartFailed
from scripts.instance.identity import AS_WE_ARE
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.ports import Ports
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.programs import Program, programs_of
from scripts.instance.rabbitmq import Broker, LocalRabbitMQ
from scripts.instance.reclaim import MARK
from scripts.instance.settings import OF_A_PROCESS, OF_THE_LEADER, RESERVE
from servicekit.database.engine import Database
from servicekit.process.services import services
from servicekit.process.settings import load, settings_of

_AWKWARD = "a b 100% %(here)s #1 ;x 'q' \"d\" Объект"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.of(tmp_path / _AWKWARD)
    made.create_folder()
    made.create()
    return made


def _programs(layout: Layout, *, workers: int = 2, broker: Broker | None = None) -> dict[str, Program]:
    credentials = Credentials(layout.secrets)
    server = EmbeddedPostgres(layout.postgres, 8005, "secret", identity=AS_WE_ARE)
    return {p.name: p for p in programs_of(layout, Ports(8000), credentials, server, workers, broker)}


def test_each_service_gets_its_own_database_and_nobody_elses(layout: Layout) -> None:
    programs = _programs(layout)
    for name, others in {
        "users": ("ORDERS", "TASKS"),
        "orders": ("USERS", "TASKS"),
        "tasks": ("USERS", "ORDERS"),
        "events": ("USERS", "ORDERS"),
        "worker": ("USERS", "ORDERS"),
    }.items():
        settings = programs[name].settings
        own = "tasks" if name in {"events", "worker"} else name
        assert settings[f"{own.upper()}_DATABASE_URL"].endswith(f"@127.0.0.1:8005/{own}")
        assert not [key for key in settings if key in {f"{other}_DATABASE_URL" for other in others}]
    assert not [key for key in programs["gateway"].settings if key.endswith("_DATABASE_URL")]
    # Owners are for migrations.
    assert not [name for name, program in programs.items() if "_owner:" in str(program.settings)]
    assert all("USERS_OWNER_DATABASE_URL" in json.loads(one.launch_file())["unset"] for one in programs.values())


def test_addresses_follow_the_instances_ports(layout: Layout) -> None:
    programs = _programs(layout)
    assert programs["gateway"].settings["GATEWAY_BIND"] == "127.0.0.1:8000"
    assert programs["gateway"].settings["TASKS_URL"] == "http://127.0.0.1:8003"
    assert programs["gateway"].settings["EVENTS_URL"] == "http://127.0.0.1:8004"
    assert programs["events"].settings["EVENTS_BIND"] == "127.0.0.1:8004"
    assert programs["orders"].settings["USERS_URL"] == "http://127.0.0.1:8001"


def test_those_who_send_and_take_events_share_a_word_that_nobody_else_knows(layout: Layout) -> None:
    told = {name: p.settings.get("INTERNAL_TOKEN") for name, p in _programs(layout).items()}
    knowing = {*services(), "relay"}
    assert {name for name, token in told.items() if token} == knowing
    assert len({told[name] for name in knowing}) == 1


def test_the_mail_of_accounts_is_for_the_workers_alone(layout: Layout) -> None:
    programs = _programs(layout)
    told = {name: token for name, one in programs.items() if (token := one.settings.get("MAIL_TOKEN"))}
    assert told == dict.fromkeys(("users", "worker"), told["users"])
    assert programs["worker"].settings["USERS_URL"] == "http://127.0.0.1:8001"


def test_the_relay_knows_every_service_and_its_database_and_has_a_page_of_its_own(layout: Layout) -> None:
    settings = _programs(layout)["relay"].settings
    assert settings["RELAY_BIND"] == "127.0.0.1:8007"
    for service in services().values():
        assert settings[service.variable("URL")] == f"http://127.0.0.1:{service.port}"
        assert settings[service.variable("DATABASE_URL")].endswith(f"@127.0.0.1:8005/{service.name}")


def test_without_a_broker_nobody_is_told_of_one_and_nothing_is_ingested(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://elsewhere")
    programs = _programs(layout)
    assert not {"ingest", "rabbitmq"} & set(programs)
    assert not [name for name, program in programs.items() if "RABBITMQ_URL" in program.settings]
    assert all("RABBITMQ_URL" in json.loads(program.launch_file())["unset"] for program in programs.values())


def test_with_somebody_elses_broker_tasks_are_ingested_and_the_relay_knows_it(layout: Layout) -> None:
    programs = _programs(layout, broker=Broker("amqp://broker.example"))
    told = {name for name, program in programs.items() if program.settings.get("RABBITMQ_URL")}
    assert told == {"ingest", "relay"}
    assert programs["ingest"].settings["INGEST_BIND"] == "127.0.0.1:8010"
    assert programs["ingest"].settings["TASKS_DATABASE_URL"].endswith("@127.0.0.1:8005/tasks")
    assert "rabbitmq" not in programs


def test_a_broker_of_ones_own_starts_with_postgresql_in_the_data_folder(layout: Layout) -> None:
    own = LocalRabbitMQ(layout.rabbitmq, 8011, Path("/nowhere"))
    program = _programs(layout, broker=Broker(own.url, own))["rabbitmq"]
    assert program.autostart
    assert program.command[-2:] == (str(layout.data / "rabbitmq"), "8011")


def test_without_workers_there_is_no_worker_program(layout: Layout) -> None:
    assert "worker" not in _programs(layout, workers=0)


def test_postgresql_accepts_all_connections_that_the_programs_may_open(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accepted(workers: int) -> int:
        (told,) = [part for part in _programs(layout, workers=workers)["postgres"].command if "max_connections" in part]
        return int(told.partition("=")[2])

    assert accepted(2) == 200
    monkeypatch.setenv("SERVICE_PROCESSES", "4")
    monkeypatch.setenv("SERVICE_THREADS", "16")
    opened: list[Database] = []

    def recorded(*arguments: Any, **options: Any) -> Database:
        opened.append(Database(*arguments, **options))
        return opened[-1]

    for row in services().values():
        monkeypatch.setenv(row.variable("DATABASE_URL"), "postgresql://a/a")
        monkeypatch.setattr(row.module("app"), "Database", recorded)
        row.module("app").create_app(load(settings_of(row)))
    pools = sum(one.engine.pool.size() for one in opened)  # type: ignore[attr-defined]
    of_workers = 16 * OF_A_PROCESS["worker"] + OF_THE_LEADER
    of_others = OF_A_PROCESS["events"] + len(services()) * OF_A_PROCESS["relay"]
    assert accepted(16) == 4 * pools + of_workers + of_others + RESERVE


@pytest.mark.parametrize("name", ["SERVICE_PROCESSES", "SERVICE_THREADS"])
def test_a_wrong_setting_of_the_services_is_named_before_anything_starts(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(StartFailed, match=f"users does not start: {name}: "):
        _programs(layout)


def test_all_wrong_settings_are_named_at_once_each_by_one_program(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RELAY_KEEP_DAYS", "WORKER_GRACE_SECONDS", "WORKER_CONCURRENCY", "LOG_LEVEL"):
        monkeypatch.setenv(name, "wrong")
    with pytest.raises(StartFailed) as refused:
        _programs(layout)
    told = str(refused.value)
    assert re.findall(r"(\w+) does not start", told) == ["users", "worker", "relay"]
    assert {name: told.count(f"{name}: ") for name in ("RELAY_KEEP_DAYS", "WORKER_GRACE_SECONDS")} == {
        "RELAY_KEEP_DAYS": 1,
        "WORKER_GRACE_SECONDS": 1,
    }


def test_every_program_carries_the_mark_of_its_instance(layout: Layout) -> None:
    assert {p.settings[MARK] for p in _programs(layout).values()} == {str(layout.data)}


@pytest.mark.parametrize(
    ("environment", "dotenv", "chosen"),
    [
        ({}, None, {"LOG_FORMAT": "console"}),
        ({}, "# LOG_FORMAT=json\n", {"LOG_FORMAT": "console"}),
        ({}, "export LOG_FORMAT=json\n", {}),
        ({"LOG_FORMAT": "json"}, None, {}),
    ],
)
def test_logs_are_for_people_unless_somebody_chose(
    environment: dict[str, str],
    dotenv: str | None,
    chosen: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scripts.instance.programs import _default_log_format

    monkeypatch.delenv("LOG_FORMAT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if dotenv is not None:
        (tmp_path / ".env").write_text(dotenv)
    assert _default_log_format(tmp_path / ".env") == chosen


def test_supervisors_file_holds_no_path_so_no_path_can_break_it(layout: Layout) -> None:
    text = supervision.configuration(list(_programs(layout).values()), 8006, "secret")
    assert str(layout.data) not in text
    assert str(CHECKOUT) not in text
    parsed = RawConfigParser(inline_comment_prefixes=(";", "#"))
    parsed.read_string(text)
    assert parsed["program:postgres"]["stopsignal"] == "INT"
    assert parsed["program:postgres"]["autostart"] == "true"
    assert parsed["program:gateway"]["autostart"] == "false"
    assert parsed["program:worker"]["numprocs"] == "2"
    assert all(parsed[section]["autorestart"] == "true" for section in parsed if section.startswith("program:"))


def test_the_files_with_secrets_are_private(layout: Layout) -> None:
    supervision.write_run_files(layout, list(_programs(layout).values()), 8006, "secret")
    assert {path.stat().st_mode & 0o777 for path in layout.run.iterdir()} == {0o600}


def test_launching_becomes_the_program_with_exactly_its_settings(layout: Layout) -> None:
    shown = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))"
    program = Program("shown", (sys.executable, "-c", shown, _AWKWARD), {"USERS_BIND": _AWKWARD})
    (layout.run / "shown.json").write_text(program.launch_file())
    caller = {"PATH": os.environ["PATH"], "KEPT": "1", "TASKS_DATABASE_URL": "other", "PGHOST": "x", "PYTHONPATH": "/x"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(supervision.__file__).with_name("launch.py")), "shown"],
        cwd=layout.data, env=caller, capture_output=True, text=True, check=True,
    )  # fmt: skip
    argv, cwd, environment = json.loads(done.stdout)
    assert argv == [_AWKWARD]
    assert cwd == str(CHECKOUT)
    assert environment["USERS_BIND"] == _AWKWARD
    assert environment["KEPT"] == "1"
    assert not {"TASKS_DATABASE_URL", "PGHOST", "PYTHONPATH"} & set(environment)
