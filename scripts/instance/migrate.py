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
        "./scripts/run does it by itself at every start. With USERS_OWNER_DATABASE_URL and the like set, "
        "exactly those databases are meant; otherwise the ones of an instance, whose PostgreSQL is started for "
        "the time this takes if it does not run.",
    )
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)

    def act() -> int:
        # Imported here because they need packages, and the help does without.
        from scripts.instance.databases import apply_histories, database_server
        from scripts.instance.programs import migration_environment, owner_urls

        # Without the owner's the service's own does not suffice, but says that no instance is meant.
        named = {
            row.package: variable
            for row in services().values()
            for variable in map(row.variable, ("DATABASE_URL", "OWNER_DATABASE_URL"))
            if os.environ.get(variable)
        }
        if named and options.data:
            raise InstanceError(f"{next(iter(named.values()))} is set and so is --data: which of them is meant?")
        for package in named:
            if status := apply_histories(package, os.environ):
                return status
        if named:
            return 0
        layout = Layout.of(options.data)
        with database_server(layout, "./scripts/migrate") as server:
            urls = owner_urls(server, Credentials(layout.secrets))
            return apply_histories("all", migration_environment(urls))

    return exit_status("migrate", act)


if __name__ == "__main__":
    sys.exit(main())
