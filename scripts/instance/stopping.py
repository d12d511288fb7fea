"""Stop an instance: the gateway first, so that no new requests come in, PostgreSQL last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection

from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.lock import Holder, InstanceLock, holder_of
from scripts.instance.ports import STORES, Ports, names
from scripts.instance.reclaim import reclaim
from scripts.instance.supervision import Supervisor

_RELEASE_LIMIT = 30.0  # seconds for supervisor itself, once its programs have ended


def stop_in_order(supervisor: Supervisor, say: Callable[[str], None]) -> None:
    """Stop every program, then tell supervisor to end; the caller waits for that."""
    with contextlib.suppress(InstanceError):  # stopped by another command meanwhile; the lock tells when it is gone
        stop_services(supervisor, names(), say)
    supervisor.shut_down()


def stop_services(
    supervisor: Supervisor, services: Collection[str], say: Callable[[str], None] = lambda text: None
) -> None:
    """Stop these and return once they are gone: the gateway first, the stores last."""
    for group in (["gateway"], [name for name in names() if name not in STORES], STORES):
        meant = [name for name in group if name in services]
        if running := supervisor.alive(meant):
            say(f"  stopping {', '.join(running)}")
        supervisor.stop(meant)


def stop(layout: Layout, say: Callable[[str], None]) -> None:
    """The verb `stop`. It is no error if the instance does not run."""
    layout.require_ours()
    holder = holder_of(layout.lock)
    if holder is None:
        lock = InstanceLock.acquire(layout.lock, Holder("./scripts/run stop"))
        try:
            reclaimed = reclaim(layout.data)
        finally:
            lock.close()
        say(f"ended {reclaimed} processes that a killed supervisor had left behind" if reclaimed else "not running")
        return
    if holder.port is None:
        raise InstanceError(f"{layout.data} is in use by {holder.command}; that ends by itself")
    supervisor = Supervisor(Ports(holder.port), Credentials(layout.secrets)["supervisor"])
    if not supervisor.answers():
        raise InstanceError(
            f"the instance in {layout.data} is just being started or stopped; try again in a few seconds"
        )
    stop_in_order(supervisor, say)
    wait_until_released(layout)
    say("stopped; nothing was lost")


def wait_until_released(layout: Layout) -> None:
    limit = time.monotonic() + _RELEASE_LIMIT
    while holder_of(layout.lock) is not None:
        if time.monotonic() > limit:
            raise InstanceError(f"supervisor does not end; see {layout.log('supervisor')}")
        time.sleep(0.05)
