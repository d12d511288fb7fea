"""Processes of the users service beside its web server.

python -m service_users.cli relay
"""

from __future__ import annotations

import argparse
import sys

from service_users.settings import UsersRelaySettings
from servicekit.events.relay_process import redeliver, run_relay
from servicekit.process.settings import load_or_exit


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service_users.cli", description="The users service's processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("relay", help="deliver the users' events until SIGTERM")
    again = commands.add_parser("redeliver", help="let events that were refused for good be delivered again")
    again.add_argument("--all", action="store_true", help="and all others that are still kept: after a restore")
    given = parser.parse_args(arguments)
    settings = load_or_exit(UsersRelaySettings, "users_relay")
    destinations = {"orders": settings.orders_url, "tasks": settings.tasks_url}
    if given.command == "redeliver":
        count = redeliver(settings.users_database_url, "users", again_to=destinations if given.all else ())
        print(f"{count} deliveries wait again")
        return 0
    return run_relay(
        "users",
        settings,
        database_url=settings.users_database_url,
        bind=settings.users_relay_bind,
        destinations=destinations,
        remembers=["idempotency_keys"],
    )


if __name__ == "__main__":
    sys.exit(main())
