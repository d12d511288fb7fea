"""Every service's history: up from nothing, down to nothing, up again to the same, and equal to the models."""

from __future__ import annotations

import re
import threading
from importlib import import_module
from importlib.util import find_spec

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, NullPool, create_engine, inspect, text

from servicekit.database import migrations
from servicekit.database.privileges import SHARED, declared
from servicekit.events.inbox import define_inbox
from servicekit.events.outbox import define_outbox
from servicekit.events.tombstones import define_tombstones
from servicekit.process.services import services

SERVICES = sorted(service.package for service in services().values())


#: The others, whose statements are SQL, have their tables in their migrations alone.
WITH_MODELS = [package for package in SERVICES if find_spec(f"{package}.tables")]

SCHEMA = """
    SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text,
           coalesce(pg_get_expr(adbin, adrelid), '')
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
           LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT relname, 'options', coalesce(reloptions::text, ''), '', '' FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
     ORDER BY 1, 2, 3
"""

GRANTED = text("""
    SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE grantee = :role
    UNION SELECT routine_name, privilege_type FROM information_schema.routine_privileges
     WHERE grantee = :role AND routine_schema = 'public'
""")
FUNCTIONS = text("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")


def _metadata(package: str) -> MetaData:
    return import_module(f"{package}.tables").Base.metadata


@pytest.fixture
def engine(empty_database):
    engine = create_engine(empty_database, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("package", SERVICES)
def test_the_history_goes_up_down_and_up_again_to_the_same(package, empty_database, engine):
    assert migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        first = connection.execute(text(SCHEMA)).all()
    assert migrations.downgrade(package, empty_database, to="base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]

    assert migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        assert connection.execute(text(SCHEMA)).all() == first


@pytest.mark.parametrize("service", [pytest.param(row, id=row.package) for row in services().values()])
def test_the_privileges_name_the_tables_of_the_service_and_are_granted_with_them(service, empty_database, engine):
    migrations.upgrade(service.package, empty_database)
    with engine.connect() as connection:
        tables = [*inspect(connection).get_table_names(), *connection.scalars(FUNCTIONS)]
        granted = connection.execute(GRANTED, {"role": service.name}).all()
    assert {*tables} - {*SHARED} == {*declared(service)} - {*SHARED}
    assert {*granted} == {(table, verb) for table in tables for verb in declared(service)[table].split(", ") if verb}


@pytest.mark.parametrize("package", SERVICES)
def test_every_constraint_and_index_has_a_name_that_was_chosen(package, empty_database, engine):
    migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        names = connection.execute(
            text("""
                SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
                UNION SELECT indexname FROM pg_indexes WHERE schemaname = 'public'""")
        ).scalars()
        # Of PostgreSQL's own choices those for primary keys, and NOT NULL, are good enough.
        assert not [name for name in names if not re.match(r"(ck|uq|ix|pk|fk)_|\w+_(pkey|pkc)$", name)]


@pytest.mark.parametrize("package", WITH_MODELS)
def test_the_migrations_make_what_the_models_say(package, empty_database, engine):
    migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), _metadata(package)) == []


@pytest.mark.parametrize("package", sorted({*SERVICES} - {*WITH_MODELS}))
def test_without_models_the_shared_tables_are_those_of_servicekit(package, empty_database, engine):
    shared = MetaData()
    for define in (define_outbox, define_inbox, define_tombstones):
        define(shared)
    migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, parents: kind != "table" or name in shared.tables},
        )
        assert compare_metadata(context, shared) == []


@pytest.mark.parametrize("package", WITH_MODELS)
def test_the_checks_and_collations_in_the_database_are_those_of_the_models(package, empty_database, engine):
    # Alembic compares neither, so a second database is made from the models and both are read back.
    migrations.upgrade(package, empty_database)
    query = text("""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE contype = 'c' AND connamespace = 'public'::regnamespace
        UNION ALL
        SELECT table_name, column_name, collation_name FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2""")
    with engine.connect() as connection:
        migrated = connection.execute(query).all()
        connection.commit()
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        connection.commit()
        _metadata(package).create_all(connection)
        assert migrated == connection.execute(query).all()
    assert migrated


