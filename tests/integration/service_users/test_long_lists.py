"""Lists longer than what one request looks through: every row comes once and in its order, whatever the filters are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from service_users import repository
from service_users.accounts.passwords import Passwords
from service_users.routes.users import user_routes
from service_users.use_cases import Users
from servicekit.database.engine import Database, DatabaseTooSlow
from servicekit.database.statement import Statement
from servicekit.web import lists
from servicekit.web.app import make_app
from servicekit.wire.errors import DatabaseUnavailable
from tests.support.plans import nodes_of, selects_of

MOST = 20
_MANY = 120


def _user(n: int) -> dict[str, Any]:
    """The last third has another address, every 30th is an admin, and names have nothing to do with the time."""
    name = f"{'Иван' if n % 4 else 'Ёж'} {n * 37 % 101:03}"
    email = f"u{n:03}@{'old' if n < 80 else 'new'}.example"
    role = "admin" if n % 30 == 0 else "user"
    return {"n": n, "name": name, "key": name.casefold(), "email": email, "role": role}


EVERYBODY = [_user(n) for n in range(_MANY)]


@pytest.fixture
def long_list(users_database, monkeypatch) -> Iterator[FlaskClient]:
    """As if one request looked through no more than MOST rows."""
    monkeypatch.setattr(lists, "MOST", MOST)
    repository._list.cache_clear()
    # Statistics of a moment before, in which the table was empty, must not take the place of these.
    users_database.administer("ALTER TABLE users SET (autovacuum_enabled = off)")
    with users_database.database.transaction() as session:
        session.execute(
            text("""
                INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at)
                SELECT gen_random_uuid(), :email, :email, :name, :key, ARRAY[:role],
                       timestamptz '2026-11-01 00:00Z' + :n * interval '1 hour', now()"""),
            EVERYBODY,
        )
    users_database.administer("ANALYZE users")
    users = Users(users_database.database, Passwords(places=1))
    yield make_app("u", routes=[user_routes(users)], checks={}).test_client()
    repository._list.cache_clear()


def _ask(client: FlaskClient, query: str) -> dict[str, Any]:
    answer = client.get(f"/users?{query}")
    assert answer.status_code == 200, answer.json
    data: dict[str, Any] = answer.json["data"]
    return data


def _let_searches_take_too_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(statement: Statement, values: Mapping[str, Any], *, within: float = math.inf) -> list[Any]:
        if within < math.inf:
            raise DatabaseTooSlow
        return Database.rows(database, statement, values)

    monkeypatch.setattr(database, "rows", rows)


SEARCHES: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("", lambda user: True),
    ("q=old", lambda user: "old" in user["email"]),  # of the newest there are none, and in all too many
    ("q=new.", lambda user: "new." in user["email"]),
    ("q=иван", lambda user: "иван" in user["key"]),
    ("q=ёж 0", lambda user: "ёж 0" in user["key"]),
    ("q=u07", lambda user: "u07" in user["email"]),
    ("q=0", lambda user: "0" in user["key"] + user["email"]),
    ("q=ё", lambda user: "ё" in user["key"]),
    ("q=%27%5C", lambda user: False),
    ("q=ldnew", lambda user: False),
    ("role=admin", lambda user: user["role"] == "admin"),
    ("role=user", lambda user: user["role"] == "user"),
    ("role=admin&q=old", lambda user: user["role"] == "admin" and "old" in user["email"]),
    ("created_from=2026-11-02T00:00:00Z", lambda user: user["n"] >= 24),
    ("created_to=2026-11-02T00:00:00Z&q=u01", lambda user: user["n"] < 24 and "u01" in user["email"]),
]


@pytest.mark.parametrize("index", ["", "is too slow", "has more than was expected"])
@pytest.mark.parametrize("sort", ["-created_at", "created_at", "name", "-email"])
def test_each_user_comes_once_and_in_order(long_list, users_database, monkeypatch, sort, index):
    if index == "is too slow":
        _let_searches_take_too_long(users_database.database, monkeypatch)
    elif index:
        monkeypatch.setattr(lists.SortedList, "_expected", lambda self, *_: [0, *(0 for _ in self._indexes)])
    key = {"created_at": "n", "name": "key", "email": "email"}[sort.lstrip("-")]
    for query, wanted in SEARCHES:
        expected = sorted(filter(wanted, EVERYBODY), key=lambda user: user[key], reverse=sort.startswith("-"))
        seen: list[str] = []
        after = ""
        while after is not None:
            page = _ask(long_list, f"{query}&sort={sort}&limit=17{after and f'&after={after}'}")
            seen += [user["email"] for user in page["users"]]
            assert page["total"] <= min(len(expected), MOST), query
            assert not page["total_is_exact"] or page["total"] == len(expected), query
            after = page["next"]
        emails = [user["email"] for user in expected]
        # Equal names come by their ids, which are random.
        assert (sorted(seen) == sorted(emails)) if key == "key" else (seen == emails), query


@pytest.mark.parametrize(
    ("query", "total", "exact"),
    [
        ("", MOST, False),
        ("q=u07", 10, True),
        ("q=иван", 15, False),  # of the newest twenty
        ("q=old", 0, False),
        ("role=admin", 4, True),
        ("created_from=2026-11-05T00:00:00Z&created_to=2026-11-05T20:00:00Z", 20, True),
        ("created_from=2026-11-05T00:00:00Z&created_to=2026-11-05T21:00:00Z", 20, False),
        ("total=false", None, False),
    ],
)
def test_a_total_is_exact_or_at_least_so_many(long_list, query, total, exact):
    page = _ask(long_list, f"{query}&limit=3")
    assert (page["total"], page["total_is_exact"]) == (total, exact)


def test_an_offset_passes_over_as_many_as_it_says_or_is_refused(long_list):
    everybody = [user["email"] for user in reversed(EVERYBODY)]
    assert [user["email"] for user in _ask(long_list, "offset=20&limit=2")["users"]] == everybody[20:22]
    those = [email for email in everybody if "u0" in email]
    early = _ask(long_list, "q=u0&offset=10&limit=2")
    assert early["users"] == []
    after = f"q=u0&limit=2&after={early['next']}"
    assert [user["email"] for user in _ask(long_list, after)["users"]] == those[10:12]
    refused = long_list.get("/users?q=old&offset=20")
    assert refused.status_code == 400
    assert [detail["field"] for detail in refused.json["error"]["details"]] == ["offset"]


def test_a_database_that_is_away_is_no_slow_search(long_list, users_database, monkeypatch):
    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(users_database.database, "once", away)
    assert long_list.get("/users?q=old").status_code == 503


@pytest.mark.parametrize(
    ("query", "index"),
    [("q=0001", "ix_users_trigrams"), ("q=zz", "ix_users_trigrams"), ("role=foreman", "ix_users_roles")],
)
def test_what_is_rare_is_found_in_its_index(long_list, users_database, query, index):
    database = users_database.database
    with database.transaction() as session:
        session.execute(
            text("""
                INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at)
                SELECT gen_random_uuid(), n || '@example.com', n || '@example.com', 'x', 'x', '{user}', now(), now()
                FROM generate_series(1000, 4000) n""")
        )
    users_database.administer("ANALYZE users")
    with selects_of(database) as selects:
        _ask(long_list, query)
    statement, parameters = selects[-1]
    assert ("Bitmap Index Scan", index) in nodes_of(database, statement, parameters)
