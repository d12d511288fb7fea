"""Kills one process after another, at random, and watches until everything is well again."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from dataclasses import replace

import psutil

from scripts.instance.errors import InstanceError
from scripts.soaking.records import Kill, Memory
from scripts.soaking.site import GATEWAY_PROCESSES, TASK_WORKERS, Site, resident_mib
from scripts.soaking.verdict import GATEWAY_PROCESS, RECOVERY_SECONDS

#: Who is killed, and which services may answer 5xx because of it. The master of the gateway is not among them: with it
#: dies the gateway as a whole, and that leaves nobody to give answers.
VICTIMS: dict[str, tuple[str, ...]] = {
    GATEWAY_PROCESS: (),
    "users worker": ("users",),
    "users master": ("users",),
    "orders worker": ("orders",),
    "orders master": ("orders",),
    "tasks worker": ("tasks",),
    "tasks master": ("tasks",),
    "task worker": (),
    "postgres": ("users", "orders", "tasks"),
}
_LOOK_EVERY = 0.1


class Killer:
    """Kills a process every `every` seconds until stopped; all kinds once, in random order, then all again."""

    def __init__(self, site: Site, *, every: float, seed: str, probe_user: str) -> None:
        self.kills: list[Kill] = []
        self.crash: BaseException | None = None
        self._site = site
        self._every = every
        self._random = random.Random(seed)
        self._probe_user = probe_user
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak killer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Kill nobody any more; returns when the last victim's part is well."""
        self._stopped.set()
        self._thread.join(2 * RECOVERY_SECONDS)

    def _run(self) -> None:
        round_of: list[str] = []
        due = time.monotonic() + self._every
        try:
            while not self._stopped.wait(max(due - time.monotonic(), 0)):
                due += self._every
                if not round_of:
                    round_of = self._random.sample(list(VICTIMS), len(VICTIMS))
                self._kill(round_of.pop())
        except BaseException as error:  # a fault of the soak itself must end it with a complaint, not quietly
            self.crash = error

    def _kill(self, victim: str) -> None:
        running = self._site.processes()
        if not running.get(victim):
            raise InstanceError(f"there is no {victim} to kill")
        # The youngest of the gateway, so that the eldest shows what becomes of the memory of one that lives long.
        process = running[victim][-1] if victim == GATEWAY_PROCESS else self._random.choice(running[victim])
        # A master takes its workers along, though some go on for a moment.
        gone = [process, *(process.children() if victim.endswith("master") else [])]
        at = time.monotonic()
        kill = Kill(at, victim, process.pid, VICTIMS[victim], None)
        self.kills.append(kill)
        process.send_signal(signal.SIGKILL)
        while time.monotonic() - at < RECOVERY_SECONDS:
            if self._is_well(victim, gone):
                self.kills[-1] = replace(kill, well_at=time.monotonic())
                return
            time.sleep(_LOOK_EVERY)

    def _is_well(self, victim: str, gone: list[psutil.Process]) -> bool:
        """Whether the dead are gone and replaced, and people's requests to every service do what they should."""
        if any(map(_is_alive, gone)):
            return False
        running = self._site.processes()
        for name in (*VICTIMS, "gateway master"):
            wanted = {GATEWAY_PROCESS: GATEWAY_PROCESSES, "task worker": TASK_WORKERS}.get(name, 1)
            if len(running.get(name, ())) != wanted:
                return False
        if not VICTIMS[victim]:
            return True
        order = {"user_id": self._probe_user, "items": [{"product": "probe", "quantity": 1, "price": 1}]}
        return (
            all(self._site.service_is_ready(name) for name in VICTIMS[victim])
            and self._site.ask("GET", f"/users/{self._probe_user}")[0] == 200
            and self._site.ask("POST", "/orders", order)[0] == 201
            and self._site.ask("GET", "/tasks?limit=1")[0] == 200
            and set(self._site.circuits().values()) == {"closed"}
        )


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
            # Supervisor is busy for a moment now and then; the next measurement will do.
            with contextlib.suppress(InstanceError, psutil.Error):
                for name, processes in self._site.processes().items():
                    for process in processes:
                        mib = resident_mib(process)
                        if mib is not None and name != "postgres":
                            self.seen.append(Memory(time.monotonic(), name, process.pid, mib))
