"""Processes that have run out of open files."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from tests.support.waiting import eventually


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file; what is open stays so."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def at_most(files: int) -> Callable[[], None]:
    """What a new process calls first, to be able to open so many files and no more."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@contextmanager
def filled(process: psutil.Process, port: int) -> Iterator[list[socket.socket]]:
    """Connect until a server has no file left and the last connections wait; all are given."""
    limit, _ = process.rlimit(psutil.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(limit + 20)
        ]
        eventually(lambda: process.num_fds() >= limit - 1, what="every file to be taken")
        yield connections
