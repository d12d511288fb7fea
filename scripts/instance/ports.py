"""The ports of an instance, all on 127.0.0.1: each at its own distance from the gateway's, which is --port."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from scripts.instance.errors import InstanceError, PortTaken
from servicekit.process.services import BadServiceTable, services

HOST = "127.0.0.1"
#: The gateway's port where services.toml has its services: their distance from it is kept with any other.
_GATEWAY = 8000
#: What has no row there, by its distance from the gateway.
_OTHERS = {
    "gateway": 0,
    "events": 4,
    "postgres": 5,
    "supervisor": 6,
    "relay": 7,
    "ingest": 10,
    "rabbitmq": 11,  # for its clients
    "rabbitmq's node": 12,
    "rabbitmq's names": 13,
}
#: Names of programs and passwords that no service may have.
_RESERVED = {*_OTHERS, "worker", "internal"}
#: So that a hundred between two gateways are always enough.
_FARTHEST = 99
# Below the range from which the kernel takes the near ends of outgoing connections, and beside that of
# tests/support/ports.py: a test leaves a port for a moment, to start a killed server on it again.
_FOR_FREE_BASES = range(14_000, 20_000)


@lru_cache
def _distances() -> Mapping[str, int]:
    """How far each port is from the gateway's, the nearest first. Raises BadServiceTable for a row without a place."""
    names = {distance: name for name, distance in _OTHERS.items()}
    for row in services().values():
        distance = row.port - _GATEWAY
        problem = None
        if row.name in _RESERVED:
            problem = "is the name of another program; choose another"
        elif distance in names:
            problem = f"port {row.port} is that of {names[distance]}; choose another"
        elif not 0 < distance <= _FARTHEST:
            problem = f"port must be from {_GATEWAY + 1} to {_GATEWAY + _FARTHEST}"
        if problem:
            raise BadServiceTable(f"services.toml: [{row.name}] {problem}")
        names[distance] = row.name
    return {name: distance for distance, name in sorted(names.items())}


def row_length() -> int:
    """How many ports in a row an instance needs free."""
    return max(_distances().values()) + 1


@dataclass(frozen=True)
class Ports:
    """`base` is the gateway's. The others by name: `ports["postgres"]`."""

    base: int

    def __post_init__(self) -> None:
        highest = 65536 - row_length()
        if not 1 <= self.base <= highest:
            raise InstanceError(f"--port must be between 1 and {highest}: {row_length()} ports in a row are needed")

    def __getitem__(self, name: str) -> int:
        return self.base + _distances()[name]

    @property
    def by_name(self) -> dict[str, int]:
        return {name: self.base + distance for name, distance in _distances().items()}

    @property
    def url(self) -> str:
        return f"http://localhost:{self.base}"

    def require_free(self, but: Collection[str] = ()) -> None:
        """Raise PortTaken naming the first port that cannot be bound, and what it would be for.

        `but` names programs that this instance does without.
        """
        for name, port in self.by_name.items():
            if name.partition("'")[0] in but:
                continue
            reason = _why_not_bindable(port)
            if reason is None:
                continue
            offset = "" if port == self.base else f" (--port {self.base} + {port - self.base})"
            raise PortTaken(
                f"port {port} for {name}{offset} {reason}; choose other ports, for instance --port {self._another()}"
            )

    def _another(self) -> int:
        for base in range(max(self.base, 8000) // 100 * 100 + 100, 65000, 100):
            if all(_why_not_bindable(port) is None for port in Ports(base).by_name.values()):
                return base
        return free_base()


def free_base() -> int:
    """A base port whose whole row is free at this moment."""
    while True:
        base = random.choice(_FOR_FREE_BASES[: -row_length()])
        if all(_why_not_bindable(port) is None for port in range(base, base + row_length())):
            return base


def _why_not_bindable(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "may not be used by this user"
        except OSError:
            return "is taken by another program"
    return None