def test_the_products_of_orders_made_before_they_could_be_searched_are_found(empty_database, engine):
    migrations.upgrade("service_orders", empty_database, to="0003")
    many = 1001  # more than are read at a time
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO orders (id, user_id, items, status, total_amount, created_at, updated_at)
                SELECT gen_random_uuid(), gen_random_uuid(),
                       jsonb_build_array(jsonb_build_object('product', 'STRA' || chr(7838) || 'E ' || n),
                                         jsonb_build_object('product', 'cafe' || chr(769))),
                       'created', 1, now(), now()
                  FROM generate_series(1, :many) n"""),
            {"many": many},
        )
    migrations.upgrade("service_orders", empty_database)
    with engine.begin() as connection:
        keys = connection.execute(text("SELECT products_key FROM orders")).scalars().all()
    assert sorted(keys) == sorted(f"strasse {n}\ncaf\u00e9" for n in range(1, many + 1))


def test_what_happened_before_is_told_with_how_long_contractors_had_had_it(empty_database, engine):
    migrations.upgrade("service_sites", empty_database, to="0006")
    told = [
        ("a", 1, "open", "Masons", 0),
        ("b", 1, "draft", "Masons", 0),
        ("a", 2, "open", "", 2),
        ("b", 2, "open", "Masons", 0),
        ("a", 3, "in_progress", "", 2),
        ("a", 4, "in_progress", "Roofers", 2),
        ("a", 5, "returned", "Masons", 3),
        ("b", 3, "disputed", "Masons", 4),
        ("a", 6, "ready", "Masons", 5),
        ("a", 7, "closed", "Masons", 5),
        ("b", 4, None, "Masons", 4),
    ]
    with engine.begin() as connection:
        for hour, (item, version, state, organisation, _) in enumerate(told):
            connection.execute(
                text("""
                    INSERT INTO history (site_id, item_id, change_seq, version, step, to_state, organisation,
                        assignee_name, visible_to_customer, changes, reason, note, actor_name, actor_role,
                        actor_organisation, actor_position, override, at)
                    VALUES (CAST(:item AS uuid), CAST(:item AS uuid), :hour, :version, 'step', :state, :organisation,
                        '', false, '{}', '', '', '', '', '', '', false,
                        timestamptz '2026-03-28 20:00Z' + :hour * interval '1 hour')"""),
                {
                    "item": item * 32, "hour": hour, "version": version, "state": state, "organisation": organisation
                },
            )  # fmt: skip
    migrations.upgrade("service_sites", empty_database)
    with engine.begin() as connection:
        seconds = connection.execute(text("SELECT contractor_seconds FROM history ORDER BY seq")).scalars().all()
    assert seconds == [hours * 3600 for *_, hours in told]


@pytest.mark.parametrize("package", SERVICES)
def test_a_second_upgrade_changes_nothing(package, empty_database):
    assert migrations.upgrade(package, empty_database)
    assert not migrations.upgrade(package, empty_database)


def test_the_audit_is_kept_as_long_as_the_setting_says(empty_database, engine, monkeypatch):
    monkeypatch.setenv("USERS_OWNER_DATABASE_URL", empty_database)
    for days, left in ((None, [364, 31, 29]), ("30", [29])):
        if days is not None:
            monkeypatch.setenv("AUDIT_KEEP_DAYS", days)
        assert migrations.main(["service_users"]) == 0
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM audit"))
            for age in (366, 364, 31, 29):
                connection.execute(text(
                    "INSERT INTO audit (id, happened_at, action, details) "
                    f"VALUES (gen_random_uuid(), now() - interval '{age} days', 'x', '{{}}')"
                ))  # fmt: skip
            assert connection.scalar(text("SELECT prune_audit()")) == 4 - len(left)
            ages = text("SELECT extract(day FROM now() - happened_at)::int FROM audit ORDER BY happened_at")
            assert [*connection.scalars(ages)] == left


def test_several_upgrades_at_once_apply_the_history_once(empty_database):
    changed: list[bool] = []
    threads = [
        threading.Thread(target=lambda: changed.append(migrations.upgrade("service_users", empty_database)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(changed) == [False, False, False, True]


def test_a_database_that_is_away_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setenv("USERS_OWNER_DATABASE_URL", "postgresql://users_owner:secret@127.0.0.1:9/users")

    assert migrations.main(["service_users"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("service_users: the migration failed: ")
    assert said.count("\n") == 1
    assert "secret" not in said


def test_an_owner_that_cannot_log_in_is_told_what_makes_the_roles(monkeypatch, capsys, postgres_server):
    url = postgres_server.postgres.url("postgres", "users_owner", "another")
    monkeypatch.setenv("USERS_OWNER_DATABASE_URL", url)

    assert migrations.main(["service_users"]) == 1
    assert 'for user "users_owner"; deploy/postgres/databases.sql makes the roles' in capsys.readouterr().err


def test_a_missing_database_url_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert migrations.main(["service_users"]) == 1
    assert "USERS_OWNER_DATABASE_URL: is not set" in capsys.readouterr().err
