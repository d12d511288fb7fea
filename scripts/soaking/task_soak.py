"""The soak of tasks, from start to verdict: creation over HTTP while workers, API, gateway and database are killed."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.instance.errors import InstanceError
from scripts.soaking import journal, noted_types
from scripts.soaking.killing import Blow, Killer, MemoryWatch
from scripts.soaking.records import Seen
from scripts.soaking.site import GATEWAY_PROCESSES, Site
from scripts.soaking.task_load import TaskClient
from scripts.soaking.task_verdict import Evidence, ends_of, later_ends, rescues, task_faults
from scripts.soaking.under_fire import answers_of, under_fire
from scripts.soaking.verdict import GATEWAY_MASTER, GATEWAY_PROCESS, faults

CLIENTS = 4
_MEASURE_EVERY = 2.0
_LEASE_SECONDS = 6.0
#: Every task must end within this time after the last kill, in seconds.
_END_SECONDS = 120.0
#: In seconds. Longer than a lease, so that any rescue still to come happens within it.
_REST_SECONDS = _LEASE_SECONDS + 4.0
_PROBE = "probe"
_SETTINGS = {
    "GATEWAY_PROCESSES": str(GATEWAY_PROCESSES),
    "TASK_MODULES": noted_types.__name__,
    "WORKER_LEASE_SECONDS": str(_LEASE_SECONDS),
    "WORKER_GRACE_SECONDS": "3",
}
_TASKS = ("tasks",)
#: The victims, and how each is struck.
TASK_VICTIMS: dict[str, Blow] = {
    "task worker": Blow("task worker"),
    "task worker, told to stop": Blow("task worker", signal=signal.SIGTERM),
    "task worker, stopped": Blow("task worker", signal=signal.SIGSTOP, seconds=_LEASE_SECONDS + 2.0),
    "tasks worker": Blow("tasks worker", _TASKS),
    "tasks master": Blow("tasks master", _TASKS),
    GATEWAY_PROCESS: Blow(GATEWAY_PROCESS),
    GATEWAY_MASTER: Blow(GATEWAY_MASTER),
    "postgres": Blow("postgres", _TASKS),
    "postgres, told to stop": Blow("postgres", _TASKS, signal=signal.SIGINT),
    "postgres, one backend": Blow("postgres", _TASKS, backend=True),
}
#: The probability of striking two at once.
_PAIRS = 0.25


@dataclass(frozen=True)
class TaskFigures:
    """Figures of the report. `unclear`: creations without a clear answer; `replayed`: those of them that had made their
    task; `cut`: seconds until the tasks of a killed worker went on; `went_on`: see `later_ends`."""

    tasks: Counter[str]
    answered: int
    batches: int
    unclear: int
    replayed: int
    existing: int
    cancels: int
    retries: int
    runs: Counter[str]
    cut: list[float]
    went_on: int


@dataclass(frozen=True)
class TaskOutcome(Seen):
    """The outcome of a soak of tasks."""

    counts: TaskFigures


def task_soak(
    data: Path, port: int, *, seconds: float, every: float, seed: str, say: Callable[[str], None]
) -> TaskOutcome:
    """Start an instance in `data`, create tasks for `seconds` with a blow every `every` seconds, and judge.

    The journal of the runs is the file `data` with `.journal` added to its name.
    """
    file = data.with_name(f"{data.name}.journal")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    site = Site(data, port)
    site.start({**_SETTINGS, "SOAK_JOURNAL": str(file.resolve())})
    try:
        say(f"running on port {port}, {GATEWAY_PROCESSES} gateway processes; seed {seed}; runs in {file}")
        if not _works(site, ()):
            raise InstanceError("the system does not take a task")
        stopped = threading.Event()
        clients = [TaskClient(port, f"c{number}", f"{seed}/{number}", stopped) for number in range(CLIENTS)]
        killer = Killer(site, TASK_VICTIMS, partial(_works, site), every=every, seed=seed, pairs=_PAIRS)
        watch = MemoryWatch(site, every=_MEASURE_EVERY)
        wall = time.time() - time.monotonic()
        watch.start()
        began, lasted = under_fire(clients, stopped, killer, seconds, say)
        say("nobody is killed any more; waiting until every task has come to its end …")
        late = _wait_for_ends(site)
        tasks = _all_tasks(site)
        say(f"{len(tasks)} tasks have; looking whether they stay so …")
        time.sleep(_REST_SECONDS)
        later = _all_tasks(site)
        watch.stop()
        with file.open(encoding="utf-8") as lines:
            runs = journal.read_runs(lines)
        kills = [
            replace(
                kill, at=kill.at + wall, continued_at=None if kill.continued_at is None else kill.continued_at + wall
            )
            for kill in killer.kills
        ]
        wishes = [wish for client in clients for wish in client.wishes]
        living = frozenset(process.pid for process in site.processes().get("task worker", []))
        met = frozenset(one.pid for one in watch.seen if one.name == "task worker")
        found = Evidence(wishes, tasks, later, runs, kills, living, met, time.time())
        answers = answers_of(clients)
        return TaskOutcome(
            began,
            lasted,
            seed,
            answers,
            killer.kills,
            watch.seen,
            [
                *faults(answers, killer.kills, watch.seen, began),
                *(said for client in clients for said in client.wrong),
                *late,
                *task_faults(found),
            ],
            _counts(found),
        )
    finally:
        site.stop()


def _works(site: Site, services: tuple[str, ...]) -> bool:
    """Whether these services are ready, and a task can be made, read and listed with the circuit closed."""
    if not all(site.service_is_ready(name) for name in services):
        return False
    status, made = site.ask("POST", "/tasks", {"title": _PROBE})
    return (
        status == 201
        and site.ask("GET", f"/tasks/{made['data']['id']}")[0] == 200
        and site.ask("GET", "/tasks?limit=1")[0] == 200
        and set(site.circuits().values()) == {"closed"}
    )


def _wait_for_ends(site: Site) -> list[str]:
    """Wait until no task is pending or processing; one that still is after the limit is a fault."""
    until = time.monotonic() + _END_SECONDS
    while True:
        left = {status: _data(site, f"/tasks?status={status}&limit=1")["total"] for status in ("pending", "processing")}
        if not any(left.values()):
            return []
        if time.monotonic() > until:
            return [f"{number} tasks are still {status} after {_END_SECONDS:.0f} s" for status, number in left.items()]
        time.sleep(0.5)


def _all_tasks(site: Site) -> list[dict[str, Any]]:
    """Every task but the killer's own, newest first, page by page."""
    tasks: list[dict[str, Any]] = []
    after = ""
    while True:
        page = _data(site, f"/tasks?limit=100{after}")
        tasks += [task for task in page["tasks"] if task["title"] != _PROBE]
        if page["next"] is None:
            return tasks
        after = f"&after={page['next']}"


def _data(site: Site, path: str) -> Any:
    status, body = site.ask("GET", path)
    if status != 200:
        raise InstanceError(f"{path} is {status}, and nobody was killed")
    return body["data"]


def _counts(found: Evidence) -> TaskFigures:
    acts = [act for wish in found.wishes for act in wish.acts if act.done]
    return TaskFigures(
        tasks=Counter(task["status"] for task in found.tasks),
        answered=sum(wish.id is not None and not wish.existing for wish in found.wishes),
        batches=len({wish.batch for wish in found.wishes if wish.batch is not None}),
        unclear=sum(wish.repeats > 0 or wish.unclear for wish in found.wishes),
        replayed=sum(wish.repeats > 0 and wish.replayed for wish in found.wishes),
        existing=sum(wish.existing for wish in found.wishes),
        cancels=sum(act.what == "cancel" for act in acts),
        retries=sum(act.what == "retry" for act in acts),
        runs=ends_of(found),
        cut=[seconds for _, seconds in rescues(found)],
        went_on=later_ends(found),
    )
