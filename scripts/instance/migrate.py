"""./scripts/migrate: apply the history of every service."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from scripts.instance.command_line import exit_status
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from servicekit.process.services import services


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/migrate",
        description="Bring the tables of every service up to this version. Safe to run twice, even at once. "
        "./scripts/run does it by itself at every start. With USERS_DATABASE_URL, ORDERS_DATABASE_URL and the like "
        "set, exactly those databases are meant; otherwise the ones of an instance, whose PostgreSQL is started for "
        "the time this takes if it does not run.",
    )
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)

    def act() -> int:
        # Imported here because they need packages, and the help does without.
        from scripts.instance.databases import apply_histories, database_server
        from scripts.instance.programs import database_urls, migration_environment

        named = [row for row in services().values() if os.environ.get(row.variable("DATABASE_URL"))]
        if named and options.data:
            raise InstanceError(f"{named[0].variable('DATABASE_URL')} is set and so is --data: which of them is meant?")
        for row in named:
            if status := apply_histories(row.package, os.environ):
                return status
        if named:
            return 0
        layout = Layout.of(options.data)
        with database_server(layout, "./scripts/migrate") as server:
            urls = database_urls(server, Credentials(layout.secrets))
            return apply_histories("all", migration_environment(urls))

    return exit_status("migrate", act)


if __name__ == "__main__":
    sys.exit(main())
