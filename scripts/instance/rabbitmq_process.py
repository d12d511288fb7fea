"""RabbitMQ and Erlang's name server as one program: `python -m scripts.instance.rabbitmq_process FOLDER PORT`.

Starts both, sets the policy once the broker answers, ends both at SIGTERM, and ends when the broker does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

from scripts.instance.errors import InstanceError
from scripts.instance.rabbitmq import LocalRabbitMQ, installed
from scripts.instance.reclaim import MARK

_STOP_SECONDS = 25.0
_TURN_SECONDS = 0.2
_POLICY_SECONDS = 5.0  # between attempts to set it


def main(folder: str, port: str) -> int:
    """The broker's exit status."""
    programs = installed()
    if programs is None:
        raise InstanceError("RabbitMQ is not installed any more")
    broker = LocalRabbitMQ(Path(folder), int(port), programs)
    _end_leftovers(broker.folder)
    environment = broker.environment({MARK: os.environ.get(MARK, "")})
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    names = subprocess.Popen(broker.name_server_command(), env=environment, stdin=subprocess.DEVNULL)
    server = subprocess.Popen(broker.command(), env=environment, stdin=subprocess.DEVNULL)
    policy_due: float | None = 0.0
    try:
        while server.poll() is None and not stopping:
            if policy_due is not None and time.monotonic() > policy_due and broker.accepts():
                policy_due = None if _has_policy(broker) else time.monotonic() + _POLICY_SECONDS
            time.sleep(_TURN_SECONDS)
    finally:
        if server.poll() is None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_STOP_SECONDS)
        _end_leftovers(broker.folder)
        names.kill()
        names.wait()
    return 0 if stopping else 1


def _has_policy(broker: LocalRabbitMQ) -> bool:
    """False if it must be tried again: a slow rabbitmqctl is no reason to end a broker that holds messages."""
    try:
        broker.set_policy()
    except (InstanceError, subprocess.TimeoutExpired) as exc:
        print(exc, file=sys.stderr)
        return False
    return True


def _end_leftovers(folder: Path) -> None:
    """Kill processes left from an earlier run of this broker, found by the folder in their environment."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone by now, or another user's
            if process.environ().get("RABBITMQ_BASE") == str(folder):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=5)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except InstanceError as exc:
        sys.exit(str(exc))
