"""Files, ports or memory have run out in this process: not the fault of the service that was called."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

from servicekit.observing.logs import get_logger

#: Seconds between two log lines of one process.
LOG_SECONDS = 10.0

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM, errno.ENOBUFS})

_log = get_logger(__name__)
_lock = threading.Lock()
_logged_at = -LOG_SECONDS
_unlogged = 0


def is_shortage(error: BaseException | None) -> bool:
    """Whether the system refused because this process or its machine has run out of something."""
    if isinstance(error, socket.gaierror):
        # It has numbers of its own, and a look-up that cannot open a file says that there is no such name.
        return error.errno == socket.EAI_MEMORY or _no_file_is_left()
    return isinstance(error, OSError) and error.errno in _ERRORS


def _no_file_is_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _ERRORS
    return False


def report(error: BaseException, *, at: str) -> None:
    """Log that something had run out `at` this; of all that is reported within ten seconds, the first.

    `missed` in the line counts what was not logged since the last one.
    """
    global _logged_at, _unlogged
    with _lock:
        now = time.monotonic()
        if now - _logged_at < LOG_SECONDS:
            _unlogged += 1
            return
        missed, _unlogged, _logged_at = _unlogged, 0, now
    _log.error("out_of_resources", at=at, cause=str(error), missed=missed)
