"""Kills one process after another, at random, and waits each time until everything works again."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psutil

from scripts.instance.errors import InstanceError
from scripts.soaking.records import Kill, Memory
from scripts.soaking.site import Site, backends, memory_of
from scripts.soaking.verdict import GATEWAY_PROCESS, RECOVERY_SECONDS


@dataclass(frozen=True, slots=True)
class Blow:
    """A signal and its target. `hurts`: the services that may answer 5xx because of it."""

    part: str
    hurts: tuple[str, ...] = ()
    signal: signal.Signals = signal.SIGKILL
    #: For SIGSTOP: seconds until SIGCONT.
    seconds: float = 0.0
    #: The target is one of the part's processes that serve connections, not the part itself.
    backend: bool = False


#: The victims under the mixed load. The gateway's master is not among them: without it no gateway is left to answer.
VICTIMS: dict[str, Blow] = {
    GATEWAY_PROCESS: Blow(GATEWAY_PROCESS),
    "users worker": Blow("users worker", ("users",)),
    "users master": Blow("users master", ("users",)),
    "orders worker": Blow("orders worker", ("orders",)),
    "orders master": Blow("orders master", ("orders",)),
    "tasks worker": Blow("tasks worker", ("tasks",)),
    "tasks master": Blow("tasks master", ("tasks",)),
    "task worker": Blow("task worker"),
    "postgres": Blow("postgres", ("users", "orders", "tasks")),
}
_LOOK_EVERY = 0.1


class Killer:
    """Strikes every `every` seconds until stopped: each kind once, in random order, then each again. With
    probability `pairs` it strikes two kinds at once. `works` tells whether requests to the given services succeed."""

    def __init__(
        self,
        site: Site,
        victims: Mapping[str, Blow],
        works: Callable[[tuple[str, ...]], bool],
        *,
        every: float,
        seed: str,
        pairs: float = 0.0,
    ) -> None:
        self.kills: list[Kill] = []
        self.crash: BaseException | None = None
        self._site = site
        self._victims = victims
        self._works = works
        self._every = every
        self._pairs = pairs
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak killer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop killing; return once the last victim's part works again."""
        self._stopped.set()
        self._thread.join(2 * RECOVERY_SECONDS)

    def _run(self) -> None:
        round_of: list[str] = []
        due = time.monotonic() + self._every
        try:
            while not self._stopped.wait(max(due - time.monotonic(), 0)):
                due += self._every
                if not round_of:
                    round_of = self._random.sample(list(self._victims), len(self._victims))
                names = [round_of.pop()]
                if self._pairs and self._random.random() < self._pairs:
                    others = [name for name in round_of if self._together(name, names[0])]
                    if others:
                        names.append(others[-1])
                        round_of.remove(others[-1])
                self._strike(names)
        except BaseException as error:  # a fault of the soak itself must not end it quietly
            self.crash = error

    def _together(self, name: str, other: str) -> bool:
        """Whether both may be struck at once: a master and its workers die together anyway."""
        parts = {self._victims[name].part, self._victims[other].part}
        return (
            parts == {"task worker"}
            or len({part.removesuffix(" master").removesuffix(" worker") for part in parts}) > 1
        )

    def _strike(self, names: list[str]) -> None:
        """Strike these at once; return once everything works again, or the time for that is over."""
        first = len(self.kills)
        gone: list[psutil.Process] = []
        stopped: list[psutil.Process] = []
        aims = self._aims(names)
        for name, process, others in aims:
            blow = self._victims[name]
            # Taken before the blow, so that its effects come later.
            self.kills.append(Kill(time.monotonic(), name, process.pid, blow.hurts, None, blow.signal.name))
            # The second of two may have ended with the first.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(blow.signal)
            if blow.signal is signal.SIGSTOP:
                stopped.append(process)
            else:
                gone += [process, *others]
        if stopped:
            time.sleep(max(self._victims[name].seconds for name in names))
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            for index in range(first, len(self.kills)):
                if self.kills[index].signal == signal.SIGSTOP.name:
                    self.kills[index] = replace(self.kills[index], continued_at=time.monotonic())
        hurts = tuple(sorted({service for name in names for service in self._victims[name].hurts}))
        until = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < until:
            if not any(map(_is_alive, gone)) and self._site.everything_runs() and (not hurts or self._works(hurts)):
                now = time.monotonic()
                self.kills[first:] = [replace(kill, well_at=now) for kill in self.kills[first:]]
                return
            time.sleep(_LOOK_EVERY)

    def _aims(self, names: list[str]) -> list[tuple[str, psutil.Process, list[psutil.Process]]]:
        """For each kind its target, and the processes that end with it."""
        running = self._site.processes()
        aims: list[tuple[str, psutil.Process, list[psutil.Process]]] = []
        for name in names:
            blow = self._victims[name]
            struck = {process.pid for _, process, _ in aims}
            possible = [process for process in running.get(blow.part, []) if process.pid not in struck]
            if not possible:
                raise InstanceError(f"there is no {blow.part} to kill")
            # The gateway's youngest, so that its eldest lives long enough to show a leak.
            process = possible[-1] if blow.part == GATEWAY_PROCESS else self._random.choice(possible)
            others: list[psutil.Process] = []
            if blow.part == "postgres":
                # If one of them dies, the server ends them all.
                others = backends(process)
                if blow.backend:
                    process = self._random.choice(others)
            elif blow.part.endswith("master"):
                # Its workers die with it, though some go on for a moment.
                others = process.children()
            aims.append((name, process, others))
        return aims


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class MemoryWatch:
    """Measures the memory of every process at a regular interval, on a thread."""

    def __init__(self, site: Site, *, every: float) -> None:
        self.seen: list[Memory] = []
        self._site = site
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            # supervisor is busy now and then; the next measurement will do.
            with contextlib.suppress(InstanceError, psutil.Error):
                for name, processes in self._site.processes().items():
                    for process in processes:
                        mib = memory_of(process)
                        if mib is not None and name != "postgres":
                            self.seen.append(Memory(time.monotonic(), name, process.pid, mib))
