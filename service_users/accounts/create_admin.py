"""Make somebody an administrator from the machine itself: the way in when there is nobody yet, or nobody left.

python -m service_users.accounts.create_admin EMAIL
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from service_users import events
from service_users.accounts import changes, factors, sessions
from service_users.accounts.changes import By
from service_users.accounts.password_rules import weakness
from service_users.accounts.passwords import Passwords
from service_users.schemas import UserCreate, UserView
from service_users.settings import UsersSettings
from service_users.tables import IdentityRow, OneTimeToken, User
from servicekit.database.engine import Database
from servicekit.events import outbox
from servicekit.identity.roles import Role
from servicekit.process.clock import Clock, utc_now
from servicekit.process.files import write_whole
from servicekit.process.ids import new_id
from servicekit.process.settings import SettingsError, load
from servicekit.wire.caseless import comparable
from servicekit.wire.errors import AppError

_NAME = "Administrator"
_MOST_ROLES = 16


class NotMade(Exception):
    """Nobody was made an administrator; the text is one line that says why."""


def create_admin(
    database: Database, passwords: Passwords, wanted: UserCreate, password: str, *, clock: Clock = utc_now
) -> UserView:
    """Store an administrator with this password, or make one of whoever has the address.

    That one is enabled, keeps their name and other roles, and whatever let them in before ends: password, second
    factors, identities, sessions and access tokens. Raises as `Database.transaction` does.
    """
    password_hash = passwords.hash(password)
    now = clock()
    with database.transaction() as transaction:
        found = transaction.execute(
            select(User).where(User.email_key == comparable(wanted.email)).with_for_update()
        ).scalar_one_or_none()
        if found is None:
            user = UserView.unchecked(
                id=new_id(),
                email=wanted.email,
                name=wanted.name,
                roles=[Role.ADMIN.value],
                created_at=now,
                updated_at=now,
            )
            keys = {"email_key": comparable(user.email), "name_key": comparable(user.name)}
            row = {name: getattr(user, name) for name in UserView.model_fields} | keys
            transaction.execute(insert(User).values(**row, password_hash=password_hash))
            outbox.add_all(transaction, [events.created(user)])
        else:
            others = [role for role in found.roles if role != Role.ADMIN.value]
            roles = [*others[: _MOST_ROLES - 1], Role.ADMIN.value]
            shown = {name: getattr(found, name) for name in UserView.model_fields}
            user = UserView.unchecked(**shown | {"roles": roles, "updated_at": max(now, found.created_at)})
            sessions.end_all(transaction, user.id)
            factors.forget(transaction, user.id)
            transaction.execute(delete(IdentityRow).where(IdentityRow.user_id == user.id))
            transaction.execute(delete(OneTimeToken).where(OneTimeToken.user_id == user.id))
            changes.raise_epoch(
                transaction,
                user.id,
                now,
                roles=roles,
                password_hash=password_hash,
                must_change_password=False,
                disabled_at=None,
                updated_at=user.updated_at,
            )
            outbox.add_all(transaction, [events.updated(user, found.roles)])
        changes.record(transaction, "admin.created", By(), user.id, now)
    return user


def make_admin(
    database_url: str, email: str, *, name: str | None = None, password: str | None = None, file: Path | None = None
) -> str:
    """The same in the database at this URL; returns one line for whoever did it.

    A password that is not given is made, and that line has it if it goes to a terminal; otherwise it is written to
    `file`, which only its owner can read. Raises NotMade.
    """
    made = None if password is not None else secrets.token_urlsafe(18)
    if made is not None and file is None and not sys.stdout.isatty():
        raise NotMade("there is no terminal to show a password on; name a file for it with --password-file")
    try:
        wanted = UserCreate(email=email, name=name or _NAME, password=made or password)
    except ValidationError as exc:
        wrong = exc.errors(include_url=False, include_input=False)[0]
        raise NotMade(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].removeprefix('Value error, ')}") from exc
    if password is not None and (wrong_password := weakness(password, (email, wanted.name))) is not None:
        raise NotMade(f"password: {wrong_password}")
    if made is not None and not sys.stdout.isatty():
        assert file is not None
        # First, so that no administrator is made whose password is lost.
        write_whole(file, f"{made}\n".encode())
    database = Database(database_url, application_name="create_admin", pool_size=1)
    try:
        user = create_admin(database, Passwords(places=1), wanted, wanted.password or "")
    except AppError as exc:
        raise NotMade(exc.message) from exc
    finally:
        database.dispose()
    if made is None:
        return f"{user.email} is an administrator."
    if sys.stdout.isatty():
        return f"{user.email} is an administrator. Their password, shown only now: {made}"
    return f"{user.email} is an administrator. Their password is in {file}, which only its owner can read."


def asked_password() -> str:
    """Ask for a password at the terminal, twice; without one read it as a line of the input. Raises NotMade."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise NotMade("the two passwords differ")
    return password


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m service_users.accounts.create_admin",
        description="Make somebody an administrator, in the database that USERS_DATABASE_URL names. Whoever has the "
        "address gets the role and a new password, is enabled, and is logged out everywhere.",
    )
    parser.add_argument("email", help="the address to log in with")
    parser.add_argument("--name", help=f"the name of a new user ({_NAME})")
    parser.add_argument("--ask", action="store_true", help="ask for the password instead of making one")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="where a made password goes off a terminal")
    options = parser.parse_args(argv)
    try:
        url = load(UsersSettings).users_database_url
        password = asked_password() if options.ask else None
        print(make_admin(url, options.email, name=options.name, password=password, file=options.password_file))
    except (NotMade, SettingsError, OSError) as exc:
        print(f"create_admin: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
