"""Defaults of every event-loop server's gunicorn.conf.py, on top of those of every gunicorn process."""

from __future__ import annotations

import gc
from typing import Any

from servicekit.observing.metrics import remove_counts
from servicekit.process import gunicorn_defaults
from servicekit.process.gunicorn_defaults import *  # noqa: F403 - gunicorn reads a module's names

__all__ = [
    "asgi_disconnect_grace_period",
    "asgi_lifespan",
    "backlog",
    "forwarded_allow_ips",
    "http_parser",
    "on_exit",
    "worker_class",
]
__all__ += gunicorn_defaults.__all__

worker_class = "servicekit.http_server.event_loop_worker.EventLoopWorker"
asgi_lifespan = "on"
# The strict one: the fast parser accepts folded header lines and a bare LF.
http_parser = "python"
# The application decides which forwarded fields to trust.
forwarded_allow_ips = ""
# A client that leaves frees its resources at once.
asgi_disconnect_grace_period = 0
backlog = 2048


def on_exit(server: Any) -> None:
    """Remove the metrics files, and end without a search of all modules for garbage (0.2 s)."""
    remove_counts()
    gc.freeze()
