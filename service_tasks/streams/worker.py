"""gunicorn's `asgi` worker, which waits for open requests to end, and streams never would by themselves."""

from __future__ import annotations

from servicekit.http_server.asgi_worker import AcceptingWorker


class EventsWorker(AcceptingWorker):
    """The worker named in gunicorn.conf.py."""

    async def _shutdown(self) -> None:
        self.asgi.end_streams()
        await super()._shutdown()
