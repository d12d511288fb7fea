"""The programs of an instance by name, and their ports.

All are on 127.0.0.1, each at a fixed distance from the gateway's, which is --port.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from scripts.instance.errors import InstanceError, PortTaken
from servicekit.process.services import BadServiceTable, services

HOST = "127.0.0.1"
STORES = ("postgres", "rabbitmq")
#: The gateway's unless --port says otherwise; the ports in services.toml are relative to it.
GATEWAY_PORT = 8000
WORKERS = 2  # processes, unless --workers says otherwise
#: Programs without a row there, by their distance from the gateway.
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
#: So that gateways a hundred ports apart never collide.
_FARTHEST = 99
_NOT_HERE = "is no address of this machine"
# Below the kernel's ephemeral ports, and apart from the range of tests/support/ports.py, where a port may be free for a
# moment only because a test restarts a killed server on it.
_FOR_FREE_BASES = range(14_000, 20_000)


def names() -> tuple[str, ...]:
    """The programs' names in commands, in the order of starting; stopping is the reverse."""
    return (*STORES, *services(), "events", "worker", "ingest", "relay", "gateway")


@lru_cache
def _distances() -> Mapping[str, int]:
    """Each port's distance from the gateway's, nearest first. Raises BadServiceTable for a row that does not fit."""
    names = {distance: name for name, distance in _OTHERS.items()}
    for row in services().values():
        distance = row.port - GATEWAY_PORT
        problem = None
        if row.name in _RESERVED:
            problem = "is the name of another program; choose another"
        elif distance in names:
            problem = f"port {row.port} is that of {names[distance]}; choose another"
        elif not 0 < distance <= _FARTHEST:
            problem = f"port must be from {GATEWAY_PORT + 1} to {GATEWAY_PORT + _FARTHEST}"
        if problem:
            raise BadServiceTable(f"services.toml: [{row.name}] {problem}")
        names[distance] = row.name
    return {name: distance for distance, name in sorted(names.items())}


def row_length() -> int:
    """How many consecutive ports an instance needs."""
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

    def require_free(self, but: Collection[str] = (), *, gateway: str = HOST) -> None:
        """Raises PortTaken, which names the first port that cannot be bound and its use.

        `but` names programs that this instance does not run; `gateway` is where the gateway listens.
        """
        for name, port in self.by_name.items():
            if name.partition("'")[0] in but:
                continue
            address = gateway if name == "gateway" else HOST
            reason = _why_not_bindable(port, address)
            if reason is None:
                continue
            if reason == _NOT_HERE:
                raise PortTaken(f"--listen {address} {reason}")
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
    """A base port whose whole row is free now."""
    while True:
        base = random.choice(_FOR_FREE_BASES[: -row_length()])
        if all(_why_not_bindable(port) is None for port in range(base, base + row_length())):
            return base


def _why_not_bindable(port: int, address: str = HOST) -> str | None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return "may not be used by this user"
        except OSError as exc:
            return _NOT_HERE if exc.errno == errno.EADDRNOTAVAIL else "is taken by another program"
    return None
