"""An address that never answers: packets vanish, as with a machine that is gone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """Fill the queue of a listener that never accepts; Linux then drops further packets."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.1)
            try:
                client.connect((host, port))
            except TimeoutError:
                break
        yield
