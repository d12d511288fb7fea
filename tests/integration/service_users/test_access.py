"""API keys, what administrators do about accounts, and the audit: the service's routes on a real database."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from scripts.reference.roles import operations
from service_users.accounts.audit import AuditPruning
from service_users.accounts.passwords import Passwords
from service_users.app import create_app
from service_users.settings import UsersSettings
from servicekit.identity.api_keys import is_api_key
from servicekit.identity.roles import Action
from servicekit.process.clock import utc_now
from servicekit.process.ids import new_id
from tests.support.identity import KEY, SESSION, issue, verifier_of
from tests.support.postgres import ServiceDatabase

Ask = Callable[..., Any]


@pytest.fixture
def run(users_database: ServiceDatabase) -> Iterator[Callable[..., list[Any]]]:
    """Give what runs a statement in the database; afterwards nothing is left there."""

    def run(statement: str, **values: object) -> list[Any]:
        with users_database.database.transaction() as transaction:
            rows = transaction.execute(text(statement), values)
            return [tuple(row) for row in rows] if rows.returns_rows else []

    yield run
    for table in ("revocations", "throttles"):
        run(f"DELETE FROM {table}")
    users_database.administer("TRUNCATE audit")


@pytest.fixture
def add(run) -> Callable[..., UUID]:
    """Store a user; returns the id."""

    def add(name: str, roles: str = "user") -> UUID:
        made = new_id()
        run(
            "INSERT INTO users (id, email, email_key, name, name_key, roles, password_hash, created_at, updated_at) "
            "VALUES (:id, :email, :email, :name, :name, ARRAY[:roles], 'x', now(), now())",
            id=made, email=f"{name}@example.com", name=name, roles=roles,
        )  # fmt: skip
        return made

    return add


MAIL = "what only the workers know"


@pytest.fixture
def ask(users_database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Give what asks as somebody: the status, and the data or the error."""
    return _asking(users_database, monkeypatch)


