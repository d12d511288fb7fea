"""What the event-loop server runs: an `Application`, or anything else that speaks ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from servicekit.http_server.request import Receive, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestHandler(Protocol):
    """Answers requests without ASGI's messages in between, on the event loop."""

    async def answer(self, request: Request) -> bool:
        """Answer a request through its `client`; False, with nothing sent, leaves it to `Application.asgi`.

        It is cancelled when the client leaves.
        """

    def parser_refused(self, status: int) -> None:
        """Count a request that the HTTP parser refused."""

    def end_streams(self) -> None:
        """End what has no end of its own; called when the process is told to stop."""


class Application:
    """An ASGI application whose requests are answered by a handler. What needs the event loop begins in `start`."""

    #: There when `start` has returned.
    handler: RequestHandler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: start and end, and the requests that the handler leaves."""
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
        """Begin; called on the running event loop before the first request."""

    async def stop(self) -> None:
        """End everything; harmless twice, or before `start`."""

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
