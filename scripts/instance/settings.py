"""The settings that programs will find, read before anything is started or stopped for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager

from scripts.instance.errors import StartFailed
from scripts.instance.layout import CHECKOUT
from servicekit.process.services import services
from servicekit.process.settings import Settings, SettingsError, WebServiceSettings, load, settings_of

#: Database connections that one process opens, the relay for each service. A worker: three from its pool, four that
#: leave it for good, and one for its heartbeat.
OF_A_PROCESS = {"events": 3, "worker": 8, "ingest": 3, "relay": 3}
#: What the leading worker opens besides.
OF_THE_LEADER = 4
#: For people and their tools, backups and migrations, and the superuser.
RESERVE = 20


def connections_needed(processes: Mapping[str, int], settings: Mapping[str, Settings]) -> int:
    """The database connections for so many processes of each program, and for the services with these settings."""
    of_services = sum(
        one.connections * one.service_processes for one in settings.values() if isinstance(one, WebServiceSettings)
    )
    counts = {**processes, "relay": processes.get("relay", 0) * len(services())}
    of_others = sum(counts.get(name, 0) * each for name, each in OF_A_PROCESS.items())
    return of_services + of_others + OF_THE_LEADER + RESERVE


def read_settings(environments: Mapping[str, Mapping[str, str]]) -> dict[str, Settings]:
    """Read the settings of programs as they will, each in its environment. Raises StartFailed, which names every wrong
    variable."""
    found: dict[str, Settings] = {}
    wrong: dict[str, str] = {}
    for name, environment in environments.items():
        with _as_if_in(environment):
            try:
                found[name] = load(_class_of(name))
            except SettingsError as exc:
                wrong.setdefault(str(exc), name)  # many programs read some of them
    if wrong:
        told = "; ".join(f"{name} does not start: {cause}" for cause, name in wrong.items())
        raise StartFailed(f"{told} (every variable is explained in .env.example)")
    return found


def _class_of(name: str) -> type[Settings]:
    # Each import takes time, some a second.
    if name in services():
        return settings_of(services()[name])
    if name == "gateway":
        from api_gateway.settings import GatewaySettings

        return GatewaySettings
    if name == "relay":
        from servicekit.events.relay_settings import relay_settings

        return relay_settings(required=tuple(services()))
    from service_tasks.settings import EventsSettings, IngestSettings, WorkerSettings

    of_tasks: dict[str, type[Settings]] = {"events": EventsSettings, "worker": WorkerSettings, "ingest": IngestSettings}
    return of_tasks[name]


@contextmanager
def _as_if_in(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        with chdir(CHECKOUT):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