@pytest.fixture
def ask_mailing(users_database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The same of a service that sends mail."""
    return _asking(users_database, monkeypatch, public_url="https://sites.example.com", mail_token=MAIL)


def _asking(database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch, **more_settings: str) -> Ask:
    monkeypatch.setattr("service_users.app.identify_with", lambda settings: verifier_of(KEY).identify)
    settings = UsersSettings(users_database_url=database.url, auth="required", auth_key="A" * 43, **more_settings)
    client = create_app(settings).test_client()

    def ask(
        method: str,
        path: str,
        body: object = None,
        *,
        by: tuple[UUID, str] | None = None,
        token: str = "",
        **more: Any,
    ) -> Any:
        fields = {"X-Forwarded-For": "198.51.100.7"}
        if by is not None:
            token = issue(me=by[0], roles=[by[1]], **more)
        if token:
            fields["Authorization"] = f"Bearer {token}"
        answer = client.open(path, method=method, json=body, headers=fields)
        return answer.status_code, answer.json["data"] if answer.status_code < 400 else answer.json["error"]

    return ask


def test_a_key_is_shown_once_and_its_row_holds_only_a_hash(ask, add, run):
    anna = add("anna"), "user"
    status, made = ask("POST", "/auth/keys", {"name": "import", "scopes": ["orders", "read"]}, by=anna)
    assert (status, is_api_key(made["key"])) == (201, True)
    ((row, stored),) = run("SELECT api_keys::text, hash FROM api_keys")
    assert bytes(stored) == hashlib.sha256(made["key"].encode()).digest()
    assert made["key"] not in row
    shown = {name: value for name, value in made.items() if name != "key"}
    assert ask("GET", "/auth/keys", by=anna) == (200, {"keys": [shown]})
    assert ask("GET", "/auth/keys", by=(add("boris"), "user")) == (200, {"keys": []})


def test_a_key_that_is_deleted_leaves_a_revocation_and_an_entry_at_once(ask, add, run):
    anna = add("anna"), "user"
    _, made = ask("POST", "/auth/keys", {"name": "import", "scopes": ["orders"]}, by=anna)
    path = f"/auth/keys/{made['id']}"
    assert ask("DELETE", path, by=(add("boris"), "admin"))[1]["code"] == "api_key_not_found"
    assert run("SELECT 1 FROM revocations") == []
    hers, admin = f"/users/{anna[0]}/keys", (add("clara", "admin"), "admin")
    assert [key["id"] for key in ask("GET", hers, by=admin)[1]["keys"]] == [made["id"]]
    assert ask("DELETE", f"/users/{admin[0]}/keys/{made['id']}", by=admin)[1]["code"] == "api_key_not_found"
    assert ask("DELETE", path, by=anna)[1]["id"] == made["id"]
    assert run("SELECT kind, subject::text FROM revocations") == [("key", made["id"])]
    assert run("SELECT action, actor FROM audit ORDER BY id") == [("key.created", anna[0]), ("key.deleted", anna[0])]
    assert ask("DELETE", path, by=anna)[0] == 404
    _, second = ask("POST", "/auth/keys", {"name": "import", "scopes": ["orders"]}, by=anna)
    assert ask("DELETE", f"{hers}/{second['id']}", by=admin)[0] == 200
    assert run("SELECT actor, subject FROM audit ORDER BY id DESC LIMIT 1") == [(admin[0], anna[0])]
    assert ask("GET", hers, by=admin) == (200, {"keys": []})


@pytest.mark.parametrize(
    ("role", "body", "more", "status", "said"),
    [
        ("user", {"scopes": ["everything"]}, {}, 400, "scopes"),
        ("user", {"scopes": []}, {}, 400, "scopes"),
        ("user", {"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, {}, 400, "expires_at: has passed"),
        ("admin", {"scopes": ["read"]}, {"scopes": ["admin"]}, 403, "log in"),
    ],
)
def test_no_key_is_made_of(ask, add, run, role, body, more, status, said):
    answer = ask("POST", "/auth/keys", {"name": "x", **body}, by=(add("anna", role), role), **more)
    assert (answer[0], said in answer[1]["message"]) == (status, True)
    assert run("SELECT 1 FROM api_keys") == []


def test_nobody_has_more_than_50_keys_also_of_those_made_at_once(ask, add, run):
    anna = add("anna")
    run(
        "INSERT INTO api_keys (id, user_id, name, hash, hint, scopes, created_at) SELECT gen_random_uuid(), :user, 'x',"
        " sha256(n::text::bytea), 'x', '{read}', now() FROM generate_series(1, 48) n",
        user=anna,
    )
    with ThreadPoolExecutor(4) as pool:
        body = {"name": "x", "scopes": ["read"]}
        asked = [pool.submit(ask, "POST", "/auth/keys", body, by=(anna, "user")) for _ in range(4)]
    assert sorted(one.result()[0] for one in asked) == [201, 201, 409, 409]
    assert run("SELECT count(*) FROM api_keys") == [(50,)]


def test_whoever_is_disabled_has_no_session_and_old_tokens_are_refused_until_and_after_they_are_enabled(ask, add, run):
    admin = add("admin", "admin"), "admin"
    add("other", "admin")
    anna = add("anna")
    run(
        "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at, expires_at) "
        "VALUES (gen_random_uuid(), :user, 0, '{pwd}', '', '', now(), now(), now() + interval '1 hour')",
        user=anna,
    )
    assert len(ask("GET", f"/users/{anna}/sessions", by=admin)[1]["sessions"]) == 1
    first = ask("POST", f"/users/{anna}/disable", by=admin)
    assert first[1]["disabled_at"]
    assert ask("POST", f"/users/{anna}/disable", by=admin) == first
    nothing = {"must_change_password": False, "email_verified_at": None, "factors": 0, "identities": 0}
    assert ask("GET", f"/users/{anna}/account", by=admin)[1] == {**first[1], "has_password": True, **nothing}
    assert ask("GET", f"/users/{new_id()}/account", by=admin)[1]["code"] == "user_not_found"
    assert ask("GET", f"/users/{anna}/sessions", by=admin)[1] == {"sessions": []}
    assert run("SELECT kind, subject, least_epoch FROM revocations") == [("user", anna, 1)]
    assert run("SELECT type, subject FROM outbox") == [("user.disabled", anna)]
    # A service itself still takes her token; what she makes by it would outlast her being disabled.
    for path, body in (("/auth/keys", {"name": "x", "scopes": ["read"]}), ("/auth/factors", {"name": "x"})):
        assert ask("POST", path, body, by=(anna, "user"))[1]["code"] == "invalid_credential"
    assert ask("POST", f"/users/{anna}/enable", by=admin)[1] == {"id": str(anna), "disabled_at": None}
    assert run("SELECT auth_epoch FROM users WHERE name = 'anna'") == [(2,)]
    assert ask("DELETE", f"/users/{anna}/sessions", by=admin)[1] == {"sessions": 0}
    assert run("SELECT least_epoch FROM revocations") == [(3,)]
    assert ask("POST", f"/users/{new_id()}/disable", by=admin)[1]["code"] == "user_not_found"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/users/{}/disable", None), ("PUT", "/users/{}", {"roles": ["user"]}), ("DELETE", "/users/{}", None)],
)
def test_the_last_two_administrators_do_not_end_each_other(ask, add, run, method, path, body):
    admins = [add(name, "admin") for name in ("one", "other")]
    add("disabled", "admin")
    run("UPDATE users SET disabled_at = now() WHERE name = 'disabled'")
    both = threading.Barrier(2)

    def end(me: UUID, other: UUID) -> Any:
        both.wait(10)
        return ask(method, path.format(other), body, by=(me, "admin"))

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(end, *pair) for pair in (admins, admins[::-1])]
    assert sorted(one.result()[0] for one in asked) == [200, 409]
    assert {one.result()[1].get("code") for one in asked} == {None, "last_administrator"}
    ((left,),) = run("SELECT id FROM users WHERE 'admin' = ANY(roles) AND disabled_at IS NULL")
    assert ask(method, path.format(left), body, by=(left, "admin"))[1]["code"] == "last_administrator"


@pytest.mark.parametrize("body", [{"roles": ["admin"]}, {"id": str(new_id())}, {"user_id": str(new_id())}])
def test_a_change_of_oneself_with_roles_or_an_id_stores_nothing(ask, add, run, body):
    anna = add("anna")
    before = run("SELECT users::text FROM users")
    status, _ = ask("PUT", f"/users/{anna}", {"name": "new", **body}, by=(anna, "user"))
    assert status == (403 if "roles" in body else 400)
    assert run("SELECT users::text FROM users") == before


def test_the_service_has_old_rows_of_the_audit_removed_and_touches_no_other(run, users_database):
    for days in (1, 400):
        run(
            "INSERT INTO audit (id, happened_at, action, details) VALUES (:id, :at, 'x', '{}')",
            id=str(new_id()),
            at=utc_now() - timedelta(days=days),
        )
    pruning = AuditPruning(users_database.database)
    pruning.run_once(utc_now())
    assert run("SELECT count(*) FROM audit") == [(2,)]
    pruning.run_once(utc_now())
    assert run("SELECT happened_at > now() - interval '2 days' FROM audit") == [(True,)]
    for statement in (
        "DELETE FROM audit",
        "UPDATE audit SET action = 'y'",
        "CREATE OR REPLACE FUNCTION prune_audit() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
    ):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            run(statement)


def test_whatever_somebody_does_to_the_account_of_another_is_in_the_audit(ask, add, run):
    me, other = (add("admin", "admin"), "admin"), add("anna")
    key = ask("POST", "/auth/keys", {"name": "x", "scopes": ["read"]}, by=(other, "user"))[1]["id"]
    also, fields = {"email": "b@example.com", "roles": ["auditor"]}, ["email", "name"]
    deeds = [
        ("POST /users", {"email": "c@example.com", "name": "Clara"}, "user.created", {"roles": ["user"]}),
        ("PUT /users/{id}", {"name": "Anna"}, "user.name_changed", {"fields": ["name"]}),
        ("PUT /users/{id}", {"name": "A", "email": "a@example.com"}, "user.email_changed", {"fields": fields}),
        ("PUT /users/{id}", also, "user.roles_changed",
         {"fields": ["email"], "roles": {"before": ["user"], "after": ["auditor"]}}),
        ("DELETE /users/{id}/keys/{key_id}", None, "key.deleted", {"key": key}),
        ("DELETE /users/{id}/factors", None, "factors.removed", {}),
        ("DELETE /users/{id}/sessions", None, "sessions.ended", {}),
        ("POST /users/{id}/link", {"purpose": "reset"}, "link.made", {"purpose": "reset", "mail": False}),
        ("POST /users/{id}/disable", None, "user.disabled", {}),
        ("POST /users/{id}/enable", None, "user.enabled", {}),
        ("DELETE /users/{id}", None, "user.deleted", {}),
    ]  # fmt: skip
    others = (Action.MANAGE_USERS, Action.CHANGE_USERS)
    changing = {f"{one.method} {one.path}" for one in operations() if one.action in others and one.method != "GET"}
    assert {name for name, *_ in deeds} == {name.replace("PATCH", "PUT") for name in changing}
    for name, body, action, details in deeds:
        before = {row[0] for row in run("SELECT id FROM audit")}
        method, path = name.replace("{id}", str(other)).replace("{key_id}", key).split(" ")
        status, answer = ask(method, path, body, by=me)
        assert status < 300, (name, answer)
        (row,) = [
            row for row in run("SELECT id, actor, subject, action, details, address FROM audit")
            if row[0] not in before
        ]  # fmt: skip
        subject = UUID(answer["id"]) if method == "POST" and path == "/users" else other
        assert row[1:] == (me[0], subject, action, details, "198.51.100.7"), name


def test_the_audit_is_read_page_by_page_and_by_whom_and_when(ask, add, run):
    admin = add("admin", "admin"), "admin"
    users = [add(f"user {number}") for number in range(3)]
    add("other", "admin")
    for user in users:
        ask("POST", f"/users/{user}/disable", by=admin)
        ask("POST", f"/users/{user}/enable", by=admin)
    everything = ask("GET", "/audit", by=(add("clara", "auditor"), "auditor"))[1]["entries"]
    assert [one["action"] for one in everything] == ["user.enabled", "user.disabled"] * 3
    assert {(one["actor"], one["address"]) for one in everything} == {(str(admin[0]), "198.51.100.7")}
    assert [(one["actor_name"], one["subject_name"]) for one in everything[::2]] == [
        ("admin", f"user {number}") for number in (2, 1, 0)
    ]
    pages, after = [], ""
    while after is not None:
        page = ask("GET", f"/audit?limit=4{after and f'&after={after}'}", by=admin)[1]
        pages += page["entries"]
        after = page["next"]
    assert pages == everything

    def listed(query: str) -> list[Any]:
        return ask("GET", f"/audit?{query}", by=admin)[1]["entries"]

    assert listed(f"subject={users[1]}&action=user.disabled") == [everything[3]]
    assert (listed(f"actor={admin[0]}"), listed(f"actor={users[1]}")) == (everything, [])
    middle = everything[2]["happened_at"]
    assert listed(f"happened_from={middle}") + listed(f"happened_to={middle}") == everything
    assert ask("GET", "/audit?happened_from=2026-01-02T00:00:00Z&happened_to=2026-01-01T00:00:00Z", by=admin)[0] == 400


GOOD = "seven brown cranes at noon"


def link(ask: Ask, user: UUID, purpose: str = "reset") -> str:
    """The token of a link that an administrator makes, in the name of one who need not be stored."""
    status, made = ask("POST", f"/users/{user}/link", {"purpose": purpose}, by=(new_id(), "admin"))
    assert status == 201, made
    return made["token"]


def test_a_link_sets_a_password_once_and_ends_whatever_let_its_user_in(ask, add, run):
    anna = add("anna")
    run(
        "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at, expires_at) "
        "VALUES (gen_random_uuid(), :user, 0, '{pwd}', '', '', now(), now(), now() + interval '1 hour')",
        user=anna,
    )
    token = link(ask, anna, "invitation")
    assert token not in str(run("SELECT one_time_tokens::text FROM one_time_tokens"))
    assert "guess" in ask("POST", "/auth/reset", {"token": token, "password": "anna anna anna anna"})[1]["message"]
    with ThreadPoolExecutor(2) as pool:
        body = {"token": token, "password": GOOD}
        asked = [pool.submit(ask, "POST", "/auth/reset", body) for _ in range(2)]
    first, second = sorted(one.result()[0] for one in asked)
    # On a busy machine a password that waits for its hash too long is a 503.
    assert (first, second in (400, 503)) == (200, True)
    assert ask("POST", "/auth/reset", body)[0] == 400
    assert [one.result()[1] for one in asked if one.result()[0] == 200] == [{"sessions": 1}]
    assert run("SELECT kind, subject, least_epoch FROM revocations") == [("user", anna, 1)]
    assert run("SELECT action, actor FROM audit WHERE action LIKE 'user%'") == [("user.password_reset", anna)]


def test_of_one_link_used_at_once_in_two_places_the_second_sets_nothing(ask, add, run, monkeypatch):
    anna = add("anna")
    token = link(ask, anna)

    def meanwhile(_: Passwords, password: str) -> str:
        if password == GOOD:
            assert ask("POST", "/auth/reset", {"token": token, "password": f"{GOOD}, the other"})[0] == 200
        return password

    monkeypatch.setattr(Passwords, "hash", meanwhile)
    answer = ask("POST", "/auth/reset", {"token": token, "password": GOOD})
    assert (answer[0], answer[1]["details"][0]["field"]) == (400, "token")
    assert run("SELECT password_hash FROM users WHERE id = :id", id=anna) == [(f"{GOOD}, the other",)]


@pytest.mark.parametrize(
    "after",
    [
        "UPDATE users SET password_hash = 'y'",
        "UPDATE users SET email = 'b@example.com', email_key = 'b@example.com'",
        "UPDATE users SET disabled_at = now()",
        "UPDATE one_time_tokens SET expires_at = now()",
        "UPDATE one_time_tokens SET id = gen_random_uuid()",
    ],
)
def test_a_link_of_before_is_dead(ask, add, run, after):
    token = link(ask, add("anna"))
    run(after)
    answer = ask("POST", "/auth/reset", {"token": token, "password": GOOD})
    assert (answer[0], answer[1]["details"][0]["field"]) == (400, "token")


def test_a_link_is_good_for_its_purpose_alone_and_to_the_letter(ask, add):
    anna = add("anna")
    token = link(ask, anna)
    for wrong in ("", "swl_", token[:-1], token + "=", token.swapcase(), f" {token}", token.removeprefix("swl_")):
        assert ask("POST", "/auth/reset", {"token": wrong, "password": GOOD})[0] == 400, wrong
    assert ask("POST", "/auth/email/confirm", {"token": token})[0] == 400
    assert link(ask, anna) != token
    assert ask("POST", "/auth/reset", {"token": token, "password": GOOD})[0] == 400


def test_whoever_forgets_a_password_is_answered_as_if_nobody_had_the_address_and_slowed_down(ask, add, run):
    anna = add("anna")
    for email in ("ANNA@example.com", "anna@EXAMPLE.com", "nobody@example.com"):
        assert ask("POST", "/auth/forgot", {"email": email}) == (202, {"expires_in": 3600})
    # An address that only folds to the stored one: whatever is sent goes to the stored one.
    assert run("SELECT user_id, purpose, email FROM one_time_tokens") == [(anna, "reset", None)]
    for email in ("anna@example.com", "nobody@example.com"):
        statuses = [ask("POST", "/auth/forgot", {"email": email})[0] for _ in range(6)]
        assert (statuses[0], statuses[-1]) == (202, 429)


def test_another_address_takes_a_fresh_login_and_a_proof(ask, add, run):
    anna = add("anna")
    add("boris")
    run(
        "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at, expires_at) "
        "VALUES (:id, :user, 0, '{pwd}', '', '', now(), now(), now() + interval '1 hour')",
        user=anna, id=SESSION,
    )  # fmt: skip
    by = anna, "user"
    assert ask("PUT", f"/users/{anna}", {"email": "new@example.com"}, by=by)[0] == 403
    for email in ("boris@example.com", "new@example.com"):
        assert ask("POST", "/auth/email", {"email": email}, by=by) == (202, {"expires_in": 3600})
        answer = ask("POST", "/auth/email/confirm", {"token": link(ask, anna, "email")})
        assert answer[1].get("code") == ("email_taken" if email.startswith("boris") else None)
    assert run("SELECT email, email_verified_at IS NULL FROM users WHERE id = :id", id=anna) == [
        ("new@example.com", False)
    ]
    assert run("SELECT type FROM outbox") == [("user.updated",)]
    assert ask("POST", "/auth/email", {"email": "x@example.com"}, by=by, scopes=["admin"])[0] == 403
    run("UPDATE sessions SET created_at = now() - interval '6 minutes'")
    assert ask("POST", "/auth/email", {"email": "x@example.com"}, by=by)[1]["code"] == "login_not_fresh"


def linked(mail: Any) -> str:
    """The token of the link in a message."""
    return next(line for line in mail["text"].splitlines() if "/console#/link/" in line).rpartition("/")[2]


def test_a_link_goes_by_mail_to_the_stored_address_and_no_table_ever_holds_it(ask_mailing, add, run):
    ask, anna = ask_mailing, add("anna")
    for email in ("ANNA@example.com", "nobody@example.com", "anna@EXAMPLE.com"):
        assert ask("POST", "/auth/forgot", {"email": email})[0] == 202
    ((wanted,),) = run("SELECT id FROM one_time_tokens")
    assert run("SELECT type, subject, data FROM outbox") == [("mail.wanted", wanted, {"id": str(wanted)})]
    # The mail may have been lost: some minutes later there is another.
    run("UPDATE one_time_tokens SET created_at = created_at - interval '5 minutes'")
    for _ in range(2):
        assert ask("POST", "/auth/forgot", {"email": "anna@example.com"})[0] == 202
    assert len(run("SELECT id FROM outbox WHERE type = 'mail.wanted'")) == 2

    def fetch(link: UUID, token: str = MAIL) -> Any:
        return ask("POST", "/internal/mail", {"id": str(link)}, token=token)

    assert fetch(wanted, "a guess")[0] == 401
    status, mail = fetch(wanted)
    assert (status, mail["to"], mail["subject"]) == (200, "anna@example.com", "Set a new password")
    token = linked(mail)
    # After the #, which no browser sends.
    assert f"\nhttps://sites.example.com/console#/link/reset/{token}\n" in mail["text"]
    assert ("anna" in mail["text"]) is False, "a name is whatever its owner typed"
    assert fetch(wanted) == (status, mail), "the mail server may not have taken it"
    for table in ("one_time_tokens", "outbox", "audit", "users"):
        assert token not in str(run(f"SELECT {table}::text FROM {table}"))
    assert ask("POST", "/auth/reset", {"token": token, "password": GOOD})[0] == 200
    assert fetch(wanted)[1]["code"] == "mail_not_found"
    assert ask("POST", "/auth/reset", {"token": token, "password": GOOD})[0] == 400

    run(
        "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at, expires_at) "
        "VALUES (:id, :user, 0, '{pwd}', '', '', now(), now(), now() + interval '1 hour')",
        user=anna, id=SESSION,
    )  # fmt: skip
    assert ask("POST", "/auth/email", {"email": "new@example.com"}, by=(anna, "user"))[0] == 202
    body = {"purpose": "invitation", "mail": True}
    assert ask("POST", f"/users/{anna}/link", body, by=(new_id(), "admin"))[1]["token"] is None
    _, _, *others = [link for (link,) in run("SELECT subject FROM outbox WHERE type = 'mail.wanted' ORDER BY position")]
    assert [fetch(link)[1]["to"] for link in others] == ["new@example.com", "anna@example.com"]
    proof = linked(fetch(others[0])[1])
    assert ask("POST", "/auth/email/confirm", {"token": proof})[0] == 200
    assert [fetch(link)[0] for link in others] == [404, 404]
    ((told,),) = run("SELECT id FROM one_time_tokens")
    status, mail = fetch(told)
    assert (status, mail["to"], "swl_" in mail["text"]) == (200, "anna@example.com", False)
    # Nor does whoever took the account keep that mail from them by what they do next.
    assert ask("POST", "/auth/email", {"email": "third@example.com"}, by=(anna, "user"))[0] == 202
    for purpose, path, more in (("email", "/auth/email/confirm", {}), ("reset", "/auth/reset", {"password": GOOD})):
        link = ask("POST", f"/users/{anna}/link", {"purpose": purpose}, by=(new_id(), "admin"))[1]["token"]
        assert ask("POST", path, {"token": link, **more})[0] == 200
    kept = run("SELECT id FROM one_time_tokens ORDER BY id")
    assert [fetch(one)[1]["to"] for (one,) in kept] == ["anna@example.com", "new@example.com"]
    run("UPDATE users SET disabled_at = now()")
    assert fetch(told)[0] == 404


def test_without_an_address_of_the_system_no_mail_is_wanted(ask, add, run):
    anna = add("anna")
    assert ask("POST", "/auth/forgot", {"email": "anna@example.com"})[0] == 202
    refused = ask("POST", f"/users/{anna}/link", {"purpose": "reset", "mail": True}, by=(new_id(), "admin"))
    assert (refused[0], refused[1]["details"][0]["field"]) == (400, "mail")
    assert run("SELECT type FROM outbox") == []
