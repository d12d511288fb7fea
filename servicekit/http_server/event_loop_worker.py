"""gunicorn's `asgi` worker with our own connections.

It accepts many connections at once, and leaves them queued while no file descriptor is left. Told to stop, even before
its event loop runs, it answers clients already connected, ends streams, and closes idle connections at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from gunicorn.asgi import protocol
from gunicorn.workers import gasgi

from servicekit.http_server.application import handler_of, tls_of
from servicekit.http_server.connection import HEAD_SECONDS, SILENT_SECONDS, HttpConnection, PlainConnection, date_line
from servicekit.http_server.tls import LOOK_SECONDS, ServerTls
from servicekit.observing import shortage
from servicekit.observing.logs import get_logger
from servicekit.process.lifecycle import freeze_heap
from servicekit.process.siblings import TAKES_NONE, siblings

#: New connections accepted per iteration of the event loop. libuv takes one: of a thousand simultaneous clients, the
#: last would wait for seconds while the first are already being served. Few enough to share them between processes.
ACCEPTED_AT_ONCE = 16
#: How long a process leaves new connections to others that have fewer, in seconds; then it takes one itself. Until they
#: did nothing for so many times, they may just be late on a busy machine, and it waits again.
OTHERS_FIRST_SECONDS = 0.001
OTHERS_FIRST_TIMES = 32
#: Seconds until the next try when nothing is left to accept a connection with; it waits in the kernel's queue.
ACCEPT_AGAIN_SECONDS = 0.1
#: The first byte of a TLS connection (RFC 8446 section 5.1: a handshake record).
_HANDSHAKE = b"\x16"
#: How long a new connection without a request survives the order to stop, in seconds: the request may be on its way.
FIRST_REQUEST_SECONDS = 1.0

_log = get_logger(__name__)


class EventLoopWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn ships no types
    """The worker class for gunicorn.conf.py. Runs an `Application`, or any ASGI application.

    It accepts connections itself: out of file descriptors, libuv would silently close each new connection, and asyncio
    would write thousands of log lines a second.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[HttpConnection] = set()
        self.listeners: list[socket.socket] = []
        self.joining: set[asyncio.Task[Any]] = set()
        self.serving: asyncio.Task[Any] | None = None
        #: How many connections it may have before others get theirs, and how often it has waited since that changed.
        self.allowed = self.waited = 0

    def init_process(self) -> None:
        # gunicorn names these itself; only this process sees the change.
        gasgi.ASGIProtocol = HttpConnection
        protocol._get_cached_date_header = date_line
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Requests create few cycles: collect far less often than every 700 objects, the default.
        freeze_heap()
        gc.set_threshold(20_000, 20, 20)

    def init_signals(self) -> None:
        super().init_signals()
        # The event loop handles signals only while it runs: an earlier one would be lost, and the process would go on
        # until the master kills it.
        for number, handle in self._endings():
            self.loop.remove_signal_handler(number)
            signal.signal(number, lambda *_, handle=handle: handle())

    async def _serve(self) -> None:
        self.serving = asyncio.current_task()
        for number, handle in self._endings():
            self.loop.add_signal_handler(number, handle)
        await super()._serve()

    def _endings(self) -> tuple[tuple[signal.Signals, Callable[[], None]], ...]:
        return (
            (signal.SIGTERM, self.handle_exit_signal),
            (signal.SIGINT, self.handle_quit_signal),
            (signal.SIGQUIT, self.handle_quit_signal),
        )

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self._end_pause()

    def handle_quit_signal(self) -> None:
        super().handle_quit_signal()
        self._end_pause()

    def _end_pause(self) -> None:
        """End the pause of a second between two heartbeats, in which gunicorn hears of no order to stop."""
        # It accepts connections from the first heartbeat on, and no more once it shuts down.
        if self.serving is not None and self.listeners:
            self.serving.cancel()

    # Accepting.

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        if not self.cfg.is_ssl:
            create_server = self.loop.create_server

            async def create_idle_server(*args: Any, **options: Any) -> asyncio.Server:
                server: asyncio.Server = await create_server(*args, **{**options, "start_serving": False})
                return server

            self.loop.create_server = create_idle_server

    def notify(self) -> None:
        # gunicorn first calls this once its servers exist.
        if not self.listeners and self.alive and not self.cfg.is_ssl:
            self._start_accepting()
        super().notify()

    def left(self, connection: HttpConnection) -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        self._tell()

    def _tell(self) -> None:
        if (shared := siblings()) is not None and shared.place is not None:
            shared.tell(len(self.connections) + len(self.joining) if self.listeners else TAKES_NONE)

    def _start_accepting(self) -> None:
        tls = tls_of(self.asgi)
        if tls is not None:
            self._look_at_certificate(tls)
        for given in self.sockets:
            # A duplicate, because the event loop's own server needs the other descriptor for itself.
            listener = given.sock.dup()
            listener.setblocking(False)
            self.listeners.append(listener)
            self.loop.add_reader(listener, self._accept, listener)
        self._tell()

    def _stop_accepting(self) -> None:
        while self.listeners:
            listener = self.listeners.pop()
            self.loop.remove_reader(listener)
            listener.close()
        self._tell()

    def _accept(self, listener: socket.socket) -> None:
        shared = siblings()
        if shared is None or shared.place is None:
            self._take(listener, ACCEPTED_AT_ONCE)
            return
        connections = len(self.connections) + len(self.joining)
        room = shared.room(connections)
        if self.allowed != room + connections:
            self.allowed, self.waited = room + connections, 0
        if room > 0:
            self._take(listener, min(room, ACCEPTED_AT_ONCE))
        elif self.waited < OTHERS_FIRST_TIMES:
            # All processes were woken, and the first would take them all.
            self.waited += 1
            self.loop.remove_reader(listener)
            self.loop.call_later(OTHERS_FIRST_SECONDS, self._accept_again, listener)
        else:
            self.waited -= 1
            self._take(listener, 1)

    def _take(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                accepted, _ = listener.accept()
            except OSError as error:
                if shortage.is_shortage(error):
                    shortage.report(error, at="accept")
                    # Otherwise it would be called again at once.
                    self.loop.remove_reader(listener)
                    self.loop.call_later(ACCEPT_AGAIN_SECONDS, self._accept_again, listener)
                # Otherwise nothing is queued any more, or the client has left.
                return
            self._join(accepted)

    def _join(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        joining = self.loop.create_task(self._connected(accepted))
        self.joining.add(joining)
        joining.add_done_callback(self._joined)

    def _connected(self, accepted: socket.socket) -> Coroutine[Any, Any, Any]:
        tls = tls_of(self.asgi)
        if tls is not None:
            return self._connected_by_tls(accepted, tls)
        connected: Coroutine[Any, Any, Any] = self.loop.connect_accepted_socket(lambda: HttpConnection(self), accepted)
        return connected

    async def _connected_by_tls(self, accepted: socket.socket, tls: ServerTls) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                if await self._first_byte(accepted) != _HANDSHAKE:
                    await self.loop.connect_accepted_socket(lambda: PlainConnection(self), accepted)
                else:
                    await self.loop.connect_accepted_socket(
                        lambda: HttpConnection(self),
                        accepted,
                        ssl=tls.context,
                        ssl_handshake_timeout=HEAD_SECONDS,
                        ssl_shutdown_timeout=SILENT_SECONDS,
                    )
        except OSError as error:
            # Too late, no common version, a certificate that the client does not trust: its own affair.
            _log.info("handshake_failed", cause=repr(error))

    async def _first_byte(self, accepted: socket.socket) -> bytes:
        """Wait for the first byte, and leave it to be received; empty if the client says nothing more."""
        arrived = asyncio.Event()
        self.loop.add_reader(accepted, arrived.set)
        try:
            await arrived.wait()
            self.loop.remove_reader(accepted)
            return accepted.recv(1, socket.MSG_PEEK)
        except BaseException:
            self.loop.remove_reader(accepted)
            accepted.close()
            raise

    def _look_at_certificate(self, tls: ServerTls) -> None:
        tls.look()
        self.loop.call_later(LOOK_SECONDS, self._look_at_certificate, tls)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self.listeners:
            self.loop.add_reader(listener, self._accept, listener)

    def _joined(self, joining: asyncio.Task[Any]) -> None:
        self.joining.discard(joining)
        self._tell()
        if not joining.cancelled() and joining.exception() is not None:
            _log.warning("connection_lost_on_accept", cause=repr(joining.exception()))

    # Stopping.

    async def _shutdown(self) -> None:
        # Still true when the master is gone, and connections are kept alive while it is: a busy client would keep this
        # process until the grace time ends.
        self.alive = False
        self._stop_accepting()
        await self._take_waiting()
        # A TLS handshake may be under way.
        await self._let_join()
        handler = handler_of(self.asgi)
        if handler is not None:
            handler.end_streams()
        self._close_idle(fresh=False)
        self.loop.call_later(FIRST_REQUEST_SECONDS, lambda: self._close_idle(fresh=True))
        await super()._shutdown()

    async def _take_waiting(self) -> None:
        """Accept queued connections: the last process to close the port would reset them."""
        while True:
            waiting = []
            for listener in self.sockets:
                with contextlib.suppress(OSError):  # the queue is empty
                    while True:
                        waiting.append(listener.accept()[0])
            if not waiting:
                # At once: a client that connects in between is lost.
                for server in self.servers:
                    server.close()
                return
            for accepted in waiting:
                self._join(accepted)
            await self._let_join()

    async def _let_join(self) -> None:
        if self.joining:
            await asyncio.wait(self.joining, timeout=FIRST_REQUEST_SECONDS)

    def _close_idle(self, *, fresh: bool) -> None:
        for connection in list(self.connections):
            connection.close_if_idle(fresh=fresh)
