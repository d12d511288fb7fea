"""gunicorn's `asgi` worker, which takes many new connections at once, and leaves them waiting while files run out."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from gunicorn.workers import gasgi

from servicekit.observing import shortage
from servicekit.observing.logs import get_logger

#: New connections taken in one turn of the event loop. libuv takes one: of a thousand clients that come at once while
#: the first ones are served already, the last would wait for seconds. Few enough that several processes share them.
ACCEPTED_AT_ONCE = 16
#: Seconds until the next try when nothing is left to accept a connection with; it waits in the kernel's queue.
SHORTAGE_SECONDS = 0.1

log = get_logger(__name__)


class AcceptingWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Accepts by itself. With too many open files libuv would close each new connection without a word, and asyncio
    writes thousands of log lines a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listeners: list[socket.socket] = []
        self.joining: set[asyncio.Task[Any]] = set()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        if not self.cfg.is_ssl:
            create_server = self.loop.create_server

            async def create_idle_server(*args: Any, **options: Any) -> asyncio.Server:
                server: asyncio.Server = await create_server(*args, **{**options, "start_serving": False})
                return server

            self.loop.create_server = create_idle_server

    def notify(self) -> None:
        # The first call comes as soon as the servers are there.
        if not self.listeners and self.alive and not self.cfg.is_ssl:
            self._start_accepting()
        super().notify()

    async def _shutdown(self) -> None:
        self._stop_accepting()
        await super()._shutdown()

    def _start_accepting(self) -> None:
        for given in self.sockets:
            # Beside the event loop's own server, which needs the other descriptor for itself.
            listener = given.sock.dup()
            listener.setblocking(False)
            self.listeners.append(listener)
            self.loop.add_reader(listener, self._accept, listener)

    def _stop_accepting(self) -> None:
        while self.listeners:
            listener = self.listeners.pop()
            self.loop.remove_reader(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if shortage.is_shortage(error):
                    shortage.report(error, at="accept")
                    # It would be called again at once.
                    self.loop.remove_reader(listener)
                    self.loop.call_later(SHORTAGE_SECONDS, self._accept_again, listener)
                # Else nobody is there any more, or the client is gone again.
                return
            connection.setblocking(False)
            joining = self.loop.create_task(
                self.loop.connect_accepted_socket(lambda: gasgi.ASGIProtocol(self), connection)
            )
            self.joining.add(joining)
            joining.add_done_callback(self._joined)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self.listeners:
            self.loop.add_reader(listener, self._accept, listener)

    def _joined(self, joining: asyncio.Task[Any]) -> None:
        self.joining.discard(joining)
        if not joining.cancelled() and joining.exception() is not None:
            log.warning("connection_lost_at_the_door", cause=repr(joining.exception()))
