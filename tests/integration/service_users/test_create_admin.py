"""Making an administrator from the machine itself."""

from __future__ import annotations

import io
import stat

import pytest
from sqlalchemy import text

from service_users.accounts import create_admin
from service_users.accounts.passwords import Passwords, verify_now
from service_users.schemas import UserCreate
from service_users.use_cases import Users
from servicekit.identity.reach import Reach


@pytest.fixture
def table(users_database):
    def read(statement: str) -> list:
        with users_database.database.transaction() as transaction:
            return [tuple(row) for row in transaction.execute(text(statement)).all()]

    yield read
    with users_database.database.transaction() as transaction:
        transaction.execute(text("DELETE FROM revocations"))


def verifies(table, password: str) -> bool:
    ((stored,),) = table("SELECT password_hash FROM users")
    return verify_now(stored, password)


def test_the_first_administrator_gets_a_password_in_a_file_that_only_its_owner_reads(
    users_database, table, monkeypatch, capsys, tmp_path
):
    file = tmp_path / "password"
    monkeypatch.setenv("USERS_DATABASE_URL", users_database.url)
    assert table("SELECT email FROM users") == []
    assert create_admin.main(["Admin@example.com", "--password-file", str(file)]) == 0
    password = file.read_text().strip()
    said = capsys.readouterr()
    assert str(file) in said.out
    assert password not in said.out + said.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(password) == 24
    assert verifies(table, password)
    assert table("SELECT email, name, roles, disabled_at FROM users") == [
        ("Admin@example.com", "Administrator", ["admin"], None)
    ]
    assert table("SELECT type FROM outbox") == [("user.created",)]
    assert table("SELECT action, actor FROM audit") == [("admin.created", None)]


def test_whoever_has_the_address_becomes_one_and_what_let_them_in_before_ends(users_database, table, monkeypatch):
    users = Users(users_database.database, Passwords(places=1))
    wanted = UserCreate(email="anna@example.com", name="Anna", roles=["engineer"], password="before before")
    user = users.create(wanted, reach=Reach.all()).view
    with users_database.database.transaction() as transaction:
        transaction.execute(text("UPDATE users SET disabled_at = now()"))
        transaction.execute(
            text(
                "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at,"
                " expires_at) VALUES (gen_random_uuid(), :user, 0, '{pwd}', '', '', now(), now(), now())"
            ),
            {"user": user.id},
        )
        transaction.execute(
            text(
                "INSERT INTO factors (id, user_id, name, secret, last_step, recovery, created_at, confirmed_at) "
                "VALUES (gen_random_uuid(), :user, 'x', 'x', 0, '{}', now(), now())"
            ),
            {"user": user.id},
        )
    monkeypatch.setattr("sys.stdin", io.StringIO("seven brown cranes at noon\n"))
    monkeypatch.setenv("USERS_DATABASE_URL", users_database.url)
    assert create_admin.main(["ANNA@example.com", "--ask"]) == 0
    row = "SELECT id, name, roles, disabled_at, auth_epoch FROM users"
    assert table(row) == [(user.id, "Anna", ["engineer", "admin"], None, 1)]
    assert verifies(table, "seven brown cranes at noon")
    assert table("SELECT 1 FROM sessions UNION ALL SELECT 1 FROM factors") == []
    assert table("SELECT kind, subject, least_epoch FROM revocations") == [("user", user.id, 1)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody", "--password-file", "f"], "email: must be an e-mail address"),
        (["a@example.com"], "--password-file"),
        (["a@example.com", "--ask"], "password: "),
    ],
)
def test_what_cannot_be_made_is_one_line(users_database, table, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    monkeypatch.setenv("USERS_DATABASE_URL", users_database.url)
    assert create_admin.main(arguments) == 1
    errors = capsys.readouterr().err
    assert (said in errors, errors.count("\n")) == (True, 1)
    assert table("SELECT 1 FROM users") == []
