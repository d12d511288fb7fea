"""The first login of an instance that was open: nothing that anybody made before lets them in."""

from __future__ import annotations

from sqlalchemy import text

from scripts.instance.command_line import say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import StartFailed
from scripts.instance.layout import Layout
from scripts.instance.postgres import EmbeddedPostgres
from scripts.instance.programs import database_urls
from service_users.accounts import changes
from service_users.accounts.changes import By
from service_users.accounts.create_admin import NotMade, make_admin
from service_users.events import disabled
from servicekit.database.engine import Database
from servicekit.events import outbox
from servicekit.process.clock import utc_now

#: The first administrator; others may be made with their own addresses.
ADMINISTRATOR = "admin@example.com"
#: With the keys that signed them, access tokens end.
_ENDED = ("sessions", "api_keys", "one_time_tokens", "signing_keys")
# Whoever asked may have set them, and nobody has logged in by one since.
_FORGET = "UPDATE users SET password_hash = NULL, must_change_password = false"
# Whoever asked for it was given these roles. ./scripts/create-admin confirms them.
_DISABLE = (
    "UPDATE users SET disabled_at = :now WHERE disabled_at IS NULL AND roles && ARRAY['admin', 'auditor'] RETURNING id"
)


def close(layout: Layout, server: EmbeddedPostgres, credentials: Credentials) -> None:
    """End all sessions and keys, forget all passwords, disable whoever has more rights than a user, and make an
    administrator. Raises StartFailed."""
    url = database_urls(server, credentials)["users"]
    database = Database(url, application_name="closing", pool_size=1)
    now = utc_now()
    try:
        with database.transaction() as transaction:
            for table in _ENDED:
                transaction.execute(text(f"DELETE FROM {table}"))
            transaction.execute(text(_FORGET))
            ended = transaction.execute(text(_DISABLE), {"now": now}).scalars().all()
            # Their tasks and schedules end too.
            outbox.add_all(transaction, [disabled(user_id, now) for user_id in ended])
            changes.record(transaction, "instance.closed", By(), None, now)
            for user_id in ended:
                changes.record(transaction, "user.disabled", By(), user_id, now)
    finally:
        database.dispose()
    try:
        say(make_admin(url, ADMINISTRATOR, file=layout.secrets / "administrator"))
    except NotMade as exc:
        raise StartFailed(f"no administrator was made: {exc}") from exc
    # What was stored would let such tokens in, and those of the new keys not, until it is asked for again.
    layout.keys.unlink(missing_ok=True)
    layout.closed.touch(mode=0o600)
