"""gunicorn's own `asgi` worker with connections of our own; idle ones are closed at once when it is told to stop,
and it hears that before its event loop runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.workers import gasgi

from api_gateway.connection import GatewayProtocol
from servicekit.logs import get_logger

#: A new connection on which nothing was said is closed this long, in seconds, after the worker was told to stop: its
#: request may be on the way.
FRESH_SECONDS = 1.0
#: New connections taken in one turn of the event loop. libuv takes one: of a thousand clients that come at once while
#: the first ones are served already, the last would wait for seconds. Few enough that several processes share them.
ACCEPTED_AT_ONCE = 16

log = get_logger(__name__)


class GatewayWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker named in gunicorn.conf.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[GatewayProtocol] = set()
        self.doors: list[socket.socket] = []
        self.joining: set[asyncio.Task[Any]] = set()

    def init_process(self) -> None:
        # The worker's serving loop names this class itself; the change is seen by this process alone.
        gasgi.ASGIProtocol = GatewayProtocol
        super().init_process()

    def notify(self) -> None:
        # The first call comes as soon as the servers are there.
        if not self.doors and self.alive and not self.cfg.is_ssl:
            self._open_doors()
        super().notify()

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
        self._close_doors()
        await self._take_waiting()
        self.asgi.end_streams()
        self._close_idle(fresh=False)
        self.loop.call_later(FRESH_SECONDS, lambda: self._close_idle(fresh=True))
        await super()._shutdown()

    def _open_doors(self) -> None:
        for listener in self.sockets:
            # asyncio made it listen with a backlog of its own, 100.
            listener.sock.listen(self.cfg.backlog)
            # Beside the event loop's own server, which needs the other descriptor for itself.
            door = listener.sock.dup()
            door.setblocking(False)
            self.doors.append(door)
            self.loop.add_reader(door, self._accept, door)

    def _close_doors(self) -> None:
        while self.doors:
            door = self.doors.pop()
            self.loop.remove_reader(door)
            door.close()

    def _accept(self, door: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = door.accept()
            except OSError:
                # Nobody else is there, or the client is gone again, or too many files are open: the server that
                # the event loop has for this socket meets the same and says so.
                return
            connection.setblocking(False)
            joining = self.loop.create_task(
                self.loop.connect_accepted_socket(lambda: GatewayProtocol(self), connection)
            )
            self.joining.add(joining)
            joining.add_done_callback(self._joined)

    def _joined(self, joining: asyncio.Task[Any]) -> None:
        self.joining.discard(joining)
        if not joining.cancelled() and joining.exception() is not None:
            log.warning("connection_lost_at_the_door", cause=repr(joining.exception()))

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
