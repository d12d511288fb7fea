"""Command line of the relay.

python -m servicekit.events relay
python -m servicekit.events redeliver users --all
"""

from __future__ import annotations

import argparse
import sys

from servicekit.events.relay_process import redeliver, run_relays
from servicekit.events.relay_settings import PROCESS, relay_settings
from servicekit.process.services import BadServiceTable, services
from servicekit.process.settings import load_or_exit


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        table = services()
    except BadServiceTable as exc:
        raise SystemExit(f"{PROCESS} cannot start: {exc}") from None
    parser = argparse.ArgumentParser(prog="python -m servicekit.events", description="Events between the services.")
    commands = parser.add_subparsers(dest="command", required=True)
    relay = commands.add_parser(
        "relay",
        help="deliver events until SIGTERM",
        description="Deliver the events of these services until SIGTERM or SIGINT, each from its own database; without"
        " a name, those of every service whose SERVICE_DATABASE_URL is set. Any number may run: one delivers, the"
        " others stand by.",
    )
    relay.add_argument("services", metavar="SERVICE", nargs="*", type=_service, help=", ".join(table))
    again = commands.add_parser("redeliver", help="let events that were refused for good be delivered again")
    again.add_argument("service", metavar="SERVICE", type=_service, help="the service whose events they are")
    again.add_argument("--all", action="store_true", help="and all others that are still kept: after a restore")
    given = parser.parse_args(arguments)
    names = given.services if given.command == "relay" else [given.service]
    settings = load_or_exit(relay_settings(names), PROCESS)
    urls = settings.database_urls
    if not urls:
        variables = ", ".join(service.variable("DATABASE_URL") for service in table.values())
        raise SystemExit(f"{PROCESS} cannot start: none of {variables} is set")
    if given.command == "relay":
        return run_relays(settings, names or list(urls))
    count = redeliver(urls[given.service], everything=given.all)
    print(f"{count} deliveries wait again")
    return 0


def _service(name: str) -> str:
    if name not in services():
        raise argparse.ArgumentTypeError(f"there is no service {name}; there are {', '.join(services())}")
    return name


if __name__ == "__main__":
    sys.exit(main())
