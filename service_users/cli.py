"""Processes of the users service beside its web server.

python -m service_users.cli relay
"""

from __future__ import annotations

import argparse
import sys

from service_users.settings import UsersRelaySettings
from servicekit.relay_process import redeliver, run_relay
from servicekit.settings import load_or_exit


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service_users.cli", description="The users service's processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("relay", help="deliver the users' events until SIGTERM")
    commands.add_parser("redeliver", help="let events that were refused for good be delivered again")
    command = parser.parse_args(arguments).command
    settings = load_or_exit(UsersRelaySettings, "users_relay")
    if command == "redeliver":
        print(f"{redeliver(settings.users_database_url, 'users')} deliveries wait again")
        return 0
    return run_relay(
        "users",
        settings,
        database_url=settings.users_database_url,
        bind=settings.users_relay_bind,
        destinations={"orders": settings.orders_url, "tasks": settings.tasks_url},
        remembers=["idempotency_keys"],
    )


if __name__ == "__main__":
    sys.exit(main())
