"""SIGHUP for gunicorn's master: a reload that would fail changes nothing, and during another the port is served.

gunicorn itself reads its configuration in the master, which exits when a setting is wrong. New workers that cannot load
the application are started over and over, or end the master too; by then the old ones are gone. Those it tells to stop
as soon as the new ones are forked: until these serve, seconds later on a busy machine, clients would wait.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Any, NoReturn

import structlog
from gunicorn.arbiter import Arbiter

#: How long the trial may take, and then the start of new processes, in seconds; the master does nothing else meanwhile,
#: as during the reload itself.
PATIENCE_SECONDS = 30.0
_TOO_LONG = f"a new process of it was not ready within {PATIENCE_SECONDS:g} seconds"

_log = structlog.stdlib.get_logger(__name__)


def keep_what_works(server: Any) -> None:
    """Let this master reload only what was tried in a child process; called when it starts."""
    server.handle_hup = lambda: _reload(server)
    server.manage_workers = lambda: _manage(server)


def _reload(server: Any) -> None:
    try:
        cause = _try(server)
    except OSError as exc:  # no process or file is left for the trial, nor would be for new workers
        cause = f"it cannot be tried: {exc.strerror}"
    if cause:
        _log.error("reload_refused", cause=cause)
    else:
        Arbiter.handle_hup(server)


def _manage(server: Any) -> None:
    """End those processes that are too many, once those that replace them serve."""
    until = time.monotonic() + PATIENCE_SECONDS
    while len(server.WORKERS) > server.num_workers and time.monotonic() < until:
        # The time of a process's file is the monotonic one from its first heartbeat on, before that the clock's.
        if all(worker.tmp.last_update() <= time.monotonic() for worker in server.WORKERS.values()):
            break
        time.sleep(0.05)
        server.reap_workers()
    Arbiter.manage_workers(server)


def _try(server: Any) -> str:
    """Load configuration and application in a child, as a new worker would; describe the fault, if any."""
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if child == 0:
        _tell(server, writing)
    os.close(writing)
    with open(reading, "rb") as answer:
        # The child writes once, just before it ends.
        in_time = bool(select.select([answer], [], [], PATIENCE_SECONDS)[0])
        cause = answer.read().decode(errors="replace") if in_time else _TOO_LONG
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return cause or ("" if status == 0 else f"a new process of it ended with status {status}")


def _tell(server: Any, writing: int) -> NoReturn:
    """Try, write the fault, and exit without any of the master's own clean-up."""
    status = 1
    try:
        cause = _problem(server)
        # Short enough for a pipe without a reader.
        os.write(writing, cause.encode(errors="replace")[:4000])
        status = 0
    finally:
        os._exit(status)


def _problem(server: Any) -> str:
    listening = set(server.cfg.address)
    try:
        server.app.reload()
        for address in server.app.cfg.address:
            if address not in listening:
                _listen(*address[:2])
        server.app.wsgi()
    except SystemExit as exc:
        # gunicorn has printed what it could not read, and exits with a number.
        return exc.code if isinstance(exc.code, str) else "the configuration of gunicorn cannot be read"
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as exc:
        raise SystemExit(f"it cannot listen on {host}:{port}: {exc.strerror}") from exc
