"""What a service's role may do with its tables and functions, granted by their owner after every migration.

A service runs as the role of its name, which owns nothing: it cannot create, change, empty or drop a table. The module
`privileges` of its package names each of its tables with the verbs that the service needs:

    PRIVILEGES = {"toys": READ_AND_WRITE, "toy_history": "SELECT, INSERT", "weight_of_toy": "EXECUTE"}

The service can do nothing with a table that is not named there, unless its owner has granted that by hand. A function
that is not named keeps PostgreSQL's default: everybody may call it.
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
    SELECT o.name, o.called, ARRAY(
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.privilege_type END FROM aclexplode(o.acl) a
        WHERE a.grantee IN (0, CAST(CAST(:role AS text) AS regrole))) AS granted
    FROM (
        SELECT relname, 'TABLE ' || CAST(oid AS regclass), relacl, relnamespace
          FROM pg_class WHERE relkind IN ('r', 'p')
        UNION ALL
        SELECT proname, 'FUNCTION ' || CAST(oid AS regprocedure), coalesce(proacl, acldefault('f', proowner)),
               pronamespace
          FROM pg_proc
    ) AS o (name, called, acl, namespace)
    WHERE o.namespace = CAST('public' AS regnamespace) AND o.name = ANY (:names)
""")


def declared(service: Service) -> dict[str, str]:
    """The verbs of every table and function, by its name."""
    own: Mapping[str, str] = service.module("privileges").PRIVILEGES
    return {**SHARED, **own}


def grant(connection: Connection, service: Service) -> bool:
    """Grant what is declared, and revoke the rest, as the owner of the tables; returns whether anything changed.

    Raises SQLAlchemy's error if there is no such role. Commits nothing.
    """
    wanted = declared(service)
    changed = False
    for name, called, granted in connection.execute(_GRANTED, {"role": service.name, "names": list(wanted)}).all():
        if set(granted) != {*wanted[name].split(", ")} - {""}:
            # The names are those of the declarations above.
            connection.execute(text(f'REVOKE ALL ON {called} FROM PUBLIC, "{service.name}"'))
            if wanted[name]:
                connection.execute(text(f'GRANT {wanted[name]} ON {called} TO "{service.name}"'))
            changed = True
    return changed
