"""gunicorn's configuration for the gateway: one event loop per process, circuits shared by all processes."""

from __future__ import annotations

from typing import Any

from api_gateway import shared_quotas
from servicekit.circuits import CircuitSettings, shared_state
from servicekit.http_server.event_loop_defaults import *  # noqa: F403 - gunicorn reads a module's names
from servicekit.observing import logs
from servicekit.observing.metrics import share_counts
from servicekit.process.gunicorn_reload import keep_what_works
from servicekit.process.lifecycle import allow_many_files
from servicekit.process.services import BadServiceTable
from servicekit.process.settings import load_or_exit
from servicekit.process.siblings import prepare_siblings

try:
    # Its fields derive from the table of services.
    from api_gateway.settings import GatewaySettings
except BadServiceTable as error:
    raise SystemExit(f"api_gateway cannot start: {error}") from None

_settings = load_or_exit(GatewaySettings, "api_gateway")
logs.configure("api_gateway", fmt=_settings.log_format, level=_settings.log_level)
# Two for each request in flight, and thousands of event streams.
allow_many_files()

bind = _settings.gateway_bind
workers = _settings.gateway_processes
proc_name = "api_gateway"
asgi_loop = "uvloop"
# Less than the services accept (servicekit/process/gunicorn_defaults.py), so that the gateway is the one to refuse.
limit_request_line = 8000
limit_request_fields = 100
limit_request_field_size = 8190


def on_starting(server: Any) -> None:
    """Create what the processes share, before the first fork."""
    keep_what_works(server)
    # Once: after a reload, the new processes find the circuits as the old ones leave them.
    shared_state.prepare_circuits("api_gateway", list(_settings.upstream_urls()), CircuitSettings())
    on_reload(server)


def on_reload(server: Any) -> None:
    """Share quotas and metrics between processes; a single one needs no sharing."""
    if workers > 1 and _settings.quota() is not None:
        shared_quotas.prepare_quotas()
    if workers > 1:
        prepare_siblings()
        share_counts()
