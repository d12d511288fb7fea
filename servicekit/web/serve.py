"""Runs a service of the table under gunicorn, with its own settings: `python -m servicekit.web.serve users`.

The master reads only the settings. Workers import the service, so that a reload (SIGHUP) takes its new code too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from servicekit.database import engine as database  # noqa: F401 - libraries read before the fork: a dead worker is soon replaced
from servicekit.http_server import event_loop_defaults
from servicekit.http_server.wsgi import WsgiServer
from servicekit.observing import logs
from servicekit.observing.metrics import share_counts
from servicekit.process.lifecycle import allow_many_files
from servicekit.process.services import BadServiceTable, Service, services
from servicekit.process.settings import SettingsError, WebServiceSettings, load_or_exit, loaded_or_exit, settings_of
from servicekit.process.siblings import prepare_siblings, siblings
from servicekit.web import app as web  # noqa: F401 - libraries read before the fork: a dead worker is soon replaced


class ServiceServer(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's view of one service; any failure to start is one line."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings_class = settings_of(service)
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn; the master does so at start and at every reload."""
        settings = self._settings(load_or_exit)
        own = {
            "bind": getattr(settings, f"{self._service.name}_bind"),
            "proc_name": self._service.package,
            "workers": settings.service_processes,
            "on_starting": self._on_starting,
            "on_reload": self._on_reload,
        }
        for name in event_loop_defaults.__all__:
            self.cfg.set(name, getattr(event_loop_defaults, name))
        for name, value in own.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Create the application, in a worker."""
        settings = self._settings(loaded_or_exit)
        try:
            app = self._service.module("app").create_app(settings)
            if (shared := siblings()) is not None and shared.place is not None:
                app.join(shared)
            return WsgiServer(app, threads=settings.service_threads)
        except SettingsError as exc:
            raise SystemExit(f"{self._service.package} cannot start: {exc}") from exc

    def _on_starting(self, server: Any) -> None:
        event_loop_defaults.on_starting(server)
        self._on_reload(server)

    def _on_reload(self, server: Any) -> None:
        """Create what processes share, before they are forked; a single one needs no sharing."""
        if server.cfg.workers > 1:
            prepare_siblings()
            share_counts()
            if self._settings_class.calls:
                # A service that calls no other need not load it.
                from servicekit.circuits import CircuitSettings, shared_state

                shared_state.prepare_circuits(self._service.package, self._settings_class.calls, CircuitSettings())

    def _settings(self, read: Callable[[type[WebServiceSettings], str], WebServiceSettings]) -> WebServiceSettings:
        settings = read(self._settings_class, self._service.package)
        logs.configure(self._service.package, fmt=settings.log_format, level=settings.log_level)
        return settings


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    try:
        known = services()
        parser = argparse.ArgumentParser(
            prog="python -m servicekit.web.serve", description="Serve one service of services.toml, until SIGTERM."
        )
        parser.add_argument("service", choices=list(known), metavar="SERVICE", help=", ".join(known))
        service = known[parser.parse_args(arguments).service]
        server = ServiceServer(service)
    except BadServiceTable as exc:
        sys.exit(str(exc))
    allow_many_files()
    server.run()


if __name__ == "__main__":
    main()
