"""A RabbitMQ of a benchmark's own: the installed server's programs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.installing import Missing
from scripts.instance.errors import InstanceError
from scripts.instance.own_broker import OwnBroker
from scripts.instance.ports import free_base
from scripts.instance.rabbitmq import installed


def start_broker(folder: Path) -> OwnBroker:
    """Start one with its files in `folder`; messages and queues that last are written with fsync, as ever.

    Raises Missing where it is not installed or does not start. Whoever asked for it calls `stop` in the end.
    """
    programs = installed()
    if programs is None:
        raise Missing("needs an installed rabbitmq-server")
    folder.mkdir(parents=True, exist_ok=True)
    broker = OwnBroker(folder, free_base(), programs)
    try:
        broker.start()
    except (InstanceError, OSError) as error:
        broker.stop()
        raise Missing(f"RabbitMQ does not start: {str(error).strip().splitlines()[-1]}") from error
    return broker
