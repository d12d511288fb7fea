"""Start an instance, wait while it runs, and stop it in order without losing anything.

lock → reclaim leftovers → ports → folder, secrets, settings → initdb → supervisor (starts PostgreSQL)
     → roles and databases → task types → migrations → every service at once → /readyz of each
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from scripts.instance import supervision
from scripts.instance.command_line import say, say_more
from scripts.instance.credentials import Credentials
from scripts.instance.databases import create_databases, migrate
from scripts.instance.env_file import warn_of_misspelt
from scripts.instance.errors import InstanceError, PortTaken
from scripts.instance.identity import AS_WE_ARE, Identity
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening, choose_listening
from scripts.instance.lock import Holder, InstanceLock
from scripts.instance.operating import require_task_types
from scripts.instance.ports import GATEWAY_PORT, STORES, WORKERS, Ports, names
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.programs import Program, programs_of
from scripts.instance.rabbitmq import Broker, choose_broker
from scripts.instance.readiness import Start
from scripts.instance.reclaim import reclaim
from scripts.instance.reloading import last_writes, restart_on_changes
from scripts.instance.stopping import stop_in_order

_FIRST_FREE_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class StopRequested(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP. Not an Exception, so that no handler catches it as an error."""


def run(
    layout: Layout,
    ports: Ports,
    *,
    workers: int = WORKERS,
    reset: bool = False,
    detach: bool = False,
    reload: bool = False,
    rabbitmq: bool = False,
    auth: bool | None = None,
    listen: str | None = None,
    tls: Sequence[str] | None = None,
) -> None:
    """Start the instance, with its own RabbitMQ if `rabbitmq` is set and RABBITMQ_URL is not. `auth` tells whether
    people log in, `listen` and `tls` where and by which certificate and key; None: as before.

    Unless `detach`, wait until a signal comes or another command stops it; with `reload` restart on changes meanwhile.
    """
    again = _command(layout, ports, workers=workers, rabbitmq=rabbitmq)
    began = time.monotonic()
    before = last_writes() if reload else {}
    warn_of_misspelt()
    layout.require_ours_or_empty()
    closed = (layout.closed.exists() and not reset) if auth is None else auth
    listening = choose_listening(Listening() if reset else Listening.of(layout), listen, tls, closed=closed)
    broker = choose_broker(layout, ports, wanted=rabbitmq)
    made = layout.create_folder()
    lock = InstanceLock.acquire(layout.lock, Holder("./scripts/run", ports.base, workers))
    with _Signals() as signals:
        supervisor: supervision.Supervisor | None = None
        process: subprocess.Popen[bytes] | None = None
        try:
            _make_room(layout, ports, broker, listening)

            def plan() -> tuple[EmbeddedPostgres, list[Program]]:
                return _plan(layout, ports, broker, listening, workers, closed=closed)

            if reset and layout.exists:
                # Nothing is forgotten where nothing would start.
                _, programs = plan()
                require_task_types(_of_task_types(programs))
            if reset:
                layout.remove_contents()
            _make_folders(layout, broker)
            server, programs = plan()
            credentials = Credentials(layout.secrets)
            # Importing them takes as long as PostgreSQL takes to start.
            types = ThreadPoolExecutor(1).submit(require_task_types, _of_task_types(programs))
            if not closed:
                layout.closed.unlink(missing_ok=True)
            listening.remember(layout)
            _make_database(server)
            supervision.write_run_files(layout, programs, ports["supervisor"], credentials["supervisor"])
            supervisor = supervision.Supervisor(ports, credentials["supervisor"])
            process = supervision.spawn(layout, lock)
            lock.close()  # supervisor holds it from here on
            supervision.wait_for_supervisor(supervisor, process, layout)
            _start_everything(layout, ports, credentials, server, supervisor, process, broker, types, closed=closed)
            _announce(layout, listening.url(ports.base), broker, seconds=time.monotonic() - began, detach=detach)
            if not detach:
                status = restart_on_changes(before, layout, supervisor, process) if reload else process.wait()
                _explain_end(layout, status, again)
        except BaseException as reason:  # whatever the reason, nothing may be left running
            signals.explain_instead()
            if isinstance(reason, StopRequested):
                say("\nstopping (running tasks get up to 30 s to finish) …")
            if supervisor is not None and process is not None and process.poll() is None:
                stop_in_order(supervisor, say)
                process.wait()
            if process is None:
                layout.withdraw(made)
            lock.close()
            if not isinstance(reason, StopRequested):
                raise
            say(f"stopped; nothing was lost. Start again with {again}")
        finally:
            lock.close()


def _command(layout: Layout, ports: Ports, *, workers: int, rabbitmq: bool) -> str:
    """The command that starts this instance again."""
    options = [
        f" --port {ports.base}" if ports.base != GATEWAY_PORT else "",
        f" --workers {workers}" if workers != WORKERS else "",
        " --rabbitmq" if rabbitmq else "",
    ]
    return f"./scripts/run{''.join(options)}{layout.option}"


def _make_room(layout: Layout, ports: Ports, broker: Broker | None, listening: Listening) -> None:
    reclaimed = reclaim(layout.data)
    if reclaimed:
        say(f"ended {reclaimed} processes that a killed supervisor had left behind")
    own_broker = None if broker is None else broker.own
    without = [*([] if broker else ["ingest"]), *([] if own_broker else ["rabbitmq"])]
    ports.require_free(but=without, gateway=listening.address)


