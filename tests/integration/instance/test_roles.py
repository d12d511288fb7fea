"""Two roles for each database: its owner, for migrations, and the one that the service runs as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege

from scripts.instance import archive
from scripts.instance.credentials import Credentials
from scripts.instance.databases import create_databases, server_alone
from scripts.instance.layout import Layout
from scripts.instance.postgres import EmbeddedPostgres, major_version
from scripts.instance.programs import database_urls, owner_urls
from scripts.instance.restore import restore
from servicekit.database import migrations
from servicekit.database.privileges import declared
from servicekit.process.services import Service, services

SERVICES = [pytest.param(row, id=name) for name, row in services().items()]
#: What a role can have: of a table (MAINTAIN from PostgreSQL 17 on), a schema and a database.
_HELD = """
    SELECT c.relname::text, verb FROM pg_class c, unnest(%(verbs)s) verb
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND has_table_privilege(%(role)s, c.oid, verb)
    UNION ALL SELECT c.relname, 'sequence' FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
      AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(%(role)s, c.oid, 'SELECT, USAGE, UPDATE') END
    UNION ALL SELECT nspname, verb FROM pg_namespace, unnest('{CREATE,USAGE}'::text[]) verb
    WHERE nspname !~ '^pg_|^information_schema$' AND has_schema_privilege(%(role)s, oid, verb)
    UNION ALL SELECT datname, verb FROM pg_database, unnest('{CREATE,TEMPORARY,CONNECT}'::text[]) verb
    WHERE datname <> 'template0' AND has_database_privilege(%(role)s, oid, verb)
    UNION ALL SELECT proname, 'EXECUTE' FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND has_function_privilege(%(role)s, oid, 'EXECUTE')
"""
_VERBS = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"]
_OWNERS = """
    SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()
"""
_USER = """
    INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at)
    VALUES (gen_random_uuid(), '{0}', '{0}', 'Anna', 'anna', '{{user}}', now(), now())
