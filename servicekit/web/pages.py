"""Serves /livez, /readyz and /metrics on threads, for a process that is not a web server."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from servicekit.observing.metrics import Metrics
from servicekit.web.app import make_app
from servicekit.web.health import Check
from servicekit.wire.browsers import BrowserRules


class _QuietHandler(WSGIRequestHandler):
    """Serves one request at a time per connection, with a time limit, and does not log."""

    timeout = 10

    def log(self, type: str, message: str, *args: object) -> None:
        """Leave logging to the application."""


def serve_pages(
    process: str, bind: str, checks: Mapping[str, Check], metrics: Metrics, *, allowed_hosts: str = ""
) -> BaseWSGIServer:
    """Start serving on HOST:PORT, until `shutdown`. Raises SystemExit with one clear line when it cannot listen."""
    host, _, port = bind.rpartition(":")
    app = make_app(process, routes=[], checks=checks, metrics=metrics, browsers=BrowserRules(allowed_hosts, bind))
    try:
        server = make_server(host, int(port), app, threaded=True, request_handler=_QuietHandler)
    except (OSError, SystemExit) as exc:  # Werkzeug itself exits when the port is taken
        reason = exc.strerror if isinstance(exc, OSError) else "it is taken"
        raise SystemExit(f"{process} cannot start: it cannot listen on {bind}: {reason}") from exc
    threading.Thread(target=server.serve_forever, name="pages", daemon=True).start()
    return server
