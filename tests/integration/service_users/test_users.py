"""The users service over HTTP on a real database: every operation, filter, page and conflict."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import ExceptionContext

from service_users.accounts import passwords
from service_users.accounts.passwords import Passwords
from service_users.app import create_app
from service_users.routes.users import user_routes
from service_users.settings import UsersSettings
from service_users.use_cases import Users
from servicekit.web.app import make_app
from tests.support.plans import nodes_of, selects_of

NOBODY = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"
EVIL = "x'; DROP TABLE users; --"


@pytest.fixture
def app(users_database):
    return make_app(
        "service_users", routes=[user_routes(Users(users_database.database, Passwords(places=4)))], checks={}
    )


@pytest.fixture
def client(app) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def failed_statements() -> Iterator[list[str]]:
    failed: list[str] = []

    def note(context: ExceptionContext) -> None:
        failed.append(str(context.original_exception))

    event.listen(Engine, "handle_error", note)
    yield failed
    event.remove(Engine, "handle_error", note)


@pytest.fixture
def stored(users_database):
    """Read a column of a user as the database has it."""

    def read(column: str, user: dict) -> object:
        with users_database.database.transaction() as session:
            return session.scalar(text(f"SELECT {column} FROM users WHERE id = :id"), {"id": user["id"]})

    return read


def create(client: FlaskClient, email: str = "user@example.com", name: str = "Белов Ярослав", **more) -> dict:
    answer = client.post("/users", json={"email": email, "name": name, **more})
    assert answer.status_code == 201, answer.json
    return answer.json["data"]


def found(client: FlaskClient, **query) -> list[str]:
    answer = client.get("/users", query_string=query)
    assert answer.status_code == 200, answer.json
    return [user["name"] for user in answer.json["data"]["users"]]


def error_code(answer, status: int) -> str:
    assert answer.status_code == status, answer.json
    assert answer.json["success"] is False
    return answer.json["error"]["code"]


def test_a_new_user_is_answered_whole_and_found_again(client):
    answer = client.post("/users", json={"email": "user@example.com", "name": "Белов Ярослав"})

    user = answer.json["data"]
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/users/{user['id']}"
    assert set(user) == {"id", "email", "name", "roles", "created_at", "updated_at"}
    assert UUID(user["id"]).version == 7
    assert (user["email"], user["name"], user["roles"]) == ("user@example.com", "Белов Ярослав", ["user"])
    assert user["created_at"] == user["updated_at"]
    assert user["created_at"].endswith("Z")
    assert client.get(f"/users/{user['id']}").json == {"success": True, "data": user}


@pytest.mark.parametrize(
    "name",
    ["Белов Ярослав", "王小明", "محمد بن سلمان", "José e\u0301", "ΟΔΥΣΣΕΥΣ", "👷🏽‍♀️ نامه‌ای", "a\\b'c\"d%e_f", "  x  "],
)
def test_a_name_of_any_script_comes_back_unchanged(client, name):
    user = create(client, name=name)
    assert user["name"] == name
    assert client.get(f"/users/{user['id']}").json["data"]["name"] == name
    assert found(client) == [name]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("user@example.com", "user@example.com"),
        ("user@example.com", "USER@EXAMPLE.COM"),
        ("straße@example.com", "STRASSE@example.com"),
        ("οδυσσευς@example.com", "ΟΔΥΣΣΕΥΣ@example.com"),
        ("οδυσσευς@example.com", "οδυσσευσ@example.com"),
        ("почта@пример.рф", "Почта@xn--e1afmkfd.xn--p1ai"),
        ("jos\u00e9@example.com", "JOSE\u0301@example.com"),
    ],
)
def test_an_address_is_taken_whatever_its_case_or_writing(client, first, second):
    create(client, first)
    answer = client.post("/users", json={"email": second, "name": "x"})
    assert error_code(answer, 409) == "email_taken"
    assert [detail["field"] for detail in answer.json["error"]["details"]] == ["email"]
    assert len(found(client)) == 1


def test_the_turkish_letters_without_and_with_a_dot_are_not_the_latin_i(client):
    for local in ("ali", "alı", "ALİ"):
        create(client, f"{local}@example.com")
    assert error_code(client.post("/users", json={"email": "ALI@example.com", "name": "x"}), 409) == "email_taken"
    assert len(found(client)) == 3


def test_of_many_who_take_one_address_at_once_exactly_one_gets_it(app):
    together = threading.Barrier(8)
    statuses: list[int] = []

    def take(number: int) -> None:
        email = "user@example.com" if number % 2 else "USER@example.com"
        together.wait(10)
        statuses.append(app.test_client().post("/users", json={"email": email, "name": "x"}).status_code)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [201] + [409] * 7


def test_the_fields_that_are_named_change_and_the_others_stay(client):
    user = create(client, roles=["user", "admin"])
    changed = client.put(f"/users/{user['id']}", json={"name": "Новое Имя"}).json["data"]
    assert changed == user | {"name": "Новое Имя", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > user["updated_at"]
    assert client.get(f"/users/{user['id']}").json["data"] == changed

    changed = client.put(f"/users/{user['id']}", json={"email": "New@Example.com", "roles": ["owner"]}).json["data"]
    assert (changed["email"], changed["roles"], changed["name"]) == ("New@example.com", ["owner"], "Новое Имя")
    assert found(client, email="new@example.com") == found(client, q="НОВОЕ") == ["Новое Имя"]
    assert found(client, email="user@example.com") == []


def test_a_user_as_shown_can_be_sent_back_with_changes(client):
    shown = create(client)
    assert client.put(f"/users/{shown['id']}", json=shown).json["data"] == shown
    changed = client.put(f"/users/{shown['id']}", json={**shown, "name": "Яр", "updated_at": "2020-01-01T00:00:00Z"})
    assert changed.json["data"] == {**shown, "name": "Яр", "updated_at": changed.json["data"]["updated_at"]}
    refused = client.put(f"/users/{shown['id']}", json={**shown, "name": "x", "id": str(UUID(int=7))})
    assert (refused.status_code, refused.json["error"]["message"]) == (400, "id: cannot be changed")
    assert client.get(f"/users/{shown['id']}").json["data"] == changed.json["data"]


def test_an_empty_change_changes_nothing(client):
    user = create(client)
    assert client.put(f"/users/{user['id']}", json={}).json["data"] == user


def test_an_address_cannot_become_that_of_somebody_else_but_may_change_its_case(client):
    one, two = create(client, "one@example.com"), create(client, "two@example.com")
    answer = client.put(f"/users/{two['id']}", json={"name": "x", "email": "ONE@example.com"})
    assert error_code(answer, 409) == "email_taken"
    assert client.get(f"/users/{two['id']}").json["data"] == two
    assert (
        client.put(f"/users/{one['id']}", json={"email": "ONE@example.com"}).json["data"]["email"] == "ONE@example.com"
    )


def test_a_taken_address_is_no_failed_statement(client, failed_statements):
    """PostgreSQL writes those into its log, unless told not to, with the address, the name and the hash in them."""
    one, two = create(client, "one@example.com"), create(client, "two@example.com")
    again = client.post("/users", json={"email": "One@example.com", "name": "x", "password": "a long password"})
    assert error_code(again, 409) == "email_taken"
    assert error_code(client.put(f"/users/{two['id']}", json={"email": one["email"]}), 409) == "email_taken"
    assert failed_statements == []


def test_a_deleted_user_is_answered_as_it_was_and_gone(client):
    user = create(client)
    assert client.delete(f"/users/{user['id']}").json["data"] == user
    for method in ("GET", "DELETE"):
        assert error_code(client.open(f"/users/{user['id']}", method=method), 404) == "user_not_found"
    create(client)


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("PUT", {"name": "x"}), ("PATCH", {"name": "x"}), ("DELETE", None)]
)
def test_a_user_who_does_not_exist_is_a_404(client, method, body):
    assert error_code(client.open(f"/users/{NOBODY}", method=method, json=body), 404) == "user_not_found"


def test_a_trailing_slash_is_another_address(client):
    assert error_code(client.get("/users/"), 404) == "not_found"
    assert client.head("/users").status_code == 200


def test_a_password_is_kept_as_an_argon2id_hash_and_never_answered(client, stored):
    secret = "верно, лошадь, батарея"
    answers = [client.post("/users", json={"email": "user@example.com", "name": "x", "password": secret})]
    user = answers[0].json["data"]

    kept = stored("password_hash", user)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert PasswordHasher().verify(kept, secret)

    path = f"/users/{user['id']}"
    answers += [client.get(path), client.get("/users"), client.put(path, json={"password": "another " + secret})]
    changed = stored("password_hash", user)
    assert PasswordHasher().verify(changed, "another " + secret)
    answers += [client.put(path, json={"name": "y"})]
    assert stored("password_hash", user) == changed
    answers += [client.put(path, json={"password": None})]
    assert stored("password_hash", user) is None
    answers += [client.delete(path)]
    for answer in answers:
        assert answer.status_code in {200, 201}
        assert b"password" not in answer.data
        assert b"argon2" not in answer.data


def test_without_a_password_there_is_no_hash(client, stored):
    assert stored("password_hash", create(client)) is None


def test_lists_are_newest_first_and_come_in_pages(client):
    for number in range(5):
        create(client, f"user{number}@example.com", f"User {number}")

    page = client.get("/users?limit=2&offset=1").json["data"]

    assert {name: page[name] for name in ("total", "limit", "offset")} == {"total": 5, "limit": 2, "offset": 1}
    assert [user["name"] for user in page["users"]] == ["User 3", "User 2"]
    assert found(client) == ["User 4", "User 3", "User 2", "User 1", "User 0"]
    assert found(client, offset=4, limit=100) == ["User 0"]
    assert client.get("/users?offset=10000").json["data"]["total"] == 5


def test_users_of_one_moment_have_a_stable_order_too(users_database):
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    app = make_app(
        "u", routes=[user_routes(Users(users_database.database, Passwords(places=4), clock=lambda: moment))], checks={}
    )
    client = app.test_client()
    for number in range(6):
        create(client, f"user{number}@example.com", str(number))
    pages = [found(client, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert pages == [["5", "4"], ["3", "2"], ["1", "0"]]


def walk(client: FlaskClient, query: str, between: Callable[[int], object] = lambda page: None) -> list[str]:
    """The names on all pages, each reached by the `next` of the one before."""
    names: list[str] = []
    after = ""
    for number in itertools.count(1):
        answer = client.get(f"/users?{query}{after}")
        assert answer.status_code == 200, answer.json
        page = answer.json["data"]
        names += [user["name"] for user in page["users"]]
        if page["next"] is None:
            return names
        assert len(page["users"]) == page["limit"]
        after = f"&after={page['next']}"
        between(number)
    raise AssertionError


@pytest.fixture
def crowd(users_database) -> FlaskClient:
    """Users of few names and moments, so that most are equal in what they are sorted by."""
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (20, 21, 22, 23)]
    made = itertools.count()
    users = Users(users_database.database, Passwords(places=4), clock=lambda: moments[min(next(made) // 3, 3)])
    client = make_app("u", routes=[user_routes(users)], checks={}).test_client()
    for number, name in enumerate(["б", "A", "ё", "a", "Б", "a", "я", "B", "a"]):
        create(client, f"{'xy'[number % 2]}{number}@example.com", name)
    return client


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (None, "aBяaБaёAб"),
        ("-created_at", "aBяaБaёAб"),
        ("created_at", "бAёaБaяBa"),
        ("name", "AaaaBбБяё"),  # by code point, without regard to case
        ("-name", "ёяБбBaaaA"),
        ("email", "бёБяaAaaB"),
        ("-email", "BaaAaяБёб"),
    ],
)
def test_pages_follow_each_other_in_every_order_also_among_equals(crowd, sort, names, limit):
    query = f"limit={limit}" + (f"&sort={sort}" if sort else "")
    assert "".join(walk(crowd, query)) == names


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "name", "-email"])
def test_who_is_removed_meanwhile_moves_no_page(crowd, sort):
    """By number of rows, everybody behind a deleted user would be one place nearer, and one would be left out."""
    everybody = crowd.get(f"/users?sort={sort}").json["data"]["users"]

    def remove(page: int) -> None:
        if page <= 3:  # the one behind whom the next page begins
            assert crowd.delete(f"/users/{everybody[page - 1]['id']}").status_code == 200

    assert walk(crowd, f"sort={sort}&limit=1", remove) == [user["name"] for user in everybody]


def test_who_is_added_meanwhile_moves_no_page(crowd):
    names = walk(crowd, "limit=2", lambda page: create(crowd, f"new{page}@example.com", "new"))
    assert "".join(names) == "aBяaБaёAб"


def test_an_after_that_no_page_gave_is_refused_by_name(crowd):
    by_name = crowd.get("/users?sort=name&limit=1").json["data"]["next"]
    for query in (f"after={NOBODY}", "after=x", "after=", f"after={by_name}", f"sort=-name&after={by_name}"):
        refused = crowd.get(f"/users?{query}")
        assert error_code(refused, 400) == "invalid_input"
        assert [detail["field"] for detail in refused.json["error"]["details"]] == ["after"], query


def test_the_filters_hold_on_every_page(crowd):
    assert "".join(walk(crowd, "q=y&limit=1&sort=name")) == "AaaB"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("created_from=2026-11-21T00:00:00Z", "aBяaБa"),  # from that very moment on
        ("created_to=2026-11-21T00:00:00Z", "ёAб"),  # until then, without it
        ("created_from=2026-11-21T00:00:00Z&created_to=2026-11-22T00:00:00Z", "aБa"),
        ("created_from=2026-11-21T00:00:00Z&created_to=2026-11-21T00:00:00Z", ""),
        ("created_from=2026-11-22T03:00:00%2B03:00", "aBя"),
        ("created_from=2026-11-22T03:00:00+03:00", "aBя"),
        ("created_to=2026-11-19T19:00:01-05:00", "ёAб"),
    ],
)
def test_a_list_can_be_limited_to_a_span_of_time(crowd, query, names):
    assert "".join(walk(crowd, f"{query}&limit=2")) == names
    assert crowd.get(f"/users?{query}").json["data"]["total"] == len(names)


def test_a_total_that_is_not_wanted_is_not_counted(crowd, users_database):
    with selects_of(users_database.database) as selects:
        page = crowd.get("/users?total=false&limit=2").json["data"]
    assert (page["total"], len(page["users"]), len(selects)) == (None, 2, 1)
    assert "totals" not in selects[0][0]


@pytest.mark.parametrize(
    ("sort", "index"),
    [
        ("-created_at", "ix_users_newest"),
        ("created_at", "ix_users_newest"),
        ("name", "ix_users_name"),
        ("-name", "ix_users_name"),
        ("email", "uq_users_email_key"),
    ],
)
def test_a_page_is_read_from_the_index_of_its_order(crowd, users_database, sort, index):
    database = users_database.database
    with database.transaction() as session:
        session.execute(
            text("""
                INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at)
                SELECT gen_random_uuid(), n || '@example.com', n || '@example.com', 'x' || n, 'x' || n, '{user}',
                       now() - n * interval '1 min', now() FROM generate_series(1, 5000) n""")
        )
    users_database.administer("ANALYZE users")
    after = crowd.get(f"/users?sort={sort}&limit=3").json["data"]["next"]
    with selects_of(database) as selects:
        crowd.get(f"/users?sort={sort}&limit=1&total=false")
        crowd.get(f"/users?sort={sort}&limit=1&total=false&after={after}")
    assert len(selects) == 2
    for statement, parameters in selects:
        nodes = nodes_of(database, statement, parameters)
        # An address stands for one user, so there is hardly anything to sort by the id.
        assert nodes[nodes.index(("Index Scan", index)) - 1][0] in ("Limit", "Incremental Sort")


@pytest.mark.parametrize("name", ["\U0001d160" * 200, "\ufdfa" * 200, "ΐ" * 200])
def test_the_longest_names_can_be_sorted_and_paged(client, name):
    for number in range(2):
        create(client, f"{number}@example.com", name)
    assert walk(client, "sort=name&limit=1") == [name] * 2


def test_a_change_is_never_dated_before_the_creation(users_database):
    now = [datetime(2026, 11, 21, tzinfo=UTC)]
    app = make_app(
        "u", routes=[user_routes(Users(users_database.database, Passwords(places=4), clock=lambda: now[0]))], checks={}
    )
    user = create(app.test_client())
    now[0] -= timedelta(hours=1)  # the clock was set back
    changed = app.test_client().put(f"/users/{user['id']}", json={"name": "x"}).json["data"]
    assert changed["updated_at"] == changed["created_at"] == "2026-11-21T00:00:00Z"


def test_the_filters_narrow_the_list_and_its_total(client):
    anna = create(client, "anna@example.com", "Анна Петрова", roles=["admin", "user"])["id"]
    boris = create(client, "boris@example.org", "Борис Öztürk", roles=["user"])["id"]
    create(client, "carl@example.org", "Carl STRASSE", roles=["super_admin"])

    for query, names in [
        ({"email": "ANNA@example.com"}, ["Анна Петрова"]),
        ({"email": "anna"}, []),
        ({"role": "user"}, ["Борис Öztürk", "Анна Петрова"]),
        ({"role": "admin"}, ["Анна Петрова"]),  # not super_admin
        ({"role": "Admin"}, []),
        ({"q": "ПЕТР"}, ["Анна Петрова"]),
        ({"q": "öZTÜ"}, ["Борис Öztürk"]),
        ({"q": "o\u0308zt"}, ["Борис Öztürk"]),  # the same letter in two characters
        ({"q": "straße"}, ["Carl STRASSE"]),
        ({"q": "EXAMPLE.ORG"}, ["Carl STRASSE", "Борис Öztürk"]),
        ({"q": ""}, ["Carl STRASSE", "Борис Öztürk", "Анна Петрова"]),
        ({"q": "example", "role": "user", "email": "boris@example.org"}, ["Борис Öztürk"]),
        ({"q": "nobody"}, []),
        ({"id": boris.upper()}, ["Борис Öztürk"]),
        ({"id": ",".join([anna, *[str(UUID(int=n)) for n in range(98)], boris])}, ["Борис Öztürk", "Анна Петрова"]),
        ({"id": f"{boris},{boris}", "role": "admin"}, []),
        ({"id": anna, "q": "петр", "sort": "name"}, ["Анна Петрова"]),
    ]:
        assert found(client, **query) == names, query
        assert client.get("/users", query_string=query).json["data"]["total"] == len(names)


@pytest.mark.parametrize(
    "ids", ["", ",", "1", f"{UUID(int=1)},", f"{UUID(int=1)} ", ",".join([str(UUID(int=1))] * 101)]
)
def test_what_is_no_list_of_ids_is_a_400_naming_it(client, ids):
    answer = client.get("/users", query_string={"id": ids})
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json["error"]["details"]] == ["id"]


@pytest.mark.parametrize("wildcard", ["%", "_", "\\", "/", "%%", "\\%", "/_", "a%b", "[a-z]", "*", ".*"])
def test_wildcards_in_a_search_are_letters_like_any_other(client, wildcard):
    create(client, "plain@example.com", "axb plain")
    create(client, "odd@example.com", f"odd {wildcard} name")
    assert found(client, q=f" {wildcard} ") == [f"odd {wildcard} name"]
    assert found(client, q=f"d {wildcard} n") == [f"odd {wildcard} name"]


def test_sql_in_any_field_is_data(client):
    user = create(client, "o'neil@example.com", EVIL)
    assert user["name"] == EVIL
    assert found(client, q=EVIL) == found(client, email="O'NEIL@example.com") == [EVIL]
    for query in ({"role": EVIL}, {"email": EVIL}, {"email": "' OR 1=1 --"}, {"q": "' OR '1'='1"}):
        assert found(client, **query) == []
    for query in ({"limit": EVIL}, {"offset": "0; SELECT 1"}, {"sort": EVIL}):
        assert error_code(client.get("/users", query_string=query), 400) == "invalid_input"
    assert error_code(client.get(f"/users/{EVIL}"), 400) == "invalid_input"
    for body in ({"email": EVIL}, {"roles": [EVIL]}, {EVIL: 1}):
        answer = client.post("/users", json={"email": "a@example.com", "name": "x"} | body)
        assert error_code(answer, 400) == "invalid_input"
    assert client.put(f"/users/{user['id']}", json={"password": EVIL}).status_code == 200
    assert found(client) == [EVIL]


def test_the_service_as_it_is_composed_answers_from_its_database(users_database):
    client = create_app(UsersSettings(users_database_url=users_database.url, service_threads=2)).test_client()
    create(client)
    assert error_code(client.post("/users", json={"email": "USER@example.com", "name": "x"}), 409) == "email_taken"
    assert client.get("/readyz").json["data"] == {"status": "ready", "checks": {"database": "ok"}}


# Idempotency-Key


def keyed(client: FlaskClient, key: str, **more):
    body = {"email": "user@example.com", "name": "x", **more}
    return client.post("/users", json=body, headers={"Idempotency-Key": key})


def test_a_user_who_is_asked_for_again_with_the_key_is_made_once_and_hashed_once(client, users_database, monkeypatch):
    hashed = []
    hash_once = passwords.hash_now
    monkeypatch.setattr(passwords, "hash_now", lambda password: hashed.append(1) or hash_once(password))

    first = keyed(client, "k", password="correct horse")
    again = keyed(client, "k", password="correct horse")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json == first.json
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert hashed == [1]
    assert error_code(keyed(client, "other"), 409) == "email_taken"
    assert error_code(keyed(client, "k", name="y", password="correct horse"), 409) == "idempotency_key_reused"
    assert len(found(client)) == 1


def test_the_fingerprint_of_a_request_tells_nothing_of_its_password(client, users_database):
    def kept() -> object:
        with users_database.database.transaction() as session:
            return session.execute(text("SELECT fingerprint FROM idempotency_keys")).scalars().one()

    user = keyed(client, "k", password="correct horse").json["data"]
    first = kept()
    client.delete(f"/users/{user['id']}")
    assert error_code(keyed(client, "k", password="battery staple"), 404) == "user_not_found"
    with users_database.database.transaction() as session:
        session.execute(text("DELETE FROM idempotency_keys"))
    keyed(client, "k", password="battery staple")
    assert kept() == first


def test_of_many_requests_at_once_with_one_key_one_makes_the_user(app, users_database):
    together = threading.Barrier(8)
    answers = []

    def ask() -> None:
        with app.test_client() as client:
            together.wait(10)
            answers.append(keyed(client, "k"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json["data"]["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("Idempotency-Replayed", "") for answer in answers) == [""] + ["true"] * 7


# ETag and If-Match


def test_ten_clients_who_each_add_a_role_lose_none(app):
    path = f"/users/{create(app.test_client())['id']}"
    together = threading.Barrier(10)

    def add(role: str) -> None:
        with app.test_client() as client:
            together.wait(10)
            status = 0
            while status != 200:
                seen = client.get(path)
                roles = [*seen.json["data"]["roles"], role]
                answer = client.put(path, json={"roles": roles}, headers={"If-Match": seen.headers["ETag"]})
                status = answer.status_code
                assert status == 200 or error_code(answer, 412) == "precondition_failed"

    threads = [threading.Thread(target=add, args=(f"role_{number}",)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    roles = app.test_client().get(path).json["data"]["roles"]
    assert sorted(roles) == sorted(["user", *(f"role_{number}" for number in range(10))])


@pytest.mark.parametrize(
    ("method", "field", "meanwhile", "status", "told"),
    [
        ("PATCH", None, {"roles": ["owner"]}, 200, ["user.created", "user.updated", "user.updated"]),
        ("PATCH", "tag", {"roles": ["owner"]}, 412, ["user.created", "user.updated"]),
        ("DELETE", "tag", {"roles": ["owner"]}, 412, ["user.created", "user.updated"]),
        ("DELETE", None, {"roles": ["owner"]}, 200, ["user.created", "user.updated", "user.deleted"]),
        ("PATCH", None, None, 404, ["user.created", "user.deleted"]),
        ("DELETE", None, None, 404, ["user.created", "user.deleted"]),
    ],
)
def test_who_is_overtaken_after_reading_reads_again(
    client, users_database, monkeypatch, method, field, meanwhile, status, told
):
    """The clock is read between the two statements of a change."""
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "hash_now", lambda password: hashed.append(password) or f"hash {len(hashed)}")
    made = client.post("/users", json={"email": "user@example.com", "name": "x"})
    path = made.headers["Location"]
    others = [lambda: client.delete(path) if meanwhile is None else client.put(path, json=meanwhile)]

    def overtake() -> datetime:
        if others:
            assert others.pop()().status_code == 200
        return datetime.now(UTC)

    users = Users(users_database.database, Passwords(places=4), clock=overtake)
    overtaken = make_app("u", routes=[user_routes(users)], checks={}).test_client()
    headers = {"If-Match": made.headers["ETag"]} if field else {}
    body = {"name": "y", "password": "correct horse"} if method == "PATCH" else None
    answer = overtaken.open(path, method=method, json=body, headers=headers)

    assert answer.status_code == status, answer.json
    assert len(hashed) == (method == "PATCH")
    with users_database.database.transaction() as session:
        events = session.execute(text("SELECT type, data FROM outbox ORDER BY position")).all()
    assert [type for type, _ in events] == told
    if status == 200:
        assert answer.json["data"]["roles"] == meanwhile["roles"]
        if method == "PATCH":
            assert answer.json["data"] == client.get(path).json["data"]
            assert events[-1][1] == {**answer.json["data"], "previous_roles": meanwhile["roles"]}
            assert answer.json["data"]["name"] == "y"


def test_a_user_who_changed_meanwhile_is_neither_changed_nor_deleted(client):
    made = client.post("/users", json={"email": "user@example.com", "name": "x"})
    path, tag = made.headers["Location"], made.headers["ETag"]
    # A password is not shown, and a change of it all the same.
    present = client.put(path, json={"password": "correct horse"}, headers={"If-Match": tag}).headers["ETag"]
    for answer in (
        client.put(path, json={"name": "y"}, headers={"If-Match": tag}),
        client.patch(path, json={"name": "y"}, headers={"If-Match": tag}),
        client.delete(path, headers={"If-Match": tag}),
    ):
        assert error_code(answer, 412) == "precondition_failed"
        assert answer.headers["ETag"] == present == client.get(path).headers["ETag"] != tag
    assert client.delete(path, headers={"If-Match": "*"}).status_code == 200


def test_a_request_for_a_row_that_somebody_keeps_locked_gives_its_thread_back_soon(users_database):
    client = create_app(UsersSettings(users_database_url=users_database.url)).test_client()
    user = client.post("/users", json={"email": "user@example.com", "name": "Anna"}).json["data"]
    with users_database.database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT FROM users WHERE id = %s FOR UPDATE", (user["id"],))
        answer = client.put(f"/users/{user['id']}", json={"name": "Boris"})
        connection.rollback()

    # Which counts against nobody's circuit.
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
    assert client.put(f"/users/{user['id']}", json={"name": "Boris"}).status_code == 200
