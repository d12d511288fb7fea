"""Ends what a test process leaves running, however it ends: interrupted, timed out or killed.

An instance outlives the process that started it, as it should, and so do servers whose parent was killed. What tests
start is known by the session's folder in its environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_LOOK_EVERY = 0.5
_STOP_SECONDS = 15


def start(folder: Path) -> None:
    """Watch this process from another; everything it starts from now on has the folder in its environment."""
    os.environ["FOLDER_OF_THESE_TESTS"] = str(folder)
    # Not by subprocess, which warns of a child that was never waited for.
    command = [sys.executable, __file__, str(os.getpid()), str(folder)]
    silence = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in (0, 1)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=silence, setsid=True)


def _left(folder: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone by now, or another user's
            values = process.environ().values()
            if process.pid != os.getpid() and any(f"{folder}/" in f"{value}/" for value in values):
                yield process


def _main(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    left = list(_left(folder))
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, timeout=_STOP_SECONDS)
    for process in _left(folder):
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
