"""Ports nobody listens on."""

from __future__ import annotations

import random
import socket

# Below the range from which the kernel takes ports for outgoing connections.
_LOWEST, _HIGHEST = 20_000, 32_000


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
    for _ in range(200):
        first = random.randrange(_LOWEST, _HIGHEST - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def free_port() -> int:
    """Give one free port on loopback."""
    return free_ports(1)
