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

# The names people use, in the order of starting; stopping goes the other way.
RELAYS = ("users-relay", "orders-relay", "tasks-relay")
STORES = ("postgres", "rabbitmq")
SERVICES = (*STORES, "users", "orders", "tasks", "events", "worker", "ingest", *RELAYS, "gateway")

# Addresses and secrets of any process, which no other process needs to see and no caller may set.
_ADDRESSES = (
    "USERS_DATABASE_URL", "ORDERS_DATABASE_URL", "TASKS_DATABASE_URL", "USERS_BIND", "ORDERS_BIND", "TASKS_BIND",
    "EVENTS_BIND", "GATEWAY_BIND", "USERS_URL", "ORDERS_URL", "TASKS_URL", "EVENTS_URL",
    "GATEWAY_BIND", "USERS_URL", "ORDERS_URL", "TASKS_URL",
    "USERS_RELAY_BIND", "ORDERS_RELAY_BIND", "TASKS_RELAY_BIND", "INTERNAL_TOKEN", "INTERNAL_TOKEN_FILE",
    "INGEST_BIND", "WORKER_BIND", "RABBITMQ_URL",
)  # fmt: skip
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
                "unset": [*_ADDRESSES, *_STRAY],
                "uid": self.identity.uid,
                "gid": self.identity.gid,
            }
        )


def database_urls(ports: Ports, credentials: Credentials) -> dict[str, str]:
    """{"users": url, "orders": url, "tasks": url}, each with the role that owns the database."""
    return {
        name: f"postgresql+psycopg2://{name}:{credentials[name]}@{HOST}:{ports.postgres}/{name}"
        for name in ("users", "orders", "tasks")
    }


def programs_of(
    layout: Layout,
    ports: Ports,
    credentials: Credentials,
    server: EmbeddedPostgres,
    workers: int,
    broker: Broker | None = None,
) -> list[Program]:
    """Every program of the instance, PostgreSQL first."""
    urls = database_urls(ports, credentials)
    users_url, orders_url, tasks_url = (f"http://{HOST}:{p}" for p in (ports.users, ports.orders, ports.tasks))
    everybody = {
        MARK: str(layout.data),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(layout.temporary),
        **_default_log_format(),
    }

    internal = {"INTERNAL_TOKEN": credentials["internal"]}
    broker_url = {} if broker is None else {"RABBITMQ_URL": broker.url}
    peers = {"users": users_url, "orders": orders_url, "tasks": tasks_url}

    def relay(name: str) -> Program:
        return Program(
            f"{name}-relay",
            (sys.executable, "-m", f"service_{name}.cli", "relay"),
            {
                **everybody,
                **internal,
                **broker_url,
                f"{name.upper()}_DATABASE_URL": urls[name],
                f"{name.upper()}_RELAY_BIND": f"{HOST}:{ports.by_name[f'{name}-relay']}",
                **{f"{other.upper()}_URL": url for other, url in peers.items() if other != name},
            },
            stop_seconds=20,
        )

    def gunicorn(folder: str, app: str) -> tuple[str, ...]:
        return (
            sys.executable,
            "-m",
            "gunicorn",
            "--no-control-socket",
            "-c",
            f"{folder}/gunicorn.conf.py",
            app,
        )

    programs = [
        Program(
            "postgres", tuple(server.command()), {MARK: str(layout.data), "LC_ALL": "C"}, server.identity,
            autostart=True, stop_signal="INT", stop_seconds=60, priority=10,
        ),
        Program(
            "users", gunicorn("service_users", "service_users.wsgi:app"),
            {**everybody, **internal, "USERS_DATABASE_URL": urls["users"], "USERS_BIND": f"{HOST}:{ports.users}"},
        ),
        Program(
            "orders", gunicorn("service_orders", "service_orders.wsgi:app"),
            {
                **everybody, **internal, "ORDERS_DATABASE_URL": urls["orders"], "ORDERS_BIND": f"{HOST}:{ports.orders}",
                "USERS_URL": users_url,
            },
        ),
        Program(
            "tasks", gunicorn("service_tasks", "service_tasks.wsgi:app"),
            {**everybody, **internal, "TASKS_DATABASE_URL": urls["tasks"], "TASKS_BIND": f"{HOST}:{ports.tasks}"},
        ),
        Program(
            "events", gunicorn("service_tasks/streams", "service_tasks.streams.asgi:app"),
            {**everybody, "TASKS_DATABASE_URL": urls["tasks"], "EVENTS_BIND": f"{HOST}:{ports.events}"},
        ),
        Program(
            "worker", (sys.executable, "-m", "service_tasks.cli", "worker"),
            # There may be many on this machine: each takes a port that is free, and logs which.
            {**everybody, "TASKS_DATABASE_URL": urls["tasks"], "WORKER_BIND": f"{HOST}:0"},
            copies=workers, stop_seconds=60,  # WORKER_GRACE_SECONDS is 30, and then the rest is handed back
        ),
        *(relay(name) for name in ("users", "orders", "tasks")),
        Program(
            "ingest", (sys.executable, "-m", "service_tasks.cli", "ingest"),
            {
                **everybody, **broker_url, "TASKS_DATABASE_URL": urls["tasks"],
                "INGEST_BIND": f"{HOST}:{ports.ingest}",
            },
            copies=0 if broker is None else 1, stop_seconds=20,
        ),
        Program(
            "rabbitmq",
            (sys.executable, "-m", "scripts.instance.rabbitmq_process", str(layout.rabbitmq), str(ports.rabbitmq)),
            {MARK: str(layout.data), "PYTHONUNBUFFERED": "1"},
            copies=0 if broker is None or broker.own is None else 1, autostart=True, priority=10,
        ),
        Program(
            "gateway", gunicorn("api_gateway", "api_gateway.asgi:app"),
            {
                **everybody, "GATEWAY_BIND": f"{HOST}:{ports.gateway}",
                "USERS_URL": users_url, "ORDERS_URL": orders_url, "TASKS_URL": tasks_url,
                "EVENTS_URL": f"http://{HOST}:{ports.events}",
            },
            priority=30,
        ),
    ]  # fmt: skip
    return [program for program in programs if program.copies > 0]


def migration_environment(urls: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the databases of one instance: {"users": url, …}."""
    environment = {name: value for name, value in os.environ.items() if not _is_stray(name)}
    return environment | {f"{name.upper()}_DATABASE_URL": url for name, url in urls.items()} | _default_log_format()


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
