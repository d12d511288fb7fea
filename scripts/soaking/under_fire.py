"""The main part of a soak: clients at work under a killer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from scripts.soaking.client import Caller
from scripts.soaking.killing import Killer
from scripts.soaking.records import NotedAnswer
from scripts.soaking.verdict import RECOVERY_SECONDS


def under_fire(
    clients: Sequence[Caller], stopped: threading.Event, killer: Killer, seconds: float, say: Callable[[str], None]
) -> tuple[float, float]:
    """Let them work for `seconds`, then set `stopped`; return when that began and how long it lasted.

    Re-raises the exception that ended a client or the killer: a fault of the soak itself.
    """
    began = time.monotonic()
    for client in clients:
        client.start()
    killer.start()
    _watch(began, seconds, clients, killer, say)
    killer.stop()
    stopped.set()
    for client in clients:
        client.join()
    lasted = time.monotonic() - began
    for crash in (killer.crash, *(client.crash for client in clients)):
        if crash is not None:
            raise crash
    return began, lasted


def answers_of(clients: Sequence[Caller]) -> list[NotedAnswer]:
    """The answers of all clients, in the order of the requests."""
    return sorted((answer for client in clients for answer in client.answers), key=lambda one: one.began)


def _watch(began: float, seconds: float, clients: Sequence[Caller], killer: Killer, say: Callable[[str], None]) -> None:
    """Wait for the end or a fault of the soak itself; report each kill once its outcome is known."""
    told = 0
    while time.monotonic() < began + seconds and not killer.crash and not any(client.crash for client in clients):
        time.sleep(0.2)
        for kill in killer.kills[told:]:
            if kill.well_at is None and time.monotonic() - (kill.continued_at or kill.at) < RECOVERY_SECONDS:
                break
            well = "not well" if kill.seconds is None else f"well after {kill.seconds:.1f} s"
            say(f"{kill.at - began:7.1f} s  {kill.signal} {kill.victim} ({kill.pid}): {well}")
            told += 1
