"""Detects that this process is out of files, ports or memory, which is not the fault of the service it called."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

from servicekit.observing.logs import get_logger

#: Seconds between log lines of one process.
LOG_SECONDS = 10.0

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM, errno.ENOBUFS})

_log = get_logger(__name__)
_lock = threading.Lock()
_logged_at = -LOG_SECONDS
_unlogged = 0


def is_shortage(error: BaseException | None) -> bool:
    """Whether the system refused because this process or its machine has run out of something."""
    if isinstance(error, socket.gaierror):
        # Its error numbers are its own, and a look-up that cannot open a file reports an unknown name.
        return error.errno == socket.EAI_MEMORY or _no_file_is_left()
    return isinstance(error, OSError) and error.errno in _ERRORS


def _no_file_is_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _ERRORS
    return False


def report(error: BaseException, *, at: str) -> None:
    """Log that something ran out `at` this; of all reports within ten seconds, only the first.

    `missed` in the line counts the reports not logged since the last one.
    """
    global _logged_at, _unlogged
    with _lock:
        now = time.monotonic()
        if now - _logged_at < LOG_SECONDS:
            _unlogged += 1
            return
        missed, _unlogged, _logged_at = _unlogged, 0, now
    _log.error("out_of_resources", at=at, cause=str(error), missed=missed)