def _make_folders(layout: Layout, broker: Broker | None) -> None:
    # What killed processes left there.
    shutil.rmtree(layout.temporary, ignore_errors=True)
    layout.create()
    if broker is not None and broker.own is not None:
        broker.own.prepare()
    Credentials(layout.secrets).create()


def _plan(
    layout: Layout, ports: Ports, broker: Broker | None, listening: Listening, workers: int, *, closed: bool
) -> tuple[EmbeddedPostgres, list[Program]]:
    """The server and all programs. Raises InstanceError if they could not start with the settings of now."""
    credentials = Credentials(layout.secrets)
    server = EmbeddedPostgres(layout.postgres, ports["postgres"], credentials["postgres"], log=layout.log("postgres"))
    if server.identity.uid is not None:
        layout.data.chmod(0o711)  # PostgreSQL's user has to reach its own folder; the rest stays closed
    _require_port_for(server.identity, ports)
    programs = programs_of(layout, ports, credentials, server, workers, broker, auth=closed, listening=listening)
    return server, programs


def _of_task_types(programs: Sequence[Program]) -> Mapping[str, str]:
    """The environment in which task types are loaded."""
    environments = {one.name: one.environment for one in programs}
    return environments.get("worker", environments["tasks"])


def _make_database(server: EmbeddedPostgres) -> None:
    if not server.initialised:
        say(f"making a database in {server.folder} …")
    server.initialise()
    server.require_version()
    server.require_access()
    server.remove_stale_pid_file()


def _require_port_for(identity: Identity, ports: Ports) -> None:
    """Raises PortTaken if PostgreSQL, run by root as somebody else, may not use its port."""
    try:
        first = int(_FIRST_FREE_FOR_ALL.read_text())
    except OSError:
        first = 1024
    if identity != AS_WE_ARE and ports["postgres"] < first:
        raise PortTaken(
            f"port {ports['postgres']} for postgres may be used by root alone, and PostgreSQL refuses to run as root; "
            f"choose --port {GATEWAY_PORT} and let a proxy listen on {ports.base}"
        )


def _start_everything(
    layout: Layout,
    ports: Ports,
    credentials: Credentials,
    server: EmbeddedPostgres,
    supervisor: supervision.Supervisor,
    process: subprocess.Popen[bytes],
    broker: Broker | None,
    types: Future[None],
    *,
    closed: bool,
) -> None:
    own_broker = broker is not None and broker.own is not None
    say("starting PostgreSQL and RabbitMQ …" if own_broker else "starting PostgreSQL …")
    start = Start(layout, ports, supervisor, names())

    def still_trying() -> bool:
        start.require_nobody_failed()
        return process.poll() is None

    server.wait_until_accepting(still_trying)
    create_databases(server, credentials)
    types.result()
    say("applying migrations …")
    migrate(server, credentials, layout.log("migrations"))
    if closed and not layout.closed.exists():
        from scripts.instance.closing import close

        close(layout, server, credentials)
    say("starting the services …")
    supervisor.start([name for name in names() if name not in STORES])
    start.wait(lambda missing: say_more(f"starting the services … {f'{len(missing)} to go' if missing else ''}"))


def _announce(layout: Layout, url: str, broker: Broker | None, *, seconds: float, detach: bool) -> None:
    lines = [
        f"Siteworks is ready on {url}  ({seconds:.1f} s)",
        "people log in here" if layout.closed.exists() else "open to every user of this machine",
        "",
        f"console    {url}/console",
        f"API        {url}/swagger",
        f"health     {url}/health",
        *([f"rabbitmq   {broker.url}"] if broker is not None and broker.own is not None else []),
        f"logs       {layout.logs}",
        f"status     ./scripts/run status{layout.option}",
        f"stop       {'' if detach else 'Ctrl-C, or '}./scripts/run stop{layout.option}",
    ]
    width = max(map(len, lines))
    say("╭" + "─" * (width + 2) + "╮")
    for line in lines:
        say(f"│ {line.ljust(width)} │")
    say("╰" + "─" * (width + 2) + "╯")


def _explain_end(layout: Layout, status: int, again: str) -> None:
    """Say that another command stopped the instance. Raises InstanceError if its supervisor was killed."""
    if status == 0:
        say("stopped by another command")
        return
    # Only the holder of the lock may clean up: another ./scripts/run may already be starting.
    lock = InstanceLock.acquire(layout.lock, Holder("./scripts/run"))
    try:
        reclaim(layout.data)
    finally:
        lock.close()
    raise InstanceError(
        f"supervisor was killed (exit status {status}), so everything was stopped; nothing was lost. "
        f"Start again with {again}"
    )


class _Signals:
    """The first SIGINT, SIGTERM or SIGHUP raises StopRequested; later ones print an explanation."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._first) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.explain_instead()
        raise StopRequested

    def explain_instead(self) -> None:
        for number in self._NUMBERS:
            signal.signal(number, self._explain)

    @staticmethod
    def _explain(number: int, frame: FrameType | None) -> None:
        say("still stopping: running tasks finish first, then the database closes its files. Please wait.")
