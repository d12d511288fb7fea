"""Three stacks over the same tables: ours, the usual Flask one and the FastAPI one, a process for each service."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from benchmarks.installing import pins, python_environment
from benchmarks.logins import GATEWAY_TOKEN, ISSUER, Logins
from benchmarks.processes import Process, free_port
from benchmarks.report import CHECKOUT, OURS, revision
from benchmarks.system.rows import PARTS, fill, reset
from benchmarks.tasks.subjects import Server, TaskPlace
from service_users.accounts.signing import SigningKeys
from service_users.auth_key import AuthKey
from servicekit.database.engine import Database

_HERE = Path(__file__).resolve().parent / "peers"
_REQUIREMENTS = _HERE / "requirements.txt"
GATEWAY = "gateway"
_RELAY = "relay"
#: As many as a service of ours has by default; a gateway that waits needs more.
_THREADS = {GATEWAY: 32}
_SERVICE_THREADS = 8
#: Of stacks that ask for logins: the key of accounts, the tokens that are shown in turn, and how long it may take until
#: all of the stack know by what they are signed, in seconds.
_AUTH_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
_TOKENS = 100
_START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Stack:
    """`command` gives what runs a part, which listens on a port; `environment` comes on top of everybody's."""

    name: str
    command: Callable[[str, int], list[str]]
    cwd: Path
    #: The checkout whose migrations make its tables.
    tables: Path = CHECKOUT
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Its events are delivered by a process that listens too.
    has_relay: bool = False
    #: Whoever asks must show an access token.
    has_logins: bool = False


def ours(checkout: Path = CHECKOUT, *, has_logins: bool = False) -> Stack:
    """The processes of a checkout, with the commands, settings and log lines of production."""

    def command(part: str, port: int) -> list[str]:
        python = [sys.executable, "-P", "-m"]
        if part == GATEWAY:
            return [*python, "gunicorn", "-c", "api_gateway/gunicorn.conf.py", "api_gateway.asgi:app"]
        if part == _RELAY:
            return [*python, "servicekit.events", "relay"]
        return [*python, "servicekit.web.serve", part]

    name = OURS if checkout == CHECKOUT else f"{OURS} {checkout.name} {revision(checkout)}"
    own = {"PYTHONPATH": str(checkout), "LOG_FORMAT": "json", "AUTH": "off", "INTERNAL_TOKEN": "of-a-benchmark-alone"}
    if has_logins:
        name += ", with logins"
        own |= {"AUTH": "required", "AUTH_KEY": _AUTH_KEY, "GATEWAY_TOKEN": GATEWAY_TOKEN}
    return Stack(name, command, checkout, checkout, own, has_relay=True, has_logins=has_logins)


def flask_stack() -> Stack:
    python = python_environment("system", _REQUIREMENTS)

    def command(part: str, port: int) -> list[str]:
        gunicorn = [str(python), "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1"]
        gunicorn += ["--threads", str(_THREADS.get(part, _SERVICE_THREADS)), "--access-logfile", "-"]
        return [*gunicorn, "--no-control-socket", "--bind", f"127.0.0.1:{port}", f"flask_stack:{part}()"]

    found = pins(_REQUIREMENTS)
    return Stack(f"Flask {found['Flask']}, ORM, gthread", command, _HERE)


def fastapi_stack() -> Stack:
    python = python_environment("system", _REQUIREMENTS)

    def command(part: str, port: int) -> list[str]:
        return [str(python), "-m", "uvicorn", "--factory", f"fastapi_stack:{part}", "--port", str(port)]

    return Stack(
        f"FastAPI {pins(_REQUIREMENTS)['fastapi']}, asyncpg, uvicorn", command, _HERE, environment={"DRIVER": "asyncpg"}
    )


#: The first of them is what ratios refer to. Each raises Missing where it cannot be had.
PEERS: dict[str, Callable[[], Stack]] = {"flask": flask_stack, "fastapi": fastapi_stack}


