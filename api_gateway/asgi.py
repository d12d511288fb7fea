"""What gunicorn loads: `gunicorn -c api_gateway/gunicorn.conf.py api_gateway.asgi:app`."""

from __future__ import annotations

from api_gateway.app import create_app
from api_gateway.settings import GatewaySettings
from servicekit.observing import logs
from servicekit.process.settings import loaded_or_exit

_settings = loaded_or_exit(GatewaySettings, "api_gateway")
logs.configure("api_gateway", fmt=_settings.log_format, level=_settings.log_level)
app = create_app(_settings)
