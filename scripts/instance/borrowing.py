"""PostgreSQL for a command that needs the databases and nothing else: backup, restore, migrate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scripts.instance.credentials import Credentials
from scripts.instance.databases import create_databases
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.lock import Holder, InstanceLock, holder_of
from scripts.instance.ports import Ports, free_base
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.reclaim import reclaim


@contextmanager
def database_server(layout: Layout, command: str) -> Iterator[EmbeddedPostgres]:
    """The server of a running instance, or else one started alone for as long as the block lasts."""
    layout.require_ours()
    holder = holder_of(layout.lock)
    credentials = Credentials(layout.secrets)
    if holder is not None and holder.port is not None:
        server = EmbeddedPostgres(layout.postgres, Ports(holder.port).postgres, credentials["postgres"])
        if not server.accepts_connections():
            raise InstanceError(
                f"PostgreSQL of the running instance does not answer; try ./scripts/run start postgres{layout.option}"
            )
        yield server
        return
    lock = InstanceLock.acquire(layout.lock, Holder(command))
    try:
        reclaim(layout.data)
        with server_alone(layout) as server:
            yield server
    finally:
        lock.close()


@contextmanager
def server_alone(layout: Layout) -> Iterator[EmbeddedPostgres]:
    """Start PostgreSQL on any free port, with roles and databases in place. The caller holds the lock."""
    layout.create()
    credentials = Credentials(layout.secrets)
    credentials.create()
    server = EmbeddedPostgres(layout.postgres, free_base(), credentials["postgres"], log=layout.log("postgres"))
    if server.identity.uid is not None:
        layout.data.chmod(0o711)  # that other user has to get through to its own folder; the rest stays closed
    server.start()
    try:
        create_databases(server, credentials)
        yield server
    finally:
        server.stop()
