"""The soak under mixed load, from start to verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.instance.errors import InstanceError
from scripts.soaking.client import Caller
from scripts.soaking.killing import VICTIMS, Killer, MemoryWatch
from scripts.soaking.load import Books, Client
from scripts.soaking.records import Seen
from scripts.soaking.site import GATEWAY_PROCESSES, Site
from scripts.soaking.verdict import RECOVERY_SECONDS, faults

#: Clients, each with ten requests a second.
CLIENTS = 6
_MEASURE_EVERY = 2.0
#: Once nobody is killed any more, every task must come to its end within this time in seconds.
_TASKS_SECONDS = 60.0
_ENDED = {"completed"}
#: Short times where waiting would teach nothing.
_SETTINGS = {
    "GATEWAY_PROCESSES": str(GATEWAY_PROCESSES),
    "WORKER_LEASE_SECONDS": "6",
    "WORKER_HEARTBEAT_SECONDS": "1",
}


@dataclass(frozen=True)
class Outcome(Seen):
    """`promised` counts the things that were looked for at the end."""

    promised: dict[str, int]


def soak(data: Path, port: int, *, seconds: float, every: float, seed: str, say: Callable[[str], None]) -> Outcome:
    """Start an instance in `data`, load it for `seconds` while a process is killed `every` seconds, and judge."""
    site = Site(data, port)
    site.start(_SETTINGS)
    try:
        say(f"running on port {port}, {GATEWAY_PROCESSES} gateway processes; seed {seed}")
        status, made = site.ask("POST", "/users", {"email": "killer@example.com", "name": "the killer's probe"})
        if status != 201:
            raise InstanceError(f"the system does not take a user: {status} {made}")
        stopped = threading.Event()
        clients = [Client(port, f"{seed}/{number}", stopped) for number in range(CLIENTS)]
        works = partial(_works, site, made["data"]["id"])
        killer = Killer(site, VICTIMS, works, every=every, seed=seed)
        watch = MemoryWatch(site, every=_MEASURE_EVERY)
        began = time.monotonic()
        for client in clients:
            client.start()
        watch.start()
        killer.start()
        watch_over(began, seconds, clients, killer, say)
        killer.stop()
        stopped.set()
        for client in clients:
            client.join()
        watch.stop()
        lasted = time.monotonic() - began
        for crash in (killer.crash, *(client.crash for client in clients)):
            if crash is not None:
                raise crash
        answers = sorted((answer for client in clients for answer in client.answers), key=lambda one: one.began)
        found = faults(answers, killer.kills, watch.seen, began)
        say("looking whether everything that was promised is there …")
        books = [client.books for client in clients]
        found += missing(site, books)
        promised = {kind: sum(len(getattr(book, kind)) for book in books) for kind in ("users", "orders", "tasks")}
        return Outcome(began, lasted, seed, answers, killer.kills, watch.seen, found, promised)
    finally:
        site.stop()


def _works(site: Site, user: str, services: tuple[str, ...]) -> bool:
    """Whether these services are ready, and people's requests to every service do what they should."""
    order = {"user_id": user, "items": [{"product": "probe", "quantity": 1, "price": 1}]}
    return (
        all(site.service_is_ready(name) for name in services)
        and site.ask("GET", f"/users/{user}")[0] == 200
        and site.ask("POST", "/orders", order)[0] == 201
        and site.ask("GET", "/tasks?limit=1")[0] == 200
        and set(site.circuits().values()) == {"closed"}
    )


def watch_over(
    began: float, seconds: float, clients: Sequence[Caller], killer: Killer, say: Callable[[str], None]
) -> None:
    """Wait for the end, or for a fault of the soak itself; tell of each kill when it is known how it ended."""
    told = 0
    while time.monotonic() < began + seconds and not killer.crash and not any(client.crash for client in clients):
        time.sleep(0.2)
        for kill in killer.kills[told:]:
            if kill.well_at is None and time.monotonic() - (kill.continued_at or kill.at) < RECOVERY_SECONDS:
                break
            well = "not well" if kill.seconds is None else f"well after {kill.seconds:.1f} s"
            say(f"{kill.at - began:7.1f} s  {kill.signal} {kill.victim} ({kill.pid}): {well}")
            told += 1


def missing(site: Site, books: Iterable[Books]) -> list[str]:
    """What was answered with 201 and is not there, or not as it was promised; tasks must have come to their end."""
    wanted = [
        (f"/{kind}/{name}", fields)
        for book in books
        for kind, things in (("users", book.users), ("orders", book.orders), ("tasks", book.tasks))
        for name, fields in things.items()
    ]
    until = time.monotonic() + _TASKS_SECONDS

    def look(one: tuple[str, dict[str, Any]]) -> str | None:
        path, fields = one
        while True:
            status, body = site.ask("GET", path)
            if status != 200:
                return f"{'gone' if status == 404 else 'not shown'}: {path} is {status}"
            thing = body["data"]
            wrong = [name for name, value in fields.items() if thing.get(name) != value]
            if wrong:
                return f"changed: {path} has {', '.join(f'{n}={thing.get(n)!r}, not {fields[n]!r}' for n in wrong)}"
            if not path.startswith("/tasks/") or thing["status"] in _ENDED:
                return None
            if thing["status"] == "failed" or time.monotonic() > until:
                return f"unfinished: {path} is {thing['status']}, errors {thing['errors']}"
            time.sleep(0.5)

    with ThreadPoolExecutor(2) as pool:
        return [said for said in pool.map(look, wanted) if said is not None]
