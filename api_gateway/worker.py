"""gunicorn's own `asgi` worker with connections of our own; idle ones are closed at once when it is told to stop."""

from __future__ import annotations

import functools
from typing import Any

from gunicorn.workers import gasgi

from api_gateway.connection import GatewayProtocol

#: A new connection on which nothing was said is closed this long, in seconds, after the worker was told to stop: its
#: request may be on the way.
FRESH_SECONDS = 1.0


class GatewayWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker named in gunicorn.conf.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[GatewayProtocol] = set()

    def init_process(self) -> None:
        # The worker's serving loop names this class itself; the change is seen by this process alone.
        gasgi.ASGIProtocol = GatewayProtocol
        super().init_process()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        # Event loops listen anew, with room for a hundred connections, whatever gunicorn's `backlog` says; of a
        # thousand that come at once the others would wait a second for their next try.
        self.loop.create_server = functools.partial(self.loop.create_server, backlog=self.cfg.backlog)

    async def _shutdown(self) -> None:
        self.asgi.end_streams()
        self._close_idle(fresh=False)
        self.loop.call_later(FRESH_SECONDS, lambda: self._close_idle(fresh=True))
        await super()._shutdown()

    def _close_idle(self, *, fresh: bool) -> None:
        for connection in list(self.connections):
            connection.close_if_idle(fresh=fresh)
