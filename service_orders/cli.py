"""Processes of the orders service beside its web server.

python -m service_orders.cli relay
"""

from __future__ import annotations

import argparse
import sys

from service_orders.settings import OrdersRelaySettings
from servicekit.relay_process import redeliver, run_relay
from servicekit.settings import load_or_exit


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service_orders.cli", description="The orders service's processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("relay", help="deliver the orders' events until SIGTERM")
    commands.add_parser("redeliver", help="let events that were refused for good be delivered again")
    command = parser.parse_args(arguments).command
    settings = load_or_exit(OrdersRelaySettings, "orders_relay")
    if command == "redeliver":
        print(f"{redeliver(settings.orders_database_url, 'orders')} deliveries wait again")
        return 0
    return run_relay(
        "orders",
        settings,
        database_url=settings.orders_database_url,
        bind=settings.orders_relay_bind,
        destinations={"users": settings.users_url, "tasks": settings.tasks_url},
        remembers=["processed_events", "idempotency_keys"],
    )


if __name__ == "__main__":
    sys.exit(main())
