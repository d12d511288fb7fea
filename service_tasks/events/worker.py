"""gunicorn's `asgi` worker, which waits for open requests to end, and streams never would by themselves."""

from __future__ import annotations

from gunicorn.workers import gasgi


class EventsWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker named in gunicorn.conf.py."""

    async def _shutdown(self) -> None:
        self.asgi.end_streams()
        await super()._shutdown()
