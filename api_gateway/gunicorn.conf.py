"""How gunicorn runs the gateway: one process, one event loop."""

from __future__ import annotations

from api_gateway.settings import GatewaySettings
from servicekit import logs
from servicekit.gunicorn_defaults import *  # noqa: F403  # gunicorn takes its settings from this module's names
from servicekit.settings import load_or_exit

_settings = load_or_exit(GatewaySettings, "api_gateway")
logs.configure("api_gateway", fmt=_settings.log_format, level=_settings.log_level)

bind = _settings.gateway_bind
proc_name = "api_gateway"
worker_class = "api_gateway.worker.GatewayWorker"
asgi_loop = "uvloop"
asgi_lifespan = "on"
# The strict one: the fast parser takes folded header lines and a bare LF.
http_parser = "python"
# Forwarded fields are judged by our own rules (TRUSTED_PROXIES), never by gunicorn.
forwarded_allow_ips = ""
# Less than the services take (servicekit/gunicorn_defaults.py), so that a refusal is always ours.
limit_request_line = 8000
limit_request_fields = 100
limit_request_field_size = 8190
worker_connections = 10000
# A client that leaves frees its place at the upstream at once.
asgi_disconnect_grace_period = 0
backlog = 2048
