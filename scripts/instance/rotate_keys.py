"""./scripts/rotate-keys: another signing key for an instance, before the present one is due."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scripts.instance.command_line import exit_status, say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/rotate-keys",
        description="Make another key for signing access tokens, as the users service does by itself every 30 days. It "
        "signs ten minutes later, when everybody knows it, and the one before stays good for the tokens that it has "
        "signed: none is refused. While one waits to sign, no other is made. PostgreSQL is started for the time this "
        "takes if the instance does not run. In compose it is docker compose run --rm service_users python -m "
        "service_users.accounts.rotate_keys.",
    )
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)

    def act() -> int:
        # Imported here because they need packages, and the help does without.
        from scripts.instance.databases import database_server
        from scripts.instance.programs import database_urls
        from service_users.accounts.rotate_keys import NotRotated, rotate_keys
        from service_users.auth_key import AuthKey

        layout = Layout.of(options.data)
        with database_server(layout, "./scripts/rotate-keys") as server:
            credentials = Credentials(layout.secrets)
            try:
                say(rotate_keys(database_urls(server, credentials)["users"], AuthKey.read(credentials["auth_key"])))
            except NotRotated as exc:
                raise InstanceError(str(exc)) from exc
        return 0

    return exit_status("rotate-keys", act)


if __name__ == "__main__":
    sys.exit(main())
