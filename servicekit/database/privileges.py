"""What a service's role may do with its tables, granted by their owner after every migration.

A service runs as the role of its name, which owns nothing: it cannot create, change, empty or drop a table. The module
`privileges` of its package names each of its tables with the verbs that the service needs:

    PRIVILEGES = {"toys": READ_AND_WRITE, "toy_history": "SELECT, INSERT"}

The service can do nothing with a table that is not named there, unless its owner has granted that by hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from servicekit.process.services import Service

READ_AND_WRITE = "SELECT, INSERT, UPDATE, DELETE"
#: Those of the tables that servicekit defines, in whichever database they are. To lock a row takes UPDATE.
SHARED = {
    "outbox": READ_AND_WRITE,
    "outbox_deliveries": READ_AND_WRITE,
    "processed_events": READ_AND_WRITE,
    "tombstones": "SELECT, INSERT",
    "idempotency_keys": READ_AND_WRITE,
    "alembic_version": "",
}

_GRANTED = text("""
    SELECT c.relname, ARRAY(
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.privilege_type END FROM aclexplode(c.relacl) a
        WHERE a.grantee IN (0, CAST(CAST(:role AS text) AS regrole)))
    FROM pg_class c
    WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind IN ('r', 'p') AND c.relname = ANY (:tables)
""")


def declared(service: Service) -> dict[str, str]:
    """The verbs of every table, by its name."""
    own: Mapping[str, str] = service.module("privileges").PRIVILEGES
    return {**SHARED, **own}


def grant(connection: Connection, service: Service) -> bool:
    """Grant what is declared, and revoke the rest, as the owner of the tables; returns whether anything changed.

    Raises SQLAlchemy's error if there is no such role. Commits nothing.
    """
    wanted = declared(service)
    changed = False
    for table, granted in connection.execute(_GRANTED, {"role": service.name, "tables": list(wanted)}).all():
        if set(granted) != {*wanted[table].split(", ")} - {""}:
            # The names are those of the declarations above.
            connection.execute(text(f'REVOKE ALL ON "{table}" FROM PUBLIC, "{service.name}"'))
            if wanted[table]:
                connection.execute(text(f'GRANT {wanted[table]} ON "{table}" TO "{service.name}"'))
            changed = True
    return changed
