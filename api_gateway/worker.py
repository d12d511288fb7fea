"""gunicorn's `asgi` worker with connections of our own; idle ones are closed at once when it is told to stop,
and it hears that before its event loop runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

from gunicorn.workers import gasgi

from api_gateway.connection import GatewayProtocol
from servicekit.http_server.asgi_worker import AcceptingWorker

#: A new connection on which nothing was said is closed this long, in seconds, after the worker was told to stop: its
#: request may be on the way.
FRESH_SECONDS = 1.0


class GatewayWorker(AcceptingWorker):
    """The worker named in gunicorn.conf.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[GatewayProtocol] = set()

    def init_process(self) -> None:
        # The worker's serving loop names this class itself; the change is seen by this process alone.
        gasgi.ASGIProtocol = GatewayProtocol
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        # The event loop hears of signals while it runs, which is not yet: one that comes before would be lost, and the
        # process go on until the master loses its patience.
        for number, handle in self._endings():
            self.loop.remove_signal_handler(number)
            signal.signal(number, lambda *_, handle=handle: handle())

    async def _serve(self) -> None:
        for number, handle in self._endings():
            self.loop.add_signal_handler(number, handle)
        await super()._serve()

    def _endings(self) -> tuple[tuple[signal.Signals, Callable[[], None]], ...]:
        return (
            (signal.SIGTERM, self.handle_exit_signal),
            (signal.SIGINT, self.handle_quit_signal),
            (signal.SIGQUIT, self.handle_quit_signal),
        )

    async def _shutdown(self) -> None:
        # It is true still when the master is gone, and connections are kept while it is: whoever uses theirs without a
        # pause would keep this process, and be answered by it, until the grace time ends.
        self.alive = False
        self._stop_accepting()
        await self._take_waiting()
        self.asgi.end_streams()
        self._close_idle(fresh=False)
        self.loop.call_later(FRESH_SECONDS, lambda: self._close_idle(fresh=True))
        await super()._shutdown()

    async def _take_waiting(self) -> None:
        """Accept the connections that wait to be: the last process that closes the port would reset them."""
        while True:
            waiting = []
            for listener in self.sockets:
                with contextlib.suppress(OSError):  # nobody waits there
                    while True:
                        waiting.append(listener.accept()[0])
            if not waiting:
                # At once, for whoever comes in between is lost.
                for server in self.servers:
                    server.close()
                return
            for accepted in waiting:
                accepted.setblocking(False)
                with contextlib.suppress(OSError):  # it has left already
                    await self.loop.connect_accepted_socket(lambda: GatewayProtocol(self), accepted)

    def _close_idle(self, *, fresh: bool) -> None:
        for connection in list(self.connections):
            connection.close_if_idle(fresh=fresh)