@dataclass(slots=True)
class RunningStack:
    """A stack with its databases and processes."""

    stack: Stack
    count: int
    databases: dict[str, TaskPlace]
    processes: dict[str, Process] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    logins: Logins | None = None

    @property
    def name(self) -> str:
        return self.stack.name

    def log_in(self) -> None:
        """Know the key that its users service signs with, once the other processes know it too."""
        if not self.stack.has_logins:
            return
        database = Database(self.databases["users"].url, application_name="benchmark", pool_size=1)
        try:
            keys = SigningKeys(database, AuthKey.read(_AUTH_KEY), issuer=ISSUER)
            self.logins = Logins(keys.issuer(), _TOKENS)
        finally:
            database.dispose()
        until = time.monotonic() + _START_SECONDS
        waiting = [f"{self.urls[part]}/{part}?limit=1" for part in PARTS]
        waiting += [f"{self.urls[part]}/users?limit=1" for part in self.urls if part == GATEWAY]
        with requests.Session() as session:
            session.trust_env = False
            fields = {"Authorization": f"Bearer {self.logins.tokens()[0]}"}
            while waiting := [url for url in waiting if session.get(url, headers=fields, timeout=5).status_code != 200]:
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.name}: no login is taken at {', '.join(waiting)}")
                time.sleep(0.1)

    def reset(self) -> None:
        """Take back what the runs have done to the tables."""
        for part, database in self.databases.items():
            with database.cursor() as cursor:
                reset(cursor, part, self.count)


class Tables:
    """Databases of services with their rows: made once for each checkout's migrations, copied for each stack."""

    def __init__(self, server: Server, count: int) -> None:
        self._server = server
        self._count = count
        self._made: dict[Path, dict[str, TaskPlace]] = {}

    def of(self, stack: Stack) -> dict[str, TaskPlace]:
        if stack.tables not in self._made:
            self._made[stack.tables] = self._make(stack.tables)
        return {part: self._server.empty_place(like) for part, like in self._made[stack.tables].items()}

    def _make(self, checkout: Path) -> dict[str, TaskPlace]:
        found = {part: self._server.empty_place() for part in PARTS}
        for part, database in found.items():
            subprocess.run(
                [sys.executable, "-P", "-m", "servicekit.database.migrations", f"service_{part}"],
                cwd=checkout,
                env={**os.environ, "PYTHONPATH": str(checkout), **_database_urls(found)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            with database.cursor() as cursor:
                fill(cursor, part, self._count)
            database.settle()
        return found


@contextmanager
def running(
    stack: Stack, databases: dict[str, TaskPlace], count: int, folder: Path, core: frozenset[int] | None, *, whole: bool
) -> Iterator[RunningStack]:
    """The services of a stack on a core, or anywhere; if `whole`, its gateway and its relay too."""
    found = RunningStack(stack, count, databases)
    parts = [*PARTS, *([GATEWAY] if whole else []), *([_RELAY] if whole and stack.has_relay else [])]
    ports = {part: free_port() for part in parts}
    found.urls = {part: f"http://127.0.0.1:{port}" for part, port in ports.items()}
    environment = {
        **{f"{part.upper()}_URL": url for part, url in found.urls.items() if part in PARTS},
        **{f"{part.upper()}_BIND": f"127.0.0.1:{port}" for part, port in ports.items()},
        **_database_urls(databases, stack.environment.get("DRIVER", "psycopg2")),
        "PYTHONUNBUFFERED": "1",
        **stack.environment,
    }
    with ExitStack() as started:
        for part in parts:
            output = folder / f"{re.sub('[^a-z0-9]+', '-', stack.name.lower())}-{part}.log"
            process = Process(
                stack.command(part, ports[part]),
                port=ports[part],
                output=output,
                on=core,
                cwd=stack.cwd,
                environment=environment,
            )
            started.callback(process.stop)
            found.processes[part] = process
        found.log_in()
        yield found


def _database_urls(databases: Mapping[str, TaskPlace], driver: str = "psycopg2") -> dict[str, str]:
    return {
        f"{part.upper()}{role}_DATABASE_URL": place.url.replace("+psycopg2", f"+{driver}", 1)
        for part, place in databases.items()
        for role in ("", "_OWNER")
    }
