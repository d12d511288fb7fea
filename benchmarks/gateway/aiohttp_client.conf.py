"""gunicorn's configuration of the gateway, with aiohttp's client instead of its own.

AIOHTTP_FROM names the folder that has aiohttp, where the gateway's own environment has not.
"""

import os
import sys
from pathlib import Path

exec((Path(__file__).resolve().parents[2] / "api_gateway" / "gunicorn.conf.py").read_text())


def post_fork(server, worker):
    """Put the other client in, before the gateway is made."""
    sys.path.append(os.environ.get("AIOHTTP_FROM", ""))
    from api_gateway import app
    from benchmarks.gateway.aiohttp_client import AiohttpUpstream
    from servicekit.process.lifecycle import raise_file_limit

    app.Upstream = AiohttpUpstream
    raise_file_limit()
