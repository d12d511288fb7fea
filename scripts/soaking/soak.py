"""The soak under mixed load, from start to verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.instance.errors import InstanceError
from scripts.soaking.killing import VICTIMS, Killer, MemoryWatch
from scripts.soaking.load import Books, MixedClient
from scripts.soaking.records import Seen
from scripts.soaking.site import GATEWAY_PROCESSES, Site
from scripts.soaking.under_fire import answers_of, under_fire
from scripts.soaking.verdict import faults

#: Clients, each sending ten requests a second.
CLIENTS = 6
_MEASURE_EVERY = 2.0
#: Every task must end within this time after the last kill, in seconds.
_TASKS_SECONDS = 60.0
_ENDED = {"completed"}
#: Shorter than the defaults, where longer waits would show nothing more.
_SETTINGS = {
    "GATEWAY_PROCESSES": str(GATEWAY_PROCESSES),
    "WORKER_LEASE_SECONDS": "6",
}


@dataclass(frozen=True)
class Outcome(Seen):
    """`promised` counts the things looked up at the end."""

    promised: dict[str, int]


def soak(data: Path, port: int, *, seconds: float, every: float, seed: str, say: Callable[[str], None]) -> Outcome:
    """Start an instance in `data`, load it for `seconds` with a kill every `every` seconds, and judge."""
    site = Site(data, port)
    site.start(_SETTINGS)
    try:
        say(f"running on port {port}, {GATEWAY_PROCESSES} gateway processes; seed {seed}")
        status, made = site.ask("POST", "/users", {"email": "killer@example.com", "name": "the killer's probe"})
        if status != 201:
            raise InstanceError(f"the system does not take a user: {status} {made}")
        stopped = threading.Event()
        clients = [MixedClient(port, f"{seed}/{number}", stopped) for number in range(CLIENTS)]
        works = partial(_works, site, made["data"]["id"])
        killer = Killer(site, VICTIMS, works, every=every, seed=seed)
        watch = MemoryWatch(site, every=_MEASURE_EVERY)
        watch.start()
        began, lasted = under_fire(clients, stopped, killer, seconds, say)
        watch.stop()
        answers = answers_of(clients)
        found = faults(answers, killer.kills, watch.seen, began)
        say("looking whether everything that was promised is there …")
        books = [client.books for client in clients]
        found += missing(site, books)
        promised = {kind: sum(len(getattr(book, kind)) for book in books) for kind in ("users", "orders", "tasks")}
        return Outcome(began, lasted, seed, answers, killer.kills, watch.seen, found, promised)
    finally:
        site.stop()


def _works(site: Site, user: str, services: tuple[str, ...]) -> bool:
    """Whether these services are ready, and requests through the gateway to every service succeed."""
    order = {"user_id": user, "items": [{"product": "probe", "quantity": 1, "price": 1}]}
    return (
        all(site.service_is_ready(name) for name in services)
        and site.ask("GET", f"/users/{user}")[0] == 200
        and site.ask("POST", "/orders", order)[0] == 201
        and site.ask("GET", "/tasks?limit=1")[0] == 200
        and set(site.circuits().values()) == {"closed"}
    )


def missing(site: Site, books: Iterable[Books]) -> list[str]:
    """Things answered with 201 that are missing or not as promised; tasks must have ended."""
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
