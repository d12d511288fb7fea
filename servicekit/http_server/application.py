"""The interface of applications for the event-loop server; it runs other ASGI applications too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from servicekit.http_server.request import Fields, Receive, Request
from servicekit.http_server.tls import ServerTls

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestHandler(Protocol):
    """Answers requests on the event loop, without ASGI messages."""

    async def answer(self, request: Request) -> bool:
        """Answer a request through its `client`; return False, with nothing sent, to leave it to `Application.asgi`.

        It is cancelled when the client leaves.
        """

    def parser_refused(self, status: int, fields: Fields) -> Fields:
        """Count a request that the HTTP parser refused; return what its answer is to say besides. `fields` holds the
        Origin, if it was read."""

    def end_streams(self) -> None:
        """End streams that have no end of their own; called when the process is told to stop."""


class Application:
    """An ASGI application whose requests a handler answers. Whatever needs the event loop is created in `start`."""

    #: Set by `start`.
    handler: RequestHandler
    #: How its port speaks TLS; None for plain HTTP.
    tls: ServerTls | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: startup and shutdown, and the requests that the handler leaves."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self.asgi(scope, receive, send)
        else:
            raise RuntimeError(f"no {scope['type']} here")

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the handler left."""
        raise NotImplementedError

    def start(self) -> None:
        """Start; called on the running event loop before the first request."""

    async def stop(self) -> None:
        """Stop everything; idempotent, also before `start`."""

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def handler_of(app: object) -> RequestHandler | None:
    """The handler of a started application; None for any other ASGI application."""
    return app.handler if isinstance(app, Application) else None


def tls_of(app: object) -> ServerTls | None:
    """How an application's port speaks TLS, if it does."""
    return app.tls if isinstance(app, Application) else None
