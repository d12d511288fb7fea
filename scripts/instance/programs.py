"""Which processes an instance consists of, each with its command and the settings it is given.

Who wins: for addresses (binds, database and peer URLs) the instance does, or two instances beside each other would
meet in one database. Everything else comes from the caller's environment and then from `.env` in the checkout, which
the services read themselves.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.instance.credentials import Credentials
from scripts.instance.identity import Identity
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.ports import HOST, Ports
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.rabbitmq import Broker
from scripts.instance.reclaim import MARK
from servicekit.process.services import Service, services

STORES = ("postgres", "rabbitmq")
# What would bend Python, gunicorn or libpq behind our back. A trailing * stands for any ending.
_STRAY = (
    "GUNICORN_CMD_ARGS",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "PROMETHEUS_MULTIPROC_DIR",
    "WEB_CONCURRENCY",
    "PG*",
    "SUPERVISOR_*",
    MARK,
    "SITEWORKS_LAUNCH",
)


@dataclass(frozen=True)
class Program:
    """One line of supervisor's work. `stop_seconds`: how long a stop may take before it becomes a kill."""

    name: str
    command: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)
    copies: int = 1
    autostart: bool = False
    stop_signal: str = "TERM"
    stop_seconds: int = 40
    priority: int = 20  # supervisor stops the highest first

    @property
    def own_log(self) -> str | None:
        """The file, in the data folder, that the program writes by itself; None: supervisor reads its output.

        A store that waits for a supervisor that has been stopped takes everybody with it. Our own processes wait for
        nobody who reads their logs.
        """
        return f"logs/{self.name}.log" if self.name in STORES else None

    def launch_file(self) -> str:
        """What launch.py reads: JSON, because supervisor's own file would expand % and cut at ; and #."""
        return json.dumps(
            {
                "argv": [*self.identity.prefix, *self.command],
                "cwd": str(CHECKOUT),
                "log": self.own_log,
                "set": dict(self.settings),
                "unset": [*_addresses(), *_STRAY],
                "uid": self.identity.uid,
                "gid": self.identity.gid,
            }
        )


def names() -> tuple[str, ...]:
    """The names people use, in the order of starting; stopping goes the other way."""
    return (*STORES, *services(), "events", "worker", "ingest", "relay", "gateway")


def database_urls(server: EmbeddedPostgres, credentials: Credentials) -> dict[str, str]:
    """The database of each service, with the role that owns it."""
    return {name: server.url(name, name, credentials[name]) for name in services()}


def programs_of(
    layout: Layout,
    ports: Ports,
    credentials: Credentials,
    server: EmbeddedPostgres,
    workers: int,
    broker: Broker | None = None,
) -> list[Program]:
    """Every program of the instance, PostgreSQL first."""
    everybody = {
        MARK: str(layout.data),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(layout.temporary),
        **_default_log_format(),
    }
    internal = {"INTERNAL_TOKEN": credentials["internal"]}
    broker_url = {} if broker is None else {"RABBITMQ_URL": broker.url}
    rows = services()
    peers = {row.variable("URL"): f"http://{HOST}:{ports[name]}" for name, row in rows.items()}
    databases = {
        name: {rows[name].variable("DATABASE_URL"): url} for name, url in database_urls(server, credentials).items()
    }

    def listening(variable: str, name: str) -> dict[str, str]:
        return {**everybody, variable: f"{HOST}:{ports[name]}"}

    def python(*arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", *arguments)

    def gunicorn(folder: str, app: str) -> tuple[str, ...]:
        return python("gunicorn", "--no-control-socket", "-c", f"{folder}/gunicorn.conf.py", app)

    def service(row: Service) -> Program:
        return Program(
            row.name, python("servicekit.web.serve", row.name),
            {**listening(row.variable("BIND"), row.name), **internal, **peers, **databases[row.name]},
        )  # fmt: skip

    programs = [
        Program(
            "postgres", tuple(server.command()), {MARK: str(layout.data), "LC_ALL": "C"}, server.identity,
            autostart=True, stop_signal="INT", stop_seconds=60, priority=10,
        ),
        *map(service, rows.values()),
        Program(
            "events", gunicorn("service_tasks/streams", "service_tasks.streams.asgi:app"),
            {**listening("EVENTS_BIND", "events"), **databases["tasks"]},
        ),
        Program(
            "worker", python("service_tasks.cli", "worker"),
            # There may be many on this machine: each takes a port that is free, and logs which.
            {**everybody, **databases["tasks"], "WORKER_BIND": f"{HOST}:0"},
            copies=workers, stop_seconds=60,  # WORKER_GRACE_SECONDS is 30, and then the rest is handed back
        ),
        Program(
            "relay", python("servicekit.events", "relay"),
            {
                **listening("RELAY_BIND", "relay"), **internal, **broker_url, **peers,
                **{variable: url for database in databases.values() for variable, url in database.items()},
            },
            stop_seconds=20,
        ),
        Program(
            "ingest", python("service_tasks.cli", "ingest"),
            {**listening("INGEST_BIND", "ingest"), **broker_url, **databases["tasks"]},
            copies=0 if broker is None else 1, stop_seconds=20,
        ),
        Program(
            "rabbitmq",
            python("scripts.instance.rabbitmq_process", str(layout.rabbitmq), str(ports["rabbitmq"])),
            {MARK: str(layout.data), "PYTHONUNBUFFERED": "1"},
            copies=0 if broker is None or broker.own is None else 1, autostart=True, priority=10,
        ),
        Program(
            "gateway", gunicorn("api_gateway", "api_gateway.asgi:app"),
            {**listening("GATEWAY_BIND", "gateway"), **peers, "EVENTS_URL": f"http://{HOST}:{ports['events']}"},
            priority=30,
        ),
    ]  # fmt: skip
    return [program for program in programs if program.copies > 0]


def migration_environment(urls: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the databases of one instance, by their services."""
    environment = {name: value for name, value in os.environ.items() if not _is_stray(name)}
    databases = {services()[name].variable("DATABASE_URL"): url for name, url in urls.items()}
    return environment | databases | _default_log_format()


def _addresses() -> list[str]:
    """Addresses and secrets of any process, which no other process needs to see and no caller may set."""
    of_services = ("DATABASE_URL", "BIND", "URL")
    return [
        *(row.variable(what) for row in services().values() for what in of_services),
        "GATEWAY_BIND", "EVENTS_BIND", "EVENTS_URL", "INGEST_BIND", "RELAY_BIND", "WORKER_BIND", "RABBITMQ_URL",
        "INTERNAL_TOKEN", "INTERNAL_TOKEN_FILE",
    ]  # fmt: skip


def _is_stray(name: str) -> bool:
    return any(name == s or (s.endswith("*") and name.startswith(s[:-1])) for s in _STRAY)


def _default_log_format(dotenv: Path = CHECKOUT / ".env") -> dict[str, str]:
    """People read these logs with `tail -f`, so they are for people, unless somebody asked for JSON."""
    if "LOG_FORMAT" in os.environ:
        return {}
    try:
        lines = dotenv.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    chosen = any(line.strip().removeprefix("export ").lstrip().startswith("LOG_FORMAT=") for line in lines)
    return {} if chosen else {"LOG_FORMAT": "console"}
