"""A real PostgreSQL for the tests: one server per test process, one migrated template per service, a clone per test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

from scripts.instance.postgres import SUPERUSER, EmbeddedPostgres
from servicekit.database import migrations
from servicekit.database.engine import Database
from servicekit.process.services import services
from servicekit.wire.errors import AppError
from tests.support.guard import folder_in_memory
from tests.support.ports import free_port
from tests.support.waiting import eventually


@dataclass(frozen=True)
class ServiceDatabase:
    """One test's own database of one service, as the role that the service runs as."""

    url: str
    database: Database
    #: For what that role may not do.
    superuser_url: str

    def administer(self, statement: str) -> None:
        """Run what takes the owner of a table, or a superuser."""
        execute(self.superuser_url, statement)


_FAST = ("fsync", "synchronous_commit", "full_page_writes")


class TestServer:
    """The server and its templates."""

    __test__ = False

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """A `durable` server keeps every commit when it is killed; otherwise it is faster. Its files are in memory, or
        in `folder` where there is no room."""
        # Even then without fsync: the tests kill processes, not machines.
        settings = {"max_wal_size": "256MB", **({"fsync": "off"} if durable else dict.fromkeys(_FAST, "off"))}
        self.postgres = EmbeddedPostgres(
            folder_in_memory(folder) / "postgres", free_port(), "superuser of a throw-away server", settings=settings
        )
        self._has_roles = False
        self._templates: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start the server, with the roles of every service."""
        self.postgres.start()
        if not self._has_roles:
            roles = [role for row in services().values() for role in (row.name, row.owner)]
            statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {};")
            self._administer(
                sql.Composed([statement.format(sql.Identifier(role), sql.Literal(role)) for role in roles])
            )
            self._has_roles = True

    def stop(self) -> None:
        """Stop the server."""
        self.postgres.stop()

    def kill(self) -> None:
        """End all its processes with SIGKILL."""
        self.postgres.kill()

    def create(self, *, template: str = "template0", owner: str = SUPERUSER) -> str:
        """Make a database and return its name."""
        name = f"test_{next(self._numbers)}"
        self._administer(
            # By files: the default writes every page to the log too, which takes twice the CPU.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy").format(
                *map(sql.Identifier, (name, template, owner))
            )
        )
        return name

    def drop(self, name: str) -> None:
        """Remove a database and end its connections."""
        self._administer(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server for the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """For the block none of its processes runs: the host takes what is sent to it, and nothing answers."""
        assert self.postgres.pid is not None
        server = psutil.Process(self.postgres.pid)
        # The server first, so that no child is born in between.
        server.suspend()
        processes = server.children(recursive=True)
        try:
            for process in processes:
                process.suspend()
            yield
        finally:
            for process in (server, *processes):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """For the block the server refuses every write, on existing and new connections."""
        with read_only(self.url("postgres")):
            yield

    def url(self, database: str, role: str | None = None) -> str:
        """A SQLAlchemy URL, for a role of a service, or else for the superuser."""
        return self.postgres.url(database) if role is None else self.postgres.url(database, role, role)

    def service_database(
        self, package: str, constraints: dict[str, type[AppError]] | None = None
    ) -> Iterator[ServiceDatabase]:
        """Yield a clone of the service's migrated template, and drop it afterwards."""
        service = next(row for row in services().values() if row.package == package)
        if package not in self._templates:
            template = self.create(owner=service.owner)
            # As deploy/postgres/databases.sql does.
            rights = sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {}")
            execute(self.url(template), rights.format(sql.Identifier(service.name)))
            migrations.upgrade(package, self.url(template, service.owner))
            self._templates[package] = template
        name = self.create(template=self._templates[package], owner=service.owner)
        url = self.url(name, service.name)
        database = Database(url, application_name="tests", pool_size=16, constraints=constraints)
        try:
            yield ServiceDatabase(url, database, self.url(name))
        finally:
            database.dispose()
            self.drop(name)

    def _administer(self, statement: sql.Composable) -> None:
        execute(self.url("postgres"), statement)


def execute(url: str, statement: str | sql.Composable) -> None:
    """Run a statement on a connection of its own, outside a transaction."""
    connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@contextmanager
def read_only(superuser_url: str) -> Iterator[None]:
    """For the block the server refuses every write, on existing and new connections."""
    connection = psycopg2.connect(superuser_url.replace("+psycopg2", "", 1))
    connection.autocommit = True

    def make(value: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            cursor.execute("SELECT pg_reload_conf()")

            def is_told() -> bool:
                cursor.execute("SHOW default_transaction_read_only")
                return cursor.fetchone() == (value,)

            eventually(is_told, what="the server has read its settings again")

    try:
        make("on")
        try:
            yield
        finally:
            make("off")
    finally:
        connection.close()
