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
    """Keep this process from opening files; open ones stay open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def at_most(files: int) -> Callable[[], None]:
    """For a new process to call first: limits it to this many open files."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@contextmanager
def filled(process: psutil.Process, port: int) -> Iterator[list[socket.socket]]:
    """Connect until the server has no descriptor left and the last connections wait; yield all connections."""
    limit, _ = process.rlimit(psutil.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(limit + 20)
        ]
        eventually(lambda: process.num_fds() >= limit - 1, what="every file to be taken")
        yield connections
