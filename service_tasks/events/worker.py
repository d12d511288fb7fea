"""gunicorn's `asgi` worker, which waits for open requests to end, and streams never would by themselves."""

from __future__ import annotations

import functools

from gunicorn.workers import gasgi


class EventsWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker named in gunicorn.conf.py."""

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        # asyncio listens anew, with room for a hundred connections, whatever gunicorn's `backlog` says; of a thousand
        # that come at once the others would wait a second for their next try.
        self.loop.create_server = functools.partial(self.loop.create_server, backlog=self.cfg.backlog)

    async def _shutdown(self) -> None:
        self.asgi.end_streams()
        await super()._shutdown()
