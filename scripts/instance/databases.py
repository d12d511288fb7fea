"""The databases of an instance: creating them, migrating them, and opening them for a single command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError, StartFailed
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.lock import Holder, InstanceLock, holder_of
from scripts.instance.ports import Ports, free_base
from scripts.instance.postgres import EmbeddedPostgres, last_lines_of
from scripts.instance.programs import migration_environment, owner_urls
from scripts.instance.reclaim import reclaim
from servicekit.process.services import services

# The compose file and external servers use the same file.
_SCRIPT = CHECKOUT / "deploy" / "postgres" / "databases.sql"


def create_databases(server: EmbeddedPostgres, credentials: Credentials) -> None:
    """Make missing roles and databases, and set the passwords. Takes 0.1 s when nothing is missing."""
    script = _SCRIPT.read_text(encoding="utf-8")
    for row in services().values():
        if row.variable("DATABASE_PASSWORD") not in script:
            raise StartFailed(
                f"services.toml: [{row.name}] deploy/postgres/databases.sql makes no database for it; "
                "docs/adding_a_service.md says how"
            )
    passwords = {
        f"{role.upper()}_DATABASE_PASSWORD": credentials[role]
        for row in services().values()
        for role in (row.name, row.owner)
    }
    done = server.tool("psql", "-X", "-q", "-d", "postgres", "-f", _SCRIPT, environment=passwords)
    if done.returncode != 0:
        raise StartFailed(f"the databases could not be made: {done.stderr.strip()}")


def migrate(server: EmbeddedPostgres, credentials: Credentials, log: Path) -> None:
    """Apply every history. Raise StartFailed with the last lines of the log."""
    with log.open("wb") as output:
        status = apply_histories("all", migration_environment(owner_urls(server, credentials)), output)
    if status != 0:
        raise StartFailed(f"a migration failed: {last_lines_of(log)} (log: {log})")


def apply_histories(which: str, environment: Mapping[str, str], output: IO[bytes] | None = None) -> int:
    """Apply the history of one package, or of `all`, in a subprocess. Returns its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "servicekit.database.migrations", which],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        check=False,
    ).returncode


@contextmanager
def database_server(layout: Layout, command: str) -> Iterator[EmbeddedPostgres]:
    """The server of a running instance, or one started just for the block."""
    layout.require_ours()
    holder = holder_of(layout.lock)
    credentials = Credentials(layout.secrets)
    if holder is not None and holder.port is not None:
        server = EmbeddedPostgres(layout.postgres, Ports(holder.port)["postgres"], credentials["postgres"])
        if not server.accepts_connections():
            raise InstanceError(
                f"PostgreSQL of the running instance does not answer; try ./scripts/run start postgres{layout.option}"
            )
        # An earlier version may have started it.
        create_databases(server, credentials)
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
    """Start only PostgreSQL, on a free port, with roles and databases in place. The caller holds the lock."""
    layout.create()
    credentials = Credentials(layout.secrets)
    credentials.create()
    server = EmbeddedPostgres(layout.postgres, free_base(), credentials["postgres"], log=layout.log("postgres"))
    if server.identity.uid is not None:
        layout.data.chmod(0o711)  # PostgreSQL's user has to reach its own folder; the rest stays closed
    server.start()
    try:
        create_databases(server, credentials)
        yield server
    finally:
        server.stop()
