"""Ends what a test process leaves running, however it ends: interrupted, timed out or killed.

An instance outlives the process that started it, as it should, and so do servers whose parent was killed. What tests
start is known by the session's folder in its environment.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil

_LOOK_EVERY = 0.5
_STOP_SECONDS = 15
_MEMORY = Path("/dev/shm")
#: In bytes; more than the databases of all processes of tests take.
_ROOM = 8 * 1024**3
#: Processes that `start` was called in; not those forked from them.
_watched: set[int] = set()


def start(folder: Path) -> None:
    """Watch this process from another; everything it starts from now on has the folder in its environment."""
    os.environ["FOLDER_OF_THESE_TESTS"] = str(folder)
    _watched.add(os.getpid())
    # Not by subprocess, which warns of a child that was never waited for.
    command = [sys.executable, __file__, str(os.getpid()), str(folder)]
    silence = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in (0, 1)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=silence, setsid=True)


def folder_in_memory(otherwise: Path) -> Path:
    """A folder in memory that goes with this process of tests, or the given one where nobody watches this process, or
    there is no room.

    A test's database is 400 files. On ext4 without a journal it takes 0.2 s of CPU to make them shortly after others
    were deleted (recently_deleted in fs/ext4/ialloc.c); in memory, 0.02 s.
    """
    if os.getpid() not in _watched or not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM:
        return otherwise
    mine = _in_memory(os.getpid())
    mine.mkdir(mode=0o700, exist_ok=True)
    return Path(mkdtemp(dir=mine))


def _in_memory(process: int) -> Path:
    return _MEMORY / f"siteworks-tests-{process}"


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
    shutil.rmtree(_in_memory(parent), ignore_errors=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
