"""gunicorn's threaded worker, except that it survives running out of files, never blocks on a client that does not hang
up, and frees its port at once when it stops."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any
from urllib.parse import urlsplit

from gunicorn.http.body import ChunkedReader
from gunicorn.workers.gthread import ThreadWorker

from servicekit.observing import shortage
from servicekit.process.lifecycle import freeze_heap, reset_signals_in_children

#: Seconds until the next try when nothing is left to accept a connection with; it waits in the kernel's queue.
_SHORTAGE_SECONDS = 0.05
#: How long a client has to hang up after the last answer on its connection, in seconds. What it sends until then is
#: discarded: otherwise it would get a reset, and might lose the answer (RFC 9112 section 9.6).
_LINGER_SECONDS = 2.0
_PIECE = 64 * 1024
#: How long a client may be silent in the middle of its request, or accept nothing of its answer, in seconds; it
#: occupies a thread until then.
SILENCE_SECONDS = 10.0


def _wrapped(app: Callable[..., Any]) -> Callable[..., Any]:
    """The application, called under the host of an absolute target (RFC 9112 section 3.2.2).

    An answer before the body has arrived ends the connection: gunicorn would promise to keep it, and occupy a thread
    waiting for the rest.
    """

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def answer(*args: Any) -> Any:
            if not _has_arrived(environ["wsgi.input"].reader):
                start_response.__self__.force_close()  # type: ignore[attr-defined]  # gunicorn's Response
            return start_response(*args)

        host = urlsplit(environ["RAW_URI"]).netloc if environ["RAW_URI"][:1] != "/" else ""
        if host:
            environ["HTTP_HOST"] = host
        return app(environ, answer)

    return wsgi


def _has_arrived(body: Any) -> bool:
    """Whether the rest of a body is here. Nobody knows where chunks end before they are read."""
    if isinstance(body, ChunkedReader):
        return body.parser is None
    return not body.length or body.length <= len(body.unreader.buf.getvalue())


class ThreadedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Frees its port as soon as it is told to stop or its master is killed, and answers the clients it has.

    gunicorn's own stops accepting but keeps listening until its last connection has ended, for up to 30 seconds:
    meanwhile no new master can have the port, and new clients wait in vain until they are reset. If its master was
    killed, it also keeps connections alive, so the last one rarely ends in time.

    gunicorn's own also waits on the accepting thread for a client to hang up: one that does not, such as a stopped
    process, would hold up all others.
    """

    wsgi: Callable[..., Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Connections after their last answer, in order of their deadlines.
        self._lingering: deque[Any] = deque()

    def init_process(self) -> None:
        # gunicorn has no limit here: a stopped client, or one whose machine is gone, would occupy a thread forever.
        limit = struct.pack("ll", int(SILENCE_SECONDS), int(SILENCE_SECONDS % 1 * 1e6))
        for listener in self.sockets:
            # Accepted connections inherit these options.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.setsockopt(socket.SOL_SOCKET, option, limit)
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = _wrapped(self.wsgi)
        reset_signals_in_children()
        freeze_heap()

    def accept(self, listener: Any) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            # gunicorn's own worker would exit here, and every request in progress with it.
            if not shortage.is_shortage(error):
                raise
            shortage.report(error, at="accept")
            # gunicorn calls this again at once.
            time.sleep(_SHORTAGE_SECONDS)

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            self._leave(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._read_on, conn))

    def _read_on(self, conn: Any, client: socket.socket) -> None:
        try:
            if client.recv(_PIECE):
                return
        except BlockingIOError:
            return
        except OSError:  # a reset is a hang-up too
            pass
        self._lingering.remove(conn)
        self.poller.unregister(client)
        self._leave(conn)

    def _leave(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self._lingering and self._lingering[0].timeout <= now:
            conn = self._lingering.popleft()
            self.poller.unregister(conn.sock)
            self._leave(conn)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        while self.sockets:
            listener = self.sockets.pop()
            # Closing resets the connections that wait to be accepted.
            before = -1
            while before < self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()

    def is_parent_alive(self) -> bool:
        if super().is_parent_alive():
            return True
        # As after SIGTERM: requests in progress are answered, and each connection ends with its answer.
        self.alive = False
        self.set_accept_enabled(False)
        return False
