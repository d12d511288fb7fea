"""Ports nobody listens on."""

from __future__ import annotations

import os
import random
import socket

# Below the range from which the kernel takes ports for outgoing connections, and beside that of `free_base` in
# scripts/instance/ports.py. Each test process has a part of its own: a port that one test has left for a moment, to
# restart a server on it, is not taken by another's.
_LOWEST, _PARTS, _PART = 20_000, 4, 3_000


def _own_part() -> tuple[int, int]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    return _LOWEST + number * _PART, _LOWEST + (number + 1) * _PART


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> int:
    """Give the first of `count` neighbouring free ports on loopback."""
    lowest, highest = _own_part()
    for _ in range(200):
        first = random.randrange(lowest, highest - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def free_port() -> int:
    """Give one free port on loopback."""
    return free_ports(1)
