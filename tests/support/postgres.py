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

from scripts.instance.postgres import EmbeddedPostgres
from servicekit.database import migrations
from servicekit.database.engine import Database
from servicekit.wire.errors import AppError
from tests.support.ports import free_port
from tests.support.waiting import eventually


@dataclass(frozen=True)
class ServiceDatabase:
    """One test's own database of one service."""

    url: str
    database: Database


_FAST = ("fsync", "synchronous_commit", "full_page_writes")


class TestServer:
    """The server and its templates."""

    __test__ = False

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """A `durable` server keeps every commit when it is killed; otherwise it is faster."""
        # Even then without fsync: the tests kill processes, not machines.
        settings = {"fsync": "off"} if durable else dict.fromkeys(_FAST, "off")
        self.postgres = EmbeddedPostgres(
            folder / "postgres", free_port(), "superuser of a throw-away server", settings=settings
        )
        self._templates: set[str] = set()
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start the server."""
        self.postgres.start()

    def stop(self) -> None:
        """Stop the server."""
        self.postgres.stop()

    def kill(self) -> None:
        """End all its processes with SIGKILL."""
        self.postgres.kill()

    def create(self, *, template: str | None = None) -> str:
        """Make a database and return its name."""
        name = f"test_{next(self._numbers)}"
        self._administer(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
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

    def url(self, database: str) -> str:
        """A SQLAlchemy URL."""
        return self.postgres.url(database)

    def service_database(
        self, package: str, constraints: dict[str, type[AppError]] | None = None
    ) -> Iterator[ServiceDatabase]:
        """Yield a clone of the service's migrated template, and drop it afterwards."""
        template = f"{package}_template"
        if template not in self._templates:
            self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            migrations.upgrade(package, self.url(template))
            self._templates.add(template)
        name = self.create(template=template)
        database = Database(self.url(name), application_name="tests", pool_size=16, constraints=constraints)
        try:
            yield ServiceDatabase(self.url(name), database)
        finally:
            database.dispose()
            self.drop(name)

    def _administer(self, statement: sql.Composable) -> None:
        connection = psycopg2.connect(self.url("postgres").replace("+psycopg2", "", 1))
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
