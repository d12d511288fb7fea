"""Connecting to a host that may have several addresses: Happy Eyeballs, version 2 (RFC 8305)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from servicekit.observing.shortage import is_shortage
from servicekit.wire.resolver import LOOK_UP_SECONDS, HostAddress, Resolver, says_little

T = TypeVar("T")

#: Seconds to wait for one address before trying the next as well (RFC 8305 section 5).
ATTEMPT_DELAY = 0.25


async def connect(
    resolver: Resolver, attempt: Callable[[HostAddress], Coroutine[Any, Any, T]], discard: Callable[[T], None]
) -> T:
    """Return the first connection that `attempt` makes; `discard` gets any later one. The caller bounds the time.

    Raises the most telling OSError: a refusal rather than an unreachable address.
    """
    addresses = await resolver.find()
    if len(addresses) == 1 and resolver.fixed:
        return await attempt(addresses[0])
    left, seen = deque(addresses), set(addresses)
    attempts: dict[asyncio.Task[T], HostAddress] = {}
    errors: list[OSError] = []
    look_up: asyncio.Future[list[HostAddress]] | None = None
    may_renew = True
    try:
        while True:
            if left:
                address = left.popleft()
                attempts[asyncio.create_task(attempt(address))] = address
            elif may_renew:
                # No known address answers: the host may have moved.
                may_renew = False
                begun = resolver.renew()
                look_up = None if begun is None else asyncio.wrap_future(begun)
            if not attempts and look_up is None:
                raise min(errors, key=says_little)
            events: list[asyncio.Future[Any]] = [*attempts] if look_up is None else [*attempts, look_up]
            done, _ = await asyncio.wait(
                events,
                timeout=ATTEMPT_DELAY if left or may_renew else None if attempts else LOOK_UP_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            slower: list[HostAddress] = []
            for task, address in [*attempts.items()]:
                if not task.done():
                    slower.append(address)
                    continue
                error = task.exception()
                if error is None:
                    resolver.answered(address)
                    for silent in slower:
                        resolver.failed(silent)
                    del attempts[task]
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                del attempts[task]
                errors.append(error)
                if not is_shortage(error):
                    resolver.failed(address)
            if look_up is not None and (look_up.done() or not (done or attempts)):
                if look_up.done() and look_up.exception() is None:
                    newer = [address for address in look_up.result() if address not in seen]
                    left.extend(newer)
                    seen.update(newer)
                look_up.cancel()
                look_up = None
    finally:
        if look_up is not None:
            look_up.cancel()
        for task in attempts:
            task.cancel()
            task.add_done_callback(lambda late: _drop(late, discard))


def _drop(task: asyncio.Task[T], discard: Callable[[T], None]) -> None:
    if not task.cancelled() and task.exception() is None:
        discard(task.result())
