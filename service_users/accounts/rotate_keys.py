"""Make another key for signing access tokens, before the one in use is due to be replaced.

python -m service_users.accounts.rotate_keys
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from service_users.accounts.signing import SigningKeys
from service_users.auth_key import AuthKey
from service_users.settings import UsersSettings
from servicekit.database.engine import Database
from servicekit.process.settings import SettingsError, load
from servicekit.wire.errors import AppError


class NotRotated(Exception):
    """No key was made; the text is one line that says why."""


def rotate_keys(database_url: str, key: AuthKey) -> str:
    """Make the next signing key in the database at this URL; returns one line for whoever did it. Raises NotRotated."""
    database = Database(database_url, application_name="rotate_keys", pool_size=1)
    try:
        # The issuer is of no matter: nothing is signed here.
        signs_at = SigningKeys(database, key, issuer="").rotate()
    except AppError as exc:
        raise NotRotated(exc.message) from exc
    finally:
        database.dispose()
    at = datetime.fromtimestamp(signs_at, UTC)
    return f"The next key signs access tokens from {at:%H:%M:%S} UTC on; those of before stay good."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m service_users.accounts.rotate_keys",
        description="Make another key for signing access tokens, in the database that USERS_DATABASE_URL names, "
        "encrypted by AUTH_KEY. It signs ten minutes later, when everybody knows it: no token is refused. While one "
        "waits for that, no other is made.",
    )
    parser.parse_args(argv)
    try:
        settings = load(UsersSettings)
        key = settings.key_of_accounts()
        if key is None:
            raise NotRotated("AUTH_KEY: is not set, so there are no keys")
        print(rotate_keys(settings.users_database_url, key))
    except (NotRotated, SettingsError, ValueError) as exc:
        print(f"rotate_keys: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
