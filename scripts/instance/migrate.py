"""./scripts/migrate: apply the histories of users, orders and tasks."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from scripts.instance.borrowing import database_server
from scripts.instance.command_line import exit_status
from scripts.instance.credentials import Credentials
from scripts.instance.databases import DATABASES
from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.programs import migration_environment


def _apply(packages: Sequence[str], environment: dict[str, str]) -> int:
    for package in packages:
        done = subprocess.run(
            [sys.executable, "-m", "servicekit.database.migrations", package],
            cwd=CHECKOUT,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            return done.returncode
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/migrate",
        description="Bring the tables of users, orders and tasks up to this version. Safe to run twice, even at once. "
        "./scripts/run does it by itself at every start. With USERS_DATABASE_URL, ORDERS_DATABASE_URL or "
        "TASKS_DATABASE_URL set, exactly those databases are meant; otherwise the ones of an instance, whose "
        "PostgreSQL is started for the time this takes if it does not run.",
    )
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)
    named = [name for name in DATABASES if os.environ.get(f"{name.upper()}_DATABASE_URL")]

    def act() -> int:
        if named and options.data:
            raise InstanceError(f"{named[0].upper()}_DATABASE_URL is set and so is --data: which of them is meant?")
        if named:
            return _apply([f"service_{name}" for name in named], dict(os.environ))
        layout = Layout.of(options.data)
        with database_server(layout, "./scripts/migrate") as server:
            credentials = Credentials(layout.secrets)
            urls = {name: server.url(name, name, credentials[name]) for name in DATABASES}
            return _apply(["all"], migration_environment(urls))

    return exit_status("migrate", act)


if __name__ == "__main__":
    sys.exit(main())
