"""The processes of an instance, with their commands and settings.

Addresses (binds, database and peer URLs) always come from the instance, or two instances could share a database.
Everything else comes from the caller's environment, then from `.env` in the checkout, which the services read
themselves.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.instance.credentials import Credentials
from scripts.instance.env_file import names_in
from scripts.instance.identity import Identity
from scripts.instance.launch import environment_of
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.listening import Listening
from scripts.instance.ports import HOST, STORES, Ports
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.rabbitmq import Broker
from scripts.instance.reclaim import MARK
from scripts.instance.settings import connections_needed, read_settings
from servicekit.process.services import Service, services

# Variables that would change how Python, gunicorn or libpq behave. A trailing * matches any ending.
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

_LOOPBACK = Listening()


@dataclass(frozen=True)
class Program:
    """One program for supervisor. `stop_seconds`: how long it may take to stop before it is killed."""

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
        """The log in the data folder that the program writes itself; None if supervisor reads its output.

        While supervisor is stopped, a database or broker that writes to its pipe blocks, and all its clients with it.
        Our own processes never block on their logs.
        """
        return f"logs/{self.name}.log" if self.name in STORES else None

    @property
    def environment(self) -> dict[str, str]:
        """In which it will run."""
        return environment_of(self.settings, _unset(), os.environ)

    def launch_file(self) -> str:
        """What launch.py reads: JSON, because supervisor's file expands % and cuts at ; and #."""
        return json.dumps(
            {
                "argv": [*self.identity.prefix, *self.command],
                "cwd": str(CHECKOUT),
                "log": self.own_log,
                "set": dict(self.settings),
                "unset": _unset(),
                "uid": self.identity.uid,
                "gid": self.identity.gid,
            }
        )


def database_urls(server: EmbeddedPostgres, credentials: Credentials) -> dict[str, str]:
    """The URL of each service's database, as the role that the service runs as."""
    return {name: server.url(name, name, credentials[name]) for name in services()}


def owner_urls(server: EmbeddedPostgres, credentials: Credentials) -> dict[str, str]:
    """The URL of each service's database, as its owner."""
    return {name: server.url(name, row.owner, credentials[row.owner]) for name, row in services().items()}


