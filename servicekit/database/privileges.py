"""What a service's role may do with its tables and functions, granted by their owner after every migration.

A service runs as the role of its name, which owns nothing: it cannot create, change, empty or drop a table. The module
`privileges` of its package names each of its tables with the verbs that the service needs:

    PRIVILEGES = {"toys": READ_AND_WRITE, "toy_history": "SELECT, INSERT", "weight_of_toy": "EXECUTE"}

Rows that it may not delete are removed by a function of their owner once they are old enough:

    KEPT = {"toy_history": KeptFor("happened_at", days=365)}

makes `prune_toy_history()`, which removes up to 10,000 rows that are older than TOY_HISTORY_KEEP_DAYS, a setting of the
migrations, and returns how many. The service can call it, and change nothing about it.

The service can do nothing with a table that is not named there, unless its owner has granted that by hand. A function
that is not named keeps PostgreSQL's default: everybody may call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from servicekit.process.services import Service

#: Rows that a pruning function removes at a time.
PRUNED = 10_000
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


_SOURCE = text("SELECT prosrc FROM pg_proc WHERE proname = :name AND pronamespace = CAST('public' AS regnamespace)")


class KeptFor(NamedTuple):
    """How long the rows of a table are kept: the column of their time, and how many days unless the setting says
    otherwise."""

    column: str
    days: int


def declared(service: Service) -> dict[str, str]:
    """The verbs of every table and function, by its name."""
    own: Mapping[str, str] = service.module("privileges").PRIVILEGES
    return {**SHARED, **own, **{f"prune_{table}": "EXECUTE" for table in kept(service)}}


def kept(service: Service) -> Mapping[str, KeptFor]:
    """The tables whose old rows their owner removes."""
    found: Mapping[str, KeptFor] = getattr(service.module("privileges"), "KEPT", {})
    return found


def make_pruning(connection: Connection, service: Service, days: Mapping[str, int]) -> bool:
    """Make the functions that remove old rows, as the owner of the tables; returns whether anything changed.

    `days` are those of the settings, by table. Commits nothing.
    """
    changed = False
    for table, (column, default) in kept(service).items():
        name = f"prune_{table}"
        there = connection.scalar(_SOURCE, {"name": name})
        if not connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"public.{table}"}):
            connection.execute(text(f"DROP FUNCTION IF EXISTS {name}()"))
            changed = changed or there is not None
            continue
        source = f"""
            WITH gone AS (
                DELETE FROM public.{table} WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM public.{table} WHERE {column} < now() - interval '{days.get(table, default)} days'
                    ORDER BY {column} LIMIT {PRUNED}))
                RETURNING 1)
            SELECT count(*) FROM gone"""
        if there != source:
            # Whoever calls it must not choose what its names mean.
            connection.execute(text(
                f"CREATE OR REPLACE FUNCTION {name}() RETURNS bigint LANGUAGE sql SECURITY DEFINER "
                f"SET search_path = pg_catalog, pg_temp AS $${source}$$"
            ))  # fmt: skip
            changed = True
    return changed


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
