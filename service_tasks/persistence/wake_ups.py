"""Receives announcements of other processes by LISTEN."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

import psycopg2

from service_tasks.persistence.dedicated_connections import open_apart
from servicekit.database.engine import Database
from servicekit.wire.errors import DatabaseUnavailable


class PostgresWakeUps:
    """LISTEN on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._connection = open_apart(database, "LISTEN siteworks_tasks")
        self._interrupt, self._interrupted = socket.socketpair()
        # Not select(): a worker with many open connections has descriptors beyond its limit.
        self._poll = select.poll()
        for item in (self._connection, self._interrupted):
            self._poll.register(item.fileno(), select.POLLIN)

    def wait(self, seconds: float) -> list[str]:
        try:
            if not self._poll.poll(seconds * 1000):
                return []
            self._connection.poll()
        except (psycopg2.Error, OSError, ValueError) as exc:
            raise DatabaseUnavailable(retry_after=1) from exc
        notices = [notice.payload for notice in self._connection.notifies]
        self._connection.notifies.clear()
        return notices

    def interrupt(self) -> None:
        with suppress(OSError):
            self._interrupt.send(b"!")

    def probe(self) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as exc:
            raise DatabaseUnavailable(retry_after=1) from exc

    def close(self) -> None:
        with suppress(psycopg2.Error):
            self._connection.close()
        self._interrupt.close()
        self._interrupted.close()
