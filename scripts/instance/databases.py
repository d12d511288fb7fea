"""Apply deploy/postgres/databases.sql, the same file that serves compose and servers of one's own."""

from __future__ import annotations

from scripts.instance.credentials import Credentials
from scripts.instance.errors import StartFailed
from scripts.instance.layout import CHECKOUT
from scripts.instance.postgres import EmbeddedPostgres

DATABASES = ("users", "orders", "tasks")
#: Whoever names what is in another database stands before it: orders and tasks name users.
DUMP_ORDER = ("orders", "tasks", "users")
_SCRIPT = CHECKOUT / "deploy" / "postgres" / "databases.sql"


def create_databases(server: EmbeddedPostgres, credentials: Credentials) -> None:
    """Make roles and databases where they are missing, and set the passwords. Takes 30 ms when all is there."""
    passwords = {f"{name.upper()}_DATABASE_PASSWORD": credentials[name] for name in DATABASES}
    done = server.tool("psql", "-X", "-q", "-d", "postgres", "-f", _SCRIPT, environment=passwords)
    if done.returncode != 0:
        raise StartFailed(f"the databases could not be made: {done.stderr.strip()}")
