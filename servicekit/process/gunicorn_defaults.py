"""Defaults of every gunicorn process.

gunicorn reads settings as the names of a configuration module, hence the lower case.
"""

from __future__ import annotations

import signal
from typing import Any

from gunicorn.glogging import Logger

from servicekit.process.gunicorn_reload import keep_what_works
from servicekit.process.lifecycle import grow_file_table, return_large_blocks
from servicekit.process.siblings import siblings

__all__ = [
    "accesslog",
    "child_exit",
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "limit_request_field_size",
    "limit_request_fields",
    "limit_request_line",
    "logger_class",
    "on_starting",
    "post_fork",
    "post_worker_init",
    "pre_fork",
    "preload_app",
    "timeout",
    "workers",
]


class PropagatingLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Passes gunicorn's log lines to the process's log configuration."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True


def on_starting(server: Any) -> None:
    """Keep a reload with a wrong setting from ending the master."""
    keep_what_works(server)


def pre_fork(server: Any, worker: Any) -> None:
    """Give a process its place among those that share memory."""
    if (shared := siblings()) is not None:
        shared.reserve(server, worker)


def post_fork(server: Any, worker: Any) -> None:
    """Set limits of files and memory before the first thread: later, growing the table of files stalls the process."""
    grow_file_table()
    return_large_blocks()
    if (shared := siblings()) is not None:
        shared.enter(worker)


def child_exit(server: Any, worker: Any) -> None:
    """Empty the place of a process that ended."""
    if (shared := siblings()) is not None:
        shared.leave(worker)


def post_worker_init(worker: Any) -> None:
    """Leave SIGHUP to the master: a worker would drop its requests when the whole process group gets one."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


workers = 1
preload_app = False
accesslog = None
logger_class = PropagatingLogger
# Above the gateway's own idle limit, so that a service never closes a connection that the gateway reuses.
keepalive = 75
graceful_timeout = 30
# A worker whose main loop hangs for this long, in seconds, is replaced; requests end long before.
timeout = 60
# Its socket would lie outside the checkout and the data folder.
control_socket_disable = True
# Slightly more than the gateway accepts: what it adds must not make a service refuse the request.
limit_request_line = 8190
limit_request_fields = 150
limit_request_field_size = 16380
