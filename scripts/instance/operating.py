"""The verbs `start`, `restart` and `stop` of services in a running instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import psutil

from scripts.instance import supervision
from scripts.instance.command_line import say
from scripts.instance.credentials import Credentials
from scripts.instance.env_file import warn_of_misspelt
from scripts.instance.errors import InstanceError, StartFailed
from scripts.instance.launch import environment_of
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.lock import running_port
from scripts.instance.ports import STORES, Ports, names
from scripts.instance.postgres import last_lines
from scripts.instance.readiness import CANNOT_START, Start
from scripts.instance.settings import OF_A_PROCESS, connections_needed, read_settings
from scripts.instance.stopping import stop_services
from scripts.instance.supervision import ProcessState
from servicekit.process.services import services as table

_WORKER = "worker"
#: They load task types.
LOADERS = ("tasks", "worker", "ingest")


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
    processes = supervisor.processes()
    there = {process.service for process in processes} | ({_WORKER} if workers is not None else set())
    if strange := [name for name in services if name not in there]:
        raise InstanceError(f"this instance was started without {strange[0]} (see ./scripts/run --help)")
    meant = services or [name for name in names() if name in there and (verb == "start" or name not in STORES)]
    if verb != "stop":
        warn_of_misspelt()
        # Nothing stops before it is known that it will start again.
        _require_settings(layout, meant, processes, workers)
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


def _require_settings(
    layout: Layout, meant: Collection[str], processes: Sequence[ProcessState], workers: int | None
) -> None:
    """Raise InstanceError if one of these could not start with its settings of now, or if all together might open more
    connections than PostgreSQL accepts."""
    inherited = _inherited(processes)
    plans = {path.stem: json.loads(path.read_text()) for path in layout.run.glob("*.json")}
    environments = {
        name: environment_of(plan["set"], plan["unset"], inherited)
        for name, plan in plans.items()
        if name in {*table(), *OF_A_PROCESS, "gateway"}
    }
    settings = read_settings({name: one for name, one in environments.items() if name in {*table(), *meant}})
    if set(LOADERS) & set(meant):
        require_task_types(environments.get("worker", environments["tasks"]))
    counts = Counter(one.service for one in processes)
    if workers is not None:
        counts["worker"] = workers
    needed = connections_needed(counts, settings)
    accepted = next(
        int(one.partition("=")[2]) for one in plans["postgres"]["argv"] if one.startswith("--max_connections=")
    )
    if needed > accepted:
        raise InstanceError(
            f"this may take {needed} database connections, and PostgreSQL accepts {accepted} until the "
            f"instance is started again: ./scripts/run stop{layout.option}, then start it"
        )


def require_task_types(environment: Mapping[str, str]) -> None:
    """Raise StartFailed, with the cause, if a worker in this environment could not load its task types."""
    done = subprocess.run(
        [sys.executable, "-m", "service_tasks.cli", "worker", "--check"],
        cwd=CHECKOUT, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        _, _, cause = last_lines(done.stdout + done.stderr, 1).rpartition(CANNOT_START)
        raise StartFailed(f"worker does not start: {cause}")


def _inherited(processes: Sequence[ProcessState]) -> Mapping[str, str]:
    """The environment of supervisor, which its programs inherit."""
    for process in processes:
        if process.pid > 0:
            try:
                parent = psutil.Process(process.pid).parent()
                if parent is not None:
                    return parent.environ()
            except psutil.Error:
                continue
    return os.environ
