"""Free ports."""

from __future__ import annotations

import os
import random
import socket

# Below the kernel's ephemeral ports, and apart from the range of `free_base` in scripts/instance/ports.py. Each test
# process has its own part, so that no other takes a port while a server is restarted on it.
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
    """The first of `count` consecutive free ports on loopback."""
    lowest, highest = _own_part()
    for _ in range(200):
        first = random.randrange(lowest, highest - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def free_port() -> int:
    """A free port on loopback."""
    return free_ports(1)
