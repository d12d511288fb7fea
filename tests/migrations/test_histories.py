"""Every service's history: up from nothing, down to nothing, up again, and equal to the models."""

from __future__ import annotations

import threading
from importlib import import_module

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, inspect, text

from servicekit.database import migrations
from servicekit.process.services import services

SERVICES = sorted(service.package for service in services().values())


def _metadata(package: str):
    module = "service_tasks.persistence.tables" if package == "service_tasks" else f"{package}.tables"
    return import_module(module).Base.metadata


@pytest.fixture
def engine(empty_database):
    engine = create_engine(empty_database, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("package", SERVICES)
def test_the_history_goes_up_down_and_up_again_and_equals_the_models(package, empty_database, engine):
    assert migrations.upgrade(package, empty_database)
    assert migrations.downgrade(package, empty_database, to="base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]

    assert migrations.upgrade(package, empty_database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), _metadata(package)) == []


@pytest.mark.parametrize("package", SERVICES)
def test_the_checks_in_the_database_are_those_of_the_models(package, empty_database, engine):
    # Alembic compares no CHECK constraints, so a second database is made from the models and both are read back.
    migrations.upgrade(package, empty_database)
    query = text("""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1, 2""")
    with engine.connect() as connection:
        migrated = connection.execute(query).all()
        connection.commit()
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        connection.commit()
        _metadata(package).create_all(connection)
        assert migrated == connection.execute(query).all()
    assert migrated


@pytest.mark.parametrize("package", SERVICES)
def test_a_second_upgrade_changes_nothing(package, empty_database):
    assert migrations.upgrade(package, empty_database)
    assert not migrations.upgrade(package, empty_database)


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
    monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://users:secret@127.0.0.1:9/users")

    assert migrations.main(["service_users"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("service_users: the migration failed: ")
    assert said.count("\n") == 1
    assert "secret" not in said


def test_a_missing_database_url_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert migrations.main(["service_users"]) == 1
    assert "USERS_DATABASE_URL: is not set" in capsys.readouterr().err
