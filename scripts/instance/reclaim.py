"""Finds and ends the processes that a killed supervisor left behind.

Every process of an instance has SITEWORKS_INSTANCE=<data folder> in its environment. Only that mark counts, so another
instance or another PostgreSQL is never touched. PostgreSQL's children overwrite their environment, but end with the
server, which has the mark.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import psutil

MARK = "SITEWORKS_INSTANCE"
_GRACE = 8.0  # seconds; a task that needs longer is run again by another worker, as after any crash
_KILL_GRACE = 5.0  # seconds for SIGKILL to take effect
_POSTGRES_GRACE = 30.0  # seconds for its checkpoint


def leftovers(data: Path) -> list[psutil.Process]:
    """The processes of this instance, except this one and its parents."""
    own = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with contextlib.suppress(psutil.Error, OSError):  # gone by now, or another user's
            if process.environ().get(MARK) == str(data) and is_alive(process):
                found.append(process)
    return found


def reclaim(data: Path) -> int:
    """End all leftovers, the services first, then PostgreSQL (fast shutdown). Returns how many were ended.

    The caller holds the instance's lock, or a new instance would be taken for a leftover.
    """
    found = leftovers(data)
    servers = [process for process in found if _is_postgres(process)]
    others = [process for process in found if process not in servers]
    _end(others, signal.SIGTERM, _GRACE)
    _end(servers, signal.SIGINT, _POSTGRES_GRACE)
    return len(found)


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie: many containers have no init to reap orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_postgres(process: psutil.Process) -> bool:
    try:
        return Path(process.exe()).name == "postgres"
    except psutil.Error:
        return False


def _end(processes: list[psutil.Process], first: signal.Signals, grace: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(first)
    for process in _still_alive(processes, grace):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _still_alive(processes, _KILL_GRACE)


def _still_alive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    limit = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > limit:
            break
        time.sleep(0.02)
    return alive
