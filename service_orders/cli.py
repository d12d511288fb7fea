"""Processes of the orders service beside its web server.

python -m service_orders.cli relay
"""

from __future__ import annotations

import argparse
import sys

from service_orders.settings import OrdersRelaySettings
from servicekit.events.relay_process import redeliver, run_relay
from servicekit.process.settings import load_or_exit


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service_orders.cli", description="The orders service's processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("relay", help="deliver the orders' events until SIGTERM")
    again = commands.add_parser("redeliver", help="let events that were refused for good be delivered again")
    again.add_argument("--all", action="store_true", help="and all others that are still kept: after a restore")
    given = parser.parse_args(arguments)
    settings = load_or_exit(OrdersRelaySettings, "orders_relay")
    destinations = {"users": settings.users_url, "tasks": settings.tasks_url}
    if given.command == "redeliver":
        count = redeliver(settings.orders_database_url, "orders", again_to=destinations if given.all else ())
        print(f"{count} deliveries wait again")
        return 0
    return run_relay(
        "orders",
        settings,
        database_url=settings.orders_database_url,
        bind=settings.orders_relay_bind,
        destinations=destinations,
        remembers=["processed_events", "idempotency_keys"],
    )


if __name__ == "__main__":
    sys.exit(main())
