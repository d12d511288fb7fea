"""The verbs `start`, `restart` and `stop` of services in a running instance."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.instance import supervision
from scripts.instance.command_line import say
from scripts.instance.credentials import Credentials
from scripts.instance.env_file import warn_of_misspelt
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.lock import running_port
from scripts.instance.ports import STORES, Ports, names
from scripts.instance.readiness import Start
from scripts.instance.stopping import stop_services

_WORKER = "worker"


def act(layout: Layout, verb: str, services: Sequence[str], workers: int | None = None) -> None:
    """Return once the services are ready, or stopped. Raises StartFailed, with the cause, if one does not start.

    Without `services` all are meant; a restart of all spares PostgreSQL and RabbitMQ, which read no settings of
    ours. `workers` is a new number of worker processes.
    """
    layout.require_ours()
    port = running_port(layout)
    if port is None:
        raise InstanceError(f"the instance in {layout.data} does not run; start it with ./scripts/run{layout.option}")
    ports = Ports(port)
    supervisor = supervision.Supervisor(ports, Credentials(layout.secrets)["supervisor"])
    there = {process.service for process in supervisor.processes()} | ({_WORKER} if workers is not None else set())
    if strange := [name for name in services if name not in there]:
        raise InstanceError(f"this instance was started without {strange[0]} (see ./scripts/run --help)")
    meant = services or [name for name in names() if name in there and (verb == "start" or name not in STORES)]
    if verb != "stop":
        warn_of_misspelt()
    if workers is not None:
        supervision.write_workers(layout, workers)
    if verb in {"stop", "restart"}:
        stop_services(supervisor, meant, say)
    if workers is not None:
        supervisor.stop([_WORKER])
        supervisor.reread(_WORKER)
    if verb in {"start", "restart"}:
        start = Start(layout, ports, supervisor, meant)
        supervisor.start(meant)
        start.wait()
    outcome = {"stop": "stopped", "start": "ready", "restart": "ready again"}[verb]
    say(f"{', '.join(meant)}: {outcome}")