"""


def ask(url: str, statement: str, values: dict[str, Any] | None = None) -> list[Any]:
    connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


class Instance:
    """A data folder whose PostgreSQL runs alone."""

    def __init__(self, layout: Layout, server: EmbeddedPostgres) -> None:
        self.layout, self.server = layout, server
        self.urls = database_urls(server, Credentials(layout.secrets))
        self.owners = owner_urls(server, Credentials(layout.secrets))

    def migrate(self) -> None:
        for name, row in services().items():
            migrations.upgrade(row.package, self.owners[name])

    def held(self, row: Service, role: str) -> set[tuple[str, str]]:
        return set(ask(self.server.url(row.name), _HELD, {"role": role, "verbs": _VERBS}))

    def make_as_before(self) -> None:
        """Bring everything to where an earlier version left it: a single role, which owns its database."""
        for row in services().values():
            for statement in (
                f"ALTER DATABASE {row.name} OWNER TO {row.name}",
                f"REASSIGN OWNED BY {row.owner} TO {row.name}",
                f"DROP OWNED BY {row.owner}",
                f"DROP ROLE {row.owner}",
                "GRANT USAGE ON SCHEMA public TO PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC",
            ):
                ask(self.server.url(row.name), statement)
            (self.layout.secrets / row.owner).unlink()


def expected(row: Service, tables: dict[str, str]) -> set[tuple[str, str]]:
    of_tables = {(table, verb) for table, verbs in tables.items() for verb in verbs.split(", ") if verb}
    return {*of_tables, ("public", "USAGE"), (row.name, "CONNECT")}


def tables_of(instance: Instance, row: Service) -> list[str]:
    """And functions."""
    rows = ask(
        instance.server.url(row.name),
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
        " UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    return [name for (name,) in rows]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    layout = Layout.of(tmp_path_factory.mktemp("roles") / "data")
    layout.create_folder()
    with server_alone(layout) as server:
        made = Instance(layout, server)
        made.migrate()
        yield made


@pytest.mark.parametrize("row", SERVICES)
def test_a_service_has_the_declared_privileges_alone_and_public_has_none(instance: Instance, row: Service) -> None:
    tables = {table: declared(row)[table] for table in tables_of(instance, row)}
    assert instance.held(row, row.name) == expected(row, tables)
    assert instance.held(row, "public") == set()


@pytest.mark.parametrize("row", SERVICES)
def test_the_owner_may_enter_its_own_database_alone_and_the_service_is_no_member_of_it(
    instance: Instance, row: Service
) -> None:
    assert {name for name, verb in instance.held(row, row.owner) if verb == "CONNECT"} == {row.name}
    assert ask(instance.owners[row.name], _OWNERS) == [(row.owner,)]
    roles = ask(
        instance.server.url(),
        "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,"
        " EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = ANY (%(roles)s)",
        {"roles": [row.name, row.owner]},
    )
    assert roles == [(False, False)] * 2


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE users ADD COLUMN mine int",
        "DROP TABLE users",
        "TRUNCATE users CASCADE",
        "CREATE INDEX ON users (name)",
        "ALTER TABLE users DISABLE TRIGGER ALL",
        "UPDATE alembic_version SET version_num = '0001'",
        "SELECT * FROM alembic_version",
        "SET ROLE users_owner",
        "SET session_replication_role = replica",
        "GRANT SELECT ON users TO PUBLIC; SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_a_service_can_change_rows_alone(instance: Instance, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        ask(instance.urls["users"], statement)


def test_what_was_granted_by_hand_is_taken_back_and_what_the_declarations_do_not_know_is_left(
    instance: Instance,
) -> None:
    users = services()["users"]
    ask(
        instance.owners["users"],
        "GRANT TRUNCATE ON users TO users; GRANT SELECT ON outbox TO PUBLIC; REVOKE DELETE ON outbox FROM users;"
        " CREATE TABLE pours (metres int); GRANT SELECT ON pours TO users",
    )
    try:
        instance.migrate()
        tables = {table: declared(users).get(table, "SELECT") for table in tables_of(instance, users)}
        assert instance.held(users, "users") == expected(users, tables)
        assert instance.held(users, "public") == set()
    finally:
        ask(instance.owners["users"], "DROP TABLE pours")


def test_migrations_as_the_role_of_the_service_are_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERS_OWNER_DATABASE_URL", instance.urls["orders"])
    assert migrations.main(["service_orders"]) == 1
    assert capsys.readouterr().err == (
        "service_orders: ORDERS_OWNER_DATABASE_URL: names the role orders, as which the service runs; name "
        "orders_owner, which owns the database\n"
    )


def test_a_data_folder_with_a_single_role_is_divided_without_loss_and_so_is_a_backup_of_it_where_people_still_log_in(
    instance: Instance, tmp_path: Path
) -> None:
    instance.make_as_before()
    assert ask(instance.urls["users"], _OWNERS) == [("users",)]
    ask(instance.urls["users"], _USER.format("anna@example.com") + "; CREATE TABLE pours (number serial, metres int)")
    dumps = {name: tmp_path / f"{name}.dump" for name in services()}
    for name, dump in dumps.items():
        assert instance.server.tool("pg_dump", "-Fc", f"--file={dump}", f"--dbname={name}").returncode == 0
    sums = {name: archive.checksum(dump) for name, dump in dumps.items()}
    manifest = archive.Manifest("0.0.1", major_version(), "2026-01-01T00:00:00Z", sums, closed=True)
    archive.write(tmp_path / "old.tar", manifest, dumps)

    create_databases(instance.server, Credentials(instance.layout.secrets))
    # Services that still run go on, and so do others who have made tables there.
    ask(instance.urls["users"], _USER.format("boris@example.com") + "; DELETE FROM outbox")
    divided = Instance(instance.layout, instance.server)
    divided.migrate()
    _check_divided(divided)
    found = ask(divided.urls["users"], "SELECT email FROM users ORDER BY 1")
    assert found == [("anna@example.com",), ("boris@example.com",)]
    assert ask(divided.urls["users"], "INSERT INTO pours (metres) VALUES (7) RETURNING number") == [(1,)]
    assert {path.stat().st_mode & 0o777 for path in instance.layout.secrets.iterdir()} == {0o600}

    other = Layout.of(tmp_path / "restored")
    restore(other, tmp_path / "old.tar")
    assert other.closed.exists()
    with server_alone(other) as server:
        restored = Instance(other, server)
        _check_divided(restored)
        assert ask(restored.urls["users"], "SELECT email FROM users") == [("anna@example.com",)]


def _check_divided(instance: Instance) -> None:
    for name, row in services().items():
        assert ask(instance.owners[name], _OWNERS) == [(row.owner,)]
        held = {(what, verb) for what, verb in instance.held(row, name) if not what.startswith("pours")}
        tables = {table: declared(row)[table] for table in tables_of(instance, row) if table != "pours"}
        assert held == expected(row, tables)
        assert instance.held(row, "public") == set()
