"""What every gunicorn process of ours has in common.

Gunicorn reads settings as the names of a configuration module, hence the lower case.
"""

from __future__ import annotations

import signal
from typing import Any

from gunicorn.glogging import Logger

from servicekit.process.gunicorn_reload import keep_what_works
from servicekit.process.lifecycle import raise_file_limit

__all__ = [
    "accesslog",
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
    "preload_app",
    "timeout",
    "workers",
]


class PropagatingLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Hands gunicorn's own lines to the process's log configuration instead of printing them itself."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True


def on_starting(server: Any) -> None:
    """Let no wrong setting end a master that is told to reload."""
    keep_what_works(server)


def post_fork(server: Any, worker: Any) -> None:
    """Let no growing number of connections hold a process up that has threads by now."""
    raise_file_limit()


def post_worker_init(worker: Any) -> None:
    """Leave SIGHUP to the master: one that is sent to the whole group would end requests under way."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


workers = 1
preload_app = False
accesslog = None
logger_class = PropagatingLogger
# Above the gateway's own idle limit, so that it is never our side that closes a connection it reuses.
keepalive = 75
graceful_timeout = 30
# A worker whose main loop is stuck this long, in seconds, is replaced; requests end long before.
timeout = 60
# Its socket would lie outside the checkout and the data folder.
control_socket_disable = True
# A little more than the gateway lets in: what it adds to a request must not make a service refuse it.
limit_request_line = 8190
limit_request_fields = 150
limit_request_field_size = 16380
