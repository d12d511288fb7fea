"""./scripts/create-admin: a way into an instance from its own machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from scripts.instance.command_line import exit_status, say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout

_VARIABLE = "USERS_DATABASE_URL"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/create-admin",
        description="Make somebody an administrator. Whoever has the address gets the role and a new password, is "
        f"enabled, and is logged out everywhere. With {_VARIABLE} set that database is meant; otherwise the one of an "
        "instance, whose PostgreSQL is started for the time this takes if it does not run. A password is made, and "
        "shown once, on a terminal; otherwise it is written to secrets/administrator in the data folder.",
    )
    parser.add_argument("email", help="the address to log in with")
    parser.add_argument("--name", help="the name of a new user (Administrator)")
    parser.add_argument("--ask", action="store_true", help="ask for the password instead of making one")
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)

    def act() -> int:
        # Imported here because they need packages, and the help does without.
        from scripts.instance.databases import database_server
        from scripts.instance.programs import database_urls
        from service_users.accounts.create_admin import NotMade, asked_password, make_admin

        named = os.environ.get(_VARIABLE)
        if named and options.data:
            raise InstanceError(f"{_VARIABLE} is set and so is --data: which of them is meant?")
        try:
            password = asked_password() if options.ask else None
            if named:
                say(make_admin(named, options.email, name=options.name, password=password))
                return 0
            layout = Layout.of(options.data)
            with database_server(layout, "./scripts/create-admin") as server:
                url = database_urls(server, Credentials(layout.secrets))["users"]
                file = layout.secrets / "administrator"
                say(make_admin(url, options.email, name=options.name, password=password, file=file))
        except NotMade as exc:
            raise InstanceError(str(exc)) from exc
        return 0

    return exit_status("create-admin", act)


if __name__ == "__main__":
    sys.exit(main())
