"""Ends connections to a server that has fallen silent.

PostgreSQL limits a statement itself, and the kernel notices a host that vanished. Neither helps where the server's
process is stopped or starved: its host still acknowledges what is sent, and the driver would wait forever.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg2

from servicekit.observing.logs import get_logger

#: How much later than a statement's own time limit an answer may come, in seconds.
GRACE_SECONDS = 1.0
_LOOK_SECONDS = 0.25

_log = get_logger(__name__)


class Watchdog:
    """Shuts the socket of each connection whose answer is overdue; its user gets the error of a lost connection.

    Thread-safe. Its thread starts with the first connection, and sleeps while nothing is awaited.
    """

    def __init__(self) -> None:
        #: When each answer is overdue, on the monotonic clock.
        self._overdue: dict[Any, float] = {}
        self._is_looking = threading.Lock()
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, connection: Any, seconds: float) -> None:
        """From now on the server must answer on this connection within so many seconds, and the grace."""
        self._overdue[connection] = time.monotonic() + seconds + GRACE_SECONDS
        if not self._is_needed.is_set():
            self._is_needed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="database watchdog", daemon=True)
                self._thread.start()

    def answered(self, connection: Any) -> None:
        """Nothing is awaited on this connection any more; it may be closed."""
        if self._overdue.pop(connection, None) is None:
            # Perhaps it is being shut: its descriptor must not pass to another connection meanwhile.
            with self._is_looking:
                pass

    def _run(self) -> None:
        while True:
            self._is_needed.wait()
            time.sleep(_LOOK_SECONDS)
            if not self._overdue:
                # In this order: whoever expects an answer after the look sets it again.
                self._is_needed.clear()
                if self._overdue:
                    self._is_needed.set()
                continue
            with self._is_looking:
                now = time.monotonic()
                for connection, limit in self._overdue.copy().items():
                    if limit <= now and self._overdue.pop(connection, None) is not None:
                        _shut(connection)


def _shut(connection: Any) -> None:
    with (
        suppress(OSError, psycopg2.Error),  # it has ended by itself
        socket.socket(fileno=os.dup(connection.fileno())) as way,
    ):
        way.shutdown(socket.SHUT_RDWR)
        _log.warning("database_silent")