def programs_of(
    layout: Layout,
    ports: Ports,
    credentials: Credentials,
    server: EmbeddedPostgres,
    workers: int,
    broker: Broker | None = None,
    *,
    auth: bool = False,
    listening: Listening = _LOOPBACK,
) -> list[Program]:
    """Every program of the instance, PostgreSQL first, which accepts as many connections as the others may open.

    With `auth` whoever calls must log in; `listening` is where the gateway does.

    Raises StartFailed for wrong settings.
    """
    everybody = {
        MARK: str(layout.data),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(layout.temporary),
        **_default_log_format(),
    }
    # Otherwise nobody needs to log in: only this machine reaches the instance.
    keys = str(layout.keys)
    callers = {"AUTH": "required", "AUTH_KEYS_FILE": keys} if auth else {"AUTH": "off"}
    # Where nobody logs in, whoever acts as somebody else needs them.
    gateway = {"GATEWAY_TOKEN": credentials["gateway_token"]}
    mail = {"MAIL_TOKEN": credentials["mail_token"]}
    accounts = {**gateway, **mail, "AUTH_KEY": credentials["auth_key"]}
    people = {"PEOPLE_TOKEN": credentials["people_token"]}
    internal = {"INTERNAL_TOKEN": credentials["internal"]}
    broker_url = {} if broker is None else {"RABBITMQ_URL": broker.url}
    rows = services()
    peers = {row.variable("URL"): f"http://{HOST}:{ports[name]}" for name, row in rows.items()}
    databases = {
        name: {rows[name].variable("DATABASE_URL"): url} for name, url in database_urls(server, credentials).items()
    }

    def on_loopback(variable: str, name: str) -> dict[str, str]:
        return {**everybody, variable: f"{HOST}:{ports[name]}"}

    def python(*arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", *arguments)

    def gunicorn(folder: str, app: str) -> tuple[str, ...]:
        return python("gunicorn", "--no-control-socket", "-c", f"{folder}/gunicorn.conf.py", app)

    def service(row: Service) -> Program:
        return Program(
            row.name, python("servicekit.web.serve", row.name),
            {**on_loopback(row.variable("BIND"), row.name), **callers, **internal, **peers, **databases[row.name],
             **(accounts if row.name == "users" else {}), **(people if row.name in ("users", "sites") else {})},
        )  # fmt: skip

    programs = [
        *map(service, rows.values()),
        Program(
            "events", gunicorn("service_tasks/streams", "service_tasks.streams.asgi:app"),
            {**on_loopback("EVENTS_BIND", "events"), **callers, **peers, **databases["tasks"]},
        ),
        Program(
            "worker", python("service_tasks.cli", "worker"),
            # There may be many on this machine: each takes a free port and logs it.
            {**everybody, **databases["tasks"], **mail, "USERS_URL": peers["USERS_URL"], "WORKER_BIND": f"{HOST}:0"},
            copies=workers, stop_seconds=60,  # WORKER_GRACE_SECONDS is 30; the rest is for handing tasks back
        ),
        Program(
            "relay", python("servicekit.events", "relay"),
            {
                **on_loopback("RELAY_BIND", "relay"), **internal, **broker_url, **peers,
                **{variable: url for database in databases.values() for variable, url in database.items()},
            },
            stop_seconds=20,
        ),
        Program(
            "ingest", python("service_tasks.cli", "ingest"),
            {**on_loopback("INGEST_BIND", "ingest"), **broker_url, **databases["tasks"]},
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
            {
                **everybody, **callers, **gateway, **peers, **listening.settings,
                "GATEWAY_BIND": f"{listening.host}:{ports.base}",
                "EVENTS_URL": f"http://{HOST}:{ports['events']}",
            },
            priority=30,
        ),
    ]  # fmt: skip
    programs = [program for program in programs if program.copies > 0]
    settings = read_settings({one.name: one.environment for one in programs if one.name not in STORES})
    needed = connections_needed({one.name: one.copies for one in programs}, settings)
    server.connections = max(server.connections, needed)
    postgres = Program(
        "postgres", tuple(server.command()), {MARK: str(layout.data), "LC_ALL": "C"}, server.identity,
        autostart=True, stop_signal="INT", stop_seconds=60, priority=10,
    )  # fmt: skip
    return [postgres, *programs]


def migration_environment(urls: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the `owner_urls` of one instance."""
    environment = {name: value for name, value in os.environ.items() if not _is_stray(name)}
    databases = {services()[name].variable("OWNER_DATABASE_URL"): url for name, url in urls.items()}
    return environment | databases | _default_log_format()


def _unset() -> list[str]:
    return [*_addresses(), *_STRAY]


def _addresses() -> list[str]:
    """The variables for addresses and secrets of any process: no other process sees them, and no caller sets them."""
    of_services = ("DATABASE_URL", "OWNER_DATABASE_URL", "BIND", "URL")
    return [
        *(row.variable(what) for row in services().values() for what in of_services),
        "GATEWAY_BIND", "EVENTS_BIND", "EVENTS_URL", "INGEST_BIND", "RELAY_BIND", "WORKER_BIND", "RABBITMQ_URL",
        "INTERNAL_TOKEN", "INTERNAL_TOKEN_FILE", "GATEWAY_TOKEN", "GATEWAY_TOKEN_FILE", "PEOPLE_TOKEN",
        "PEOPLE_TOKEN_FILE", "MAIL_TOKEN", "MAIL_TOKEN_FILE", "AUTH_KEY", "AUTH_KEY_FILE",
        "AUTH_KEYS_FILE",
    ]  # fmt: skip


def _is_stray(name: str) -> bool:
    return any(name == s or (s.endswith("*") and name.startswith(s[:-1])) for s in _STRAY)


def _default_log_format(dotenv: Path = CHECKOUT / ".env") -> dict[str, str]:
    """These logs are read with `tail -f`, so they are plain text unless the caller asked for JSON."""
    if "LOG_FORMAT" in os.environ:
        return {}
    return {} if "LOG_FORMAT" in names_in(dotenv) else {"LOG_FORMAT": "console"}
