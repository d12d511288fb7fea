"""The ports of an instance: ten in a row from --port, all on 127.0.0.1, and four more where RabbitMQ is used."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from dataclasses import dataclass

from scripts.instance.errors import InstanceError, PortTaken

HOST = "127.0.0.1"
_COUNT = 14
# Below the range from which the kernel takes the near ends of outgoing connections, and beside that of
# tests/support/ports.py: a test leaves a port for a moment, to start a killed server on it again.
_FOR_FREE_BASES = range(14_000, 20_000)


@dataclass(frozen=True)
class Ports:
    """`base` is the gateway's."""

    base: int

    def __post_init__(self) -> None:
        highest = 65536 - _COUNT
        if not 1 <= self.base <= highest:
            raise InstanceError(f"--port must be between 1 and {highest}: fourteen ports in a row are needed")

    @property
    def gateway(self) -> int:
        return self.base

    @property
    def users(self) -> int:
        return self.base + 1

    @property
    def orders(self) -> int:
        return self.base + 2

    @property
    def tasks(self) -> int:
        return self.base + 3

    @property
    def events(self) -> int:
        return self.base + 4

    @property
    def postgres(self) -> int:
        return self.base + 5

    @property
    def supervisor(self) -> int:
        return self.base + 6

    @property
    def users_relay(self) -> int:
        return self.base + 7

    @property
    def orders_relay(self) -> int:
        return self.base + 8

    @property
    def tasks_relay(self) -> int:
        return self.base + 9

    @property
    def ingest(self) -> int:
        return self.base + 10

    @property
    def rabbitmq(self) -> int:
        """The clients'. The two behind it are its node's and its name server's."""
        return self.base + 11

    @property
    def by_name(self) -> dict[str, int]:
        return {
            "gateway": self.gateway,
            "users": self.users,
            "orders": self.orders,
            "tasks": self.tasks,
            "events": self.events,
            "postgres": self.postgres,
            "supervisor": self.supervisor,
            "users-relay": self.users_relay,
            "orders-relay": self.orders_relay,
            "tasks-relay": self.tasks_relay,
            "ingest": self.ingest,
            "rabbitmq": self.rabbitmq,
            "rabbitmq's node": self.rabbitmq + 1,
            "rabbitmq's names": self.rabbitmq + 2,
        }

    @property
    def url(self) -> str:
        return f"http://localhost:{self.gateway}"

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
        base = random.choice(_FOR_FREE_BASES[:-_COUNT])
        if all(_why_not_bindable(port) is None for port in range(base, base + _COUNT)):
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
