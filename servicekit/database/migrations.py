"""Alembic histories: one per service, applied by the database's owner under a lock, so that two at once are safe.

python -m servicekit.database.migrations all
python -m servicekit.database.migrations service_users --to base
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import Field, create_model
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from servicekit.database.privileges import grant, kept, make_pruning
from servicekit.process.services import BadServiceTable, Service, services
from servicekit.process.settings import DatabaseUrl, ServiceSettings, SettingsError, load

# Any number will do as long as all migrations of this database use the same.
_LOCK_KEY = 0x517E_0001
_LOCK_POLL_SECONDS = 0.1
#: How many days rows are kept: as their tables say.
_DEFAULT_DAYS: Mapping[str, int] = {}


def _service(package: str) -> Service:
    return next(service for service in services().values() if service.package == package)


def _config(package: str) -> Config:
    config = Config()
    # Alembic's env.py lies beside this module, shared by all services. Neither colons nor spaces split a path.
    config.set_main_option("path_separator", "newline")
    for option, folder in (
        ("script_location", Path(__file__).parent),
        ("version_locations", _service(package).folder / "migrations" / "versions"),
    ):
        # ConfigParser treats a percent sign as interpolation.
        config.set_main_option(option, str(folder).replace("%", "%%"))
    return config


def _change(package: str, url: str, *, to: str, up: bool, days: Mapping[str, int] = _DEFAULT_DAYS) -> bool:
    config = _config(package)
    service = _service(package)
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"application_name": f"{package} migrations", "connect_timeout": 5}
    )
    with engine.connect() as connection:
        # Asked for again and again: who waits in a statement holds up CREATE INDEX CONCURRENTLY of the one who has it.
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}):
            connection.commit()
            time.sleep(_LOCK_POLL_SECONDS)
        connection.commit()
        try:
            if connection.scalar(text("SELECT current_user")) == service.name:
                raise SettingsError(
                    f"{service.variable('OWNER_DATABASE_URL')}: names the role {service.name}, as which the service "
                    f"runs; name {service.owner}, which owns the database"
                )
            before = MigrationContext.configure(connection).get_current_heads()
            if not (up and to == "head" and set(before) == set(ScriptDirectory.from_config(config).get_heads())):
                connection.commit()
                config.attributes.update(connection=connection, service=service)
                (command.upgrade if up else command.downgrade)(config, to)
                connection.commit()
            changed = MigrationContext.configure(connection).get_current_heads() != before
            # Even if there was nothing to apply: a restored database has no privileges, and settings change.
            changed = make_pruning(connection, service, days) or changed
            changed = grant(connection, service) or changed
            connection.commit()
            return changed
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            connection.commit()
            engine.dispose()


def upgrade(package: str, url: str, *, to: str = "head") -> bool:
    """Upgrade one service's database and grant its role what it needs; returns whether anything changed."""
    return _change(package, url, to=to, up=True)


def downgrade(package: str, url: str, *, to: str) -> bool:
    """Downgrade one service's database to a revision, or to `base`; returns whether anything changed."""
    return _change(package, url, to=to, up=False)


def migration_settings(packages: Iterable[Service]) -> type[ServiceSettings]:
    """The settings of the migrations of these services."""
    packages = list(packages)
    fields: dict[str, Any] = {
        service.variable("OWNER_DATABASE_URL").lower(): (
            DatabaseUrl,
            Field(description=f"where the {service.name} database is, as the role that owns it"),
        )
        for service in packages
    }
    for service in packages:
        for table, (_, days) in kept(service).items():
            description = f"days after which rows of {table} are removed"
            fields[f"{table}_keep_days"] = int, Field(default=days, ge=1, le=36_500, description=description)
    return create_model("MigrationSettings", __base__=ServiceSettings, **fields)


def _change_by_settings(package: str, *, to: str, up: bool) -> bool:
    service = _service(package)
    settings = load(migration_settings([service]))
    url = str(getattr(settings, service.variable("OWNER_DATABASE_URL").lower()))
    days = {table: int(getattr(settings, f"{table}_keep_days")) for table in kept(service)}
    return _change(package, url, to=to, up=up, days=days)


def main(arguments: list[str] | None = None) -> int:
    """Apply migrations from the command line; returns 0 when done, 1 after one clear line otherwise."""
    try:
        known = [service.package for service in services().values()]
    except BadServiceTable as exc:
        print(exc, file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog="python -m servicekit.database.migrations", description=__doc__)
    parser.add_argument("package", choices=[*known, "all"])
    parser.add_argument("--to", default="head", metavar="REVISION", help="default: head; `base` takes everything back")
    parser.add_argument("--down", action="store_true", help="go down to the revision instead of up")
    options = parser.parse_args(arguments)
    packages = known if options.package == "all" else [options.package]
    for package in packages:
        try:
            changed = _change_by_settings(package, to=options.to, up=not (options.down or options.to == "base"))
        except (SettingsError, BadServiceTable) as exc:
            print(f"{package}: {exc}", file=sys.stderr)
            return 1
        except SQLAlchemyError as exc:
            if "SITEWORKS_DEBUG" in os.environ:
                raise
            reason = str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]
            if "authentication failed" in reason:
                reason += "; deploy/postgres/databases.sql makes the roles of a database and sets their passwords"
            print(f"{package}: the migration failed: {reason}", file=sys.stderr)
            return 1
        print(f"{package}: {'changed' if changed else 'nothing to do'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
