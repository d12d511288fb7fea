"""Who logs in, stays in and leaves: the users service as a process, on a real database."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import psutil
import pytest
import requests
from argon2 import PasswordHasher
from sqlalchemy import text

from service_users.accounts import passwords
from service_users.accounts.factors import Factors
from service_users.accounts.passwords import Passwords
from service_users.accounts.schemas import Login, PasswordChange
from service_users.accounts.signing import SigningKeys
from service_users.accounts.throttles import REMEMBERED, Throttles
from service_users.accounts.totp import one_time_code
from service_users.accounts.use_cases import Accounts, LoggedIn
from service_users.app import create_app
from service_users.auth_key import AuthKey, Box
from service_users.errors import InvalidCredential, TooManyAttempts, TooManyPasswords
from service_users.settings import UsersSettings
from servicekit.database.engine import Database
from servicekit.identity.api_keys import new_api_key
from servicekit.identity.enforcement import KEYS_PATH
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.process.ids import new_id
from servicekit.web.routes import Sender
from tests.support.postgres import ServiceDatabase
from tests.support.programs import Program
from tests.support.waiting import eventually

PASSWORD, OTHER = "seven brown cranes at noon", "nine grey mixers by night"
HASH = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1).hash(PASSWORD)
GATEWAY = "what only the gateway knows"
HOME, AWAY = "198.51.100.7", "203.0.113.9"
#: Of each a test leaves a pause, which the process believes a little longer.
ELSEWHERE, FAR_AWAY = "192.0.2.9", "100.64.0.9"


class Users(Program):
    """The service, which asks itself for its keys."""

    def write_env(self, *lines: str) -> None:
        super().write_env(*lines, f"USERS_URL=http://127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def process(cloned_database: ServiceDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    lines = (
        "AUTH=required",
        f"AUTH_KEY={'A' * 43}",
        f"USERS_DATABASE_URL={cloned_database.url}",
        "AUTH_KEYS_FILE=keys",
        f"GATEWAY_TOKEN={GATEWAY}",
    )
    started = Users(tmp_path_factory.mktemp("users"), "users", *lines)
    eventually((started.folder / "keys").is_file, timeout=20, what="it has its keys")
    yield started
    started.stop()


@pytest.fixture
def run(users_database: ServiceDatabase) -> Iterator[Callable[..., list[Any]]]:
    """Give what runs a statement in the database; afterwards nothing is left there."""

    def run(statement: str, **values: object) -> list[Any]:
        with users_database.database.transaction() as transaction:
            rows = transaction.execute(text(statement), values)
            return list(rows) if rows.returns_rows else []

    yield run
    for table in ("revocations", "throttles"):
        run(f"DELETE FROM {table}")
    users_database.administer("TRUNCATE audit")


@pytest.fixture
def anna(run) -> str:
    return add(run, "anna")


def add(run: Callable[..., Any], name: str, *, password_hash: str | None = HASH, roles: str = "user") -> str:
    """Store a user; returns the id."""
    made = str(new_id())
    run(
        "INSERT INTO users (id, email, email_key, name, name_key, roles, password_hash, created_at, updated_at) "
        "VALUES (:id, :email, :email, :name, :name, ARRAY[:roles], :hash, now(), now())",
        id=made, email=f"{name}@example.com", name=name, roles=roles, hash=password_hash,
    )  # fmt: skip
    return made


@pytest.fixture
def ask(process: Users) -> Callable[..., requests.Response]:
    def ask(
        method: str, path: str, body: object = None, *, token: str | None = None, address: str = HOME, **headers: str
    ) -> requests.Response:
        fields = {"X-Forwarded-For": address, **headers}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        return requests.request(method, f"http://127.0.0.1:{process.port}{path}", json=body, headers=fields, timeout=30)

    return ask


def login(ask: Callable[..., requests.Response], name: str = "anna", password: str = PASSWORD, **more: str) -> Any:
    """The data of a login, or the answer that refuses it."""
    address = more.pop("address", HOME)
    body = {"email": f"{name}@example.com", "password": password, **more}
    answer = ask("POST", "/auth/login", body, address=address)
    return answer.json()["data"] if answer.ok else answer


def refresh(ask: Callable[..., requests.Response], session: Any) -> Any:
    answer = ask("POST", "/auth/refresh", {"refresh_token": session["refresh_token"]})
    assert answer.headers.get("Cache-Control") == ("no-store" if answer.ok else None)
    return answer.json()["data"] if answer.ok else answer.status_code


def actions(run: Callable[..., Any]) -> list[str]:
    return [row.action for row in run("SELECT action FROM audit ORDER BY happened_at, id")]


def test_of_50_refreshes_at_once_each_gets_the_same_answer(ask, anna):
    session = login(ask)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: refresh(ask, session), range(50)))
    assert answers == [answers[0]] * 50
    assert refresh(ask, answers[0])["refresh_token"] not in (session["refresh_token"], answers[0]["refresh_token"])


def test_a_lost_answer_is_given_again_and_a_stolen_token_ends_its_session_alone(ask, anna, run):
    first, second = login(ask), login(ask)
    lost = refresh(ask, first)
    assert refresh(ask, first) == lost, "a client that never saw it"
    newest = refresh(ask, lost)
    # An access token that a request carries while another refreshes stays good.
    assert ask("GET", "/auth/me", token=first["access_token"]).json()["data"]["id"] == anna

    run("UPDATE sessions SET refreshed_at = refreshed_at - interval '11 seconds'")
    assert refresh(ask, lost) == 401
    assert refresh(ask, newest) == 401, "the newest descendant ends with it"
    assert refresh(ask, second)["session_id"] == second["session_id"]
    assert [tuple(row) for row in run("SELECT kind, subject::text FROM revocations")] == [
        ("session", first["session_id"])
    ]
    assert actions(run) == ["session.began", "session.began", "session.token_reused"]
    for wrong in ("", "swr_", newest["refresh_token"][:-2], newest["refresh_token"] + "=", newest["access_token"][:99]):
        assert refresh(ask, {"refresh_token": wrong}) == 401


def test_a_session_that_was_ended_or_whose_user_is_disabled_does_not_go_on(ask, anna, run):
    one, other, third = login(ask), login(ask), login(ask)
    token = one["access_token"]
    listed = ask("GET", "/auth/sessions", token=token).json()["data"]["sessions"]
    assert [(row["id"], row["current"], row["address"]) for row in listed] == [
        (session["session_id"], session is one, HOME) for session in (third, other, one)
    ]
    ended = f"/auth/sessions/{other['session_id']}"
    assert ask("DELETE", ended, token=token).json()["data"] == {"sessions": 1}
    assert ask("DELETE", ended, token=token).json()["error"]["code"] == "session_not_found"
    assert refresh(ask, other) == 401
    assert ask("POST", "/auth/logout", token=token).ok
    assert refresh(ask, one) == 401
    assert run("SELECT type FROM outbox") == [], "whatever goes on in their name goes on"
    run("UPDATE users SET disabled_at = now()")
    assert refresh(ask, third) == 401
    revoked = {str(row.subject) for row in run("SELECT subject FROM revocations WHERE kind = 'session'")}
    assert revoked == {session["session_id"] for session in (one, other, third)}


def test_nobody_ends_or_sees_a_session_of_somebody_else(ask, anna, run):
    add(run, "boris", roles="admin")
    hers, his = login(ask), login(ask, "boris")
    token = his["access_token"]
    assert [row["id"] for row in ask("GET", "/auth/sessions", token=token).json()["data"]["sessions"]] == [
        his["session_id"]
    ]
    assert ask("DELETE", f"/auth/sessions/{hers['session_id']}", token=token).status_code == 404
    second = login(ask, "boris")
    assert ask("DELETE", "/auth/sessions", token=token).json()["data"] == {"sessions": 1}
    assert refresh(ask, second) == 401
    his = refresh(ask, his)
    assert ask("POST", "/auth/logout-all", token=his["access_token"]).json()["data"] == {"sessions": 1}
    assert (refresh(ask, his), refresh(ask, hers)["session_id"]) == (401, hers["session_id"])


def test_whatever_is_wrong_with_a_login_it_gets_the_same_answer_for_the_same_work(run, users_database, monkeypatch):
    tried: list[str] = []
    verify = passwords.verify_now
    monkeypatch.setattr(passwords, "verify_now", lambda stored, given: tried.append(stored) or verify(stored, given))
    # Or on a busy machine one that goes last is tried twice.
    monkeypatch.setattr(passwords, "_WARY_SECONDS", 0.0)
    database, key = users_database.database, AuthKey(bytes(32))
    keys, factors, now = SigningKeys(database, key, issuer="x"), Factors(database, key), datetime.now(UTC)
    accounts = Accounts(database, Passwords(places=1), keys, key, factors, clock=lambda: now)
    add(run, "anna")
    add(run, "boris", password_hash=None)
    add(run, "clara")
    run("UPDATE users SET disabled_at = now() WHERE name = 'clara'")
    refused = set()
    for name, given in (("anna", OTHER), ("boris", PASSWORD), ("clara", PASSWORD), ("nobody", PASSWORD)):
        with pytest.raises(InvalidCredential) as error:
            accounts.log_in(Login(email=f"{name}@example.com", password=given), Sender(HOME))
        refused.add(str(error.value))
    assert len(refused) == 1
    assert len(tried) == 4
    assert {stored.rpartition("$")[0].rpartition("$")[0] for stored in tried} == {"$argon2id$v=19$m=65536,t=3,p=1"}
    assert {len(stored) for stored in tried} == {len(HASH)}

    # A guess that comes too often, or for which there is no place, costs no query.
    def guess(name: str) -> None:
        accounts.log_in(Login(email=f"{name}@example.com", password=OTHER), Sender(HOME), "swd_a_guess_too")

    run("UPDATE throttles SET failures = 10")
    for name in ("anna", "nobody"):
        for error in (InvalidCredential, TooManyAttempts):
            with pytest.raises(error):
                guess(name)
    lost = lambda *_: pytest.fail("the database was asked")  # noqa: E731
    monkeypatch.setattr(Database, "rows", lost)
    monkeypatch.setattr(Database, "once", lost)
    for name in ("anna", "nobody"):
        with pytest.raises(TooManyAttempts):
            guess(name)
    accounts._passwords._places.get()
    with pytest.raises(TooManyPasswords):
        guess("boris")


@pytest.mark.parametrize(
    "change", ["UPDATE users SET disabled_at = now()", "UPDATE users SET password_hash = 'x'", "DELETE FROM users"]
)
def test_what_changes_while_a_password_is_hashed_counts(run, users_database, monkeypatch, change):
    def meanwhile(*_: str) -> bool:
        run(change)
        return True

    monkeypatch.setattr(passwords, "verify_now", meanwhile)
    monkeypatch.setattr(passwords, "hash_now", lambda _: HASH)
    database, key = users_database.database, AuthKey(bytes(32))
    accounts = Accounts(
        database, Passwords(places=1), SigningKeys(database, key, issuer="x"), key, Factors(database, key)
    )
    add(run, "anna")
    with pytest.raises(InvalidCredential):
        accounts.log_in(Login(email="anna@example.com", password=PASSWORD), Sender(HOME))
    run("DELETE FROM users")
    caller = Principal(UUID(add(run, "anna")), Role.USER, session_id=new_id())
    with pytest.raises(InvalidCredential):
        accounts.change_password(PasswordChange(current=PASSWORD, new=OTHER), caller, Sender(HOME))
    assert (
        run(
            "SELECT id FROM sessions UNION SELECT id FROM users WHERE password_hash = :hash AND disabled_at IS NULL",
            hash=HASH,
        )
        == []
    )


def test_each_wrong_password_makes_the_next_wait_up_to_a_minute_until_all_are_forgotten(run, users_database):
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    throttles = Throttles(users_database.database, clock=lambda: clock[0])
    for pause in (0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60):
        throttles.reserve(b"x")
        if pause:
            clock[0] += timedelta(seconds=pause - 0.5)
            with pytest.raises(TooManyAttempts) as refused:
                throttles.reserve(b"x")
            assert refused.value.headers == {"Retry-After": "1"}
            clock[0] += timedelta(seconds=0.5)
    clock[0] += timedelta(seconds=REMEMBERED + 1)
    for _ in range(5):
        throttles.reserve(b"x")
    with pytest.raises(TooManyAttempts):
        throttles.reserve(b"x")
    throttles.give_back(b"x")
    throttles.reserve(b"x")
    # A pause is believed for a second.
    with pytest.raises(TooManyAttempts):
        throttles.reserve(b"x")
    Throttles(users_database.database).settle(b"x")
    with pytest.raises(TooManyAttempts):
        throttles.reserve(b"x")
    clock[0] += timedelta(seconds=1)
    throttles.reserve(b"x")
    throttles.settle(b"x")
    assert run("SELECT * FROM throttles") == []


def test_who_guesses_keeps_out_neither_a_known_device_nor_another_network(ask, anna, run):
    device = login(ask)["device_token"]
    for name in ("anna", "nobody"):
        assert login(ask, name, OTHER).status_code == 401
        run("UPDATE throttles SET failures = 10000, until = now()")
        # Each is counted before it is looked at; one for which there is no place is neither.
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, name=name: login(ask, name, OTHER), range(8)))
        seen = Counter(answer.status_code for answer in answers)
        assert (seen.pop(401), seen.pop(503, 0) + seen.pop(429), seen) == (1, 7, {}), name
        refused = login(ask, name, address="198.51.100.200")
        assert refused.json()["error"]["code"] == "too_many_attempts"
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert login(ask, name, device_token=device if name == "nobody" else "swd_").status_code == 429
        # Meanwhile.
        assert login(ask, address=AWAY)["session_id"]
        assert login(ask, device_token=device)["session_id"]
    # A known device has a count of its own.
    assert login(ask, password=OTHER, device_token=device).status_code == 401
    run("UPDATE throttles SET until = now() + interval '1 minute'")
    assert login(ask, device_token=device).status_code == 429
    run("UPDATE throttles SET until = now()")
    eventually(lambda: isinstance(login(ask), dict), timeout=5, what="the pause is over, and soon known to be")
    assert login(ask, password=OTHER).status_code == 401
    assert login(ask)["session_id"], "the right one has settled it"


def test_whoever_holds_a_session_cannot_guess_the_password_either(ask, anna, run):
    token = login(ask)["access_token"]
    change = {"current": "not it", "new": OTHER}
    answer = ask("PUT", "/auth/password", change, token=token, address=ELSEWHERE)
    assert answer.json()["error"]["details"] == [{"field": "current", "message": "is not the present password"}]
    run("UPDATE throttles SET until = now() + interval '1 minute'")
    right = {**change, "current": PASSWORD}
    assert ask("PUT", "/auth/password", right, token=token, address=ELSEWHERE).status_code == 429
    assert login(ask, address=ELSEWHERE).status_code == 429


def test_another_password_ends_all_other_sessions_and_older_access_tokens(ask, anna, run):
    mine, other = login(ask), login(ask)
    token = mine["access_token"]
    for weak, field in (("anna@example.com 12345678", "new"), ("short", "new"), (PASSWORD, "new")):
        answer = ask("PUT", "/auth/password", {"current": PASSWORD, "new": weak}, token=token)
        assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]
    run(
        "INSERT INTO one_time_tokens (id, user_id, purpose, created_at, expires_at) "
        "VALUES (:id, :user, 'reset', now(), now() + interval '1 hour')",
        id=new_id(), user=anna,
    )  # fmt: skip
    assert ask("PUT", "/auth/password", {"current": PASSWORD, "new": OTHER}, token=token).json()["data"] == {
        "sessions": 1
    }
    assert run("SELECT * FROM one_time_tokens") == []
    assert refresh(ask, other) == 401
    assert refresh(ask, mine)["session_id"] == mine["session_id"]
    assert [tuple(row) for row in run("SELECT kind, subject::text, least_epoch FROM revocations")] == [
        ("user", anna, 1)
    ]
    assert login(ask).status_code == 401
    assert login(ask, password=OTHER)["session_id"]
    assert "user.password_changed" in actions(run)


def test_a_browser_gets_cookies_that_no_script_reads_and_no_token(ask, anna, run):
    body = {"email": "anna@example.com", "password": PASSWORD, "session": "cookie"}
    for prefix, secure, proto in (("", "", "http"), ("__Host-", "; Secure", "https")):
        answer = ask("POST", "/auth/login", body, **{"X-Forwarded-Proto": proto})
        cookies = answer.raw.headers.getlist("Set-Cookie")
        assert [cookie.partition("=")[0] for cookie in cookies] == [f"{prefix}siteworks", f"{prefix}siteworks-device"]
        for cookie in cookies:
            assert "; Path=/; Max-Age=" in cookie
            assert cookie.endswith(f"; HttpOnly; SameSite=Lax{secure}")
        assert {*answer.json()["data"].values()} == {answer.json()["data"]["session_id"], "Bearer", None}
        value = cookies[0].partition("=")[2].partition(";")[0]
        assert run("SELECT count(*) FROM sessions WHERE cookie_hash = sha256(:it)", it=value.encode())[0][0] == 1
    # The device is known from then on.
    assert login(ask, password=OTHER, address=FAR_AWAY).status_code == 401
    run("UPDATE throttles SET until = now() + interval '1 minute'")
    assert login(ask, address=FAR_AWAY).status_code == 429
    device = cookies[1].partition(";")[0]
    fields = {"X-Forwarded-Proto": "https", "Cookie": device}
    assert ask("POST", "/auth/login", body, address=FAR_AWAY, **fields).ok


def test_the_gateway_alone_gets_tokens_for_cookies_and_keys_and_learns_what_has_ended(ask, anna, run):
    key, key_id = new_api_key(), new_id()
    run(
        "INSERT INTO api_keys (id, user_id, name, hash, hint, scopes, created_at) "
        "VALUES (:id, :user, 'cron', :hash, 'abcd', ARRAY['orders'], now())",
        id=key_id, user=anna, hash=hashlib.sha256(key.encode()).digest(),
    )  # fmt: skip
    answer = ask("POST", "/auth/login", {"email": "anna@example.com", "password": PASSWORD, "session": "cookie"})
    cookie, session = answer.cookies["siteworks"], answer.json()["data"]["session_id"]

    def exchange(kind: str, credential: str, token: str = GATEWAY) -> Any:
        return ask("POST", "/internal/exchange", {"kind": kind, "credential": credential}, token=token)

    made = {
        kind: exchange(kind, text).json()["data"]["access_token"] for kind, text in (("cookie", cookie), ("key", key))
    }
    assert ask("GET", "/auth/me", token=made["cookie"]).json()["data"]["id"] == anna
    claims = {kind: jwt.decode(one, options={"verify_signature": False}) for kind, one in made.items()}
    assert [(claims[kind]["sid"], claims[kind].get("scope")) for kind in made] == [
        (session, None),
        (str(key_id), "orders"),
    ]
    used = run("SELECT last_used_at, xmin::text FROM api_keys")
    for _ in range(3):
        assert exchange("key", key).status_code == 200
    assert run("SELECT last_used_at, xmin::text FROM api_keys") == used
    for kind, shown in (("key", cookie), ("cookie", key), ("cookie", "x"), ("key", new_api_key())):
        refused = exchange(kind, shown)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_credential")
    refused = exchange("act_as", anna)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    for token in (None, "for these tests only", made["cookie"]):
        assert exchange("key", key, token).status_code == 401
        assert ask("GET", "/internal/revocations", token=token).status_code == 401

    none = {"sessions": [], "keys": [], "users": {}}
    assert ask("GET", "/internal/revocations", token=GATEWAY).json()["data"] == none
    assert ask("POST", "/auth/logout", token=made["cookie"]).status_code == 200
    assert ask("GET", "/internal/revocations", token=GATEWAY).json()["data"] == {**none, "sessions": [session]}
    assert exchange("cookie", cookie).status_code == 401
    run("UPDATE users SET disabled_at = now() WHERE id = :id", id=anna)
    assert exchange("key", key).status_code == 401


def test_the_audit_takes_what_the_gateway_tells_once(ask, anna, run):
    told = {"id": str(new_id()), "minute": "2026-11-20T10:00:00Z", "address": HOME, "reason": "forbidden", "count": 7}
    others = {**told, "id": str(new_id()), "address": None}

    def tell(*refusals: object, token: str | None = GATEWAY) -> tuple[int, Any]:
        answer = ask("POST", "/internal/audit", {"refusals": refusals}, token=token)
        return answer.status_code, answer.json().get("data")

    assert tell(told) == (200, {"entries": 1})
    assert tell(told, others) == (200, {"entries": 1})
    for wrong in ({**told, "count": 0}, {**told, "reason": "it's me"}, {**told, "action": "user.created"}):
        assert tell(wrong)[0] == 400
    for token in (None, "for these tests only"):
        assert tell(others, token=token)[0] == 401
    shown = run("SELECT action, actor, subject, address, details, happened_at::text FROM audit ORDER BY address")
    details = {"reason": "forbidden", "count": 7}
    assert [row[:5] for row in shown] == [
        ("request.refused", None, None, HOME, details),
        ("request.refused", None, None, None, details),
    ]
    forced = {"id": str(new_id()), "at": "2026-11-20T10:00:00Z", "actor": anna, "address": AWAY}
    body = {"circuits": [{**forced, "circuit": "orders", "state": "open"}]}
    for entries in (1, 0):
        assert ask("POST", "/internal/audit", body, token=GATEWAY).json()["data"] == {"entries": entries}
    ((action, actor, details),) = run("SELECT action, actor::text, details FROM audit WHERE address = :it", it=AWAY)
    assert (action, actor, details) == ("circuit.forced", anna, {"circuit": "orders", "state": "open"})
    assert ask("POST", "/internal/audit", {}, token=GATEWAY).status_code == 400


def test_the_client_that_the_gateway_names_is_the_one_that_is_slowed_down(ask, anna, run):
    def tried(password: str, client: str) -> int:
        body = {"email": "anna@example.com", "password": password}
        return ask("POST", "/auth/login", body, address=f"{HOME}, 10.0.0.1", **{"X-Real-IP": client}).status_code

    assert [tried(OTHER, f"198.51.{number}.7") for number in range(6)] == [401] * 6
    assert tried(PASSWORD, AWAY) == 200
    assert run("SELECT address FROM sessions") == [(AWAY,)]


def test_100_logins_at_once_and_passwords_of_a_megabyte_leave_the_memory_bounded(ask, anna, process):
    server = psutil.Process(process.process.pid).children()[0]
    before = server.memory_info().rss
    huge = [ask("POST", "/auth/login", {"email": "anna@example.com", "password": "x" * 2**20}) for _ in range(3)]
    assert {answer.status_code for answer in huge} == {413}
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda at: login(ask, f"user{at}", address=f"192.0.{at}.1"), range(100)))
    assert {answer.status_code for answer in answers} <= {401, 503}
    # One hash takes 64 MiB, for as long as it takes.
    assert server.memory_info().rss - before < 110 * 2**20


def test_other_roles_another_password_and_the_end_of_a_user_end_what_was_issued(ask, anna, run):
    boris = add(run, "boris", roles="admin")
    hers, his = login(ask), login(ask, "boris")
    token = his["access_token"]
    assert ask("PUT", f"/users/{anna}", {"name": "Anna"}, token=token).ok
    assert run("SELECT * FROM revocations") == []
    assert ask("PUT", f"/users/{anna}", {"roles": ["auditor"]}, token=token).ok
    row = run("SELECT * FROM audit WHERE action = 'user.roles_changed'")[0]
    assert (str(row.actor), str(row.subject), row.address) == (boris, anna, HOME)
    assert row.details == {"roles": {"before": ["user"], "after": ["auditor"]}}
    again = refresh(ask, hers)
    assert ask("GET", "/users", token=again["access_token"]).json()["data"]["total"] == 2, "an auditor at once"
    # Where people log in, a first password is a good one, and each sets only their own.
    weak = ask("POST", "/users", {"email": "c@example.com", "name": "Clara", "password": "password"}, token=token)
    assert [detail["field"] for detail in weak.json()["error"]["details"]] == ["password"]
    for whose in (anna, boris):
        refused = ask("PUT", f"/users/{whose}", {"password": OTHER}, token=token)
        assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (403, "password")
    assert [tuple(row) for row in run("SELECT kind, subject::text, least_epoch FROM revocations")] == [
        ("user", anna, 1)
    ]
    assert ask("DELETE", f"/users/{anna}", token=token).ok
    assert refresh(ask, again) == 401
    assert run("SELECT least_epoch FROM revocations")[0][0] == 2**31 - 1
    assert actions(run)[-1] == "user.deleted"


def test_a_password_that_is_set_without_logins_ends_the_sessions(run, anna, ask, users_database):
    session = login(ask)
    open_app = create_app(UsersSettings(users_database_url=users_database.url)).test_client()
    assert open_app.put(f"/users/{anna}", json={"password": OTHER}).status_code == 200
    assert refresh(ask, session) == 401
    assert run("SELECT auth_epoch FROM users")[0][0] == 1
    assert login(ask, password=OTHER)["session_id"]


def test_where_nobody_logs_in_accounts_do_not_change(users_database):
    client = create_app(UsersSettings(users_database_url=users_database.url)).test_client()
    session = f"/auth/sessions/{UUID(int=1)}"
    bodies = {
        "/auth/login": {"email": "a@example.com", "password": "x"},
        "/auth/refresh": {"refresh_token": "x"},
        "/auth/password": {"current": "x", "new": "y"},
    }
    for method, path in (
        ("POST", "/auth/login"), ("POST", "/auth/refresh"), ("POST", "/auth/logout"), ("POST", "/auth/logout-all"),
        ("PUT", "/auth/password"), ("DELETE", session), ("DELETE", "/auth/sessions"),
    ):  # fmt: skip
        refused = client.open(path, method=method, json=bodies.get(path))
        assert (refused.status_code, refused.json["error"]["code"]) == (409, "auth_is_off"), path
    assert client.get("/auth/me").json["data"]["roles"] == ["admin"]
    assert client.get("/auth/sessions").json["data"] == {"sessions": []}


def test_no_log_holds_a_password_or_a_token(ask, anna, process):
    session = login(ask)
    refresh(ask, session)
    secrets = (PASSWORD, session["access_token"][-60:], session["refresh_token"][4:], session["device_token"][4:])
    log = (process.folder / "log").read_text()
    assert '"request"' in log
    assert not any(secret in log for secret in secrets)
    assert json.loads(requests.get(f"http://127.0.0.1:{process.port}{KEYS_PATH}", timeout=10).text)["keys"]


def enrolled(ask: Callable[..., requests.Response], session: Any) -> tuple[bytes, int, list[str]]:
    """A second factor of this session's user: its secret, the step that confirmed it, and the recovery codes."""
    made = ask("POST", "/auth/factors", {"name": "Phone"}, token=session["access_token"]).json()["data"]
    secret = base64.b32decode(made["secret"])
    path, step = f"/auth/factors/{made['id']}/confirm", int(time.time()) // 30
    confirmed = ask("POST", path, {"code": one_time_code(secret, step)}, token=session["access_token"])
    assert confirmed.headers["Cache-Control"] == "no-store"
    return secret, step, confirmed.json()["data"]["recovery_codes"]


def with_code(ask: Callable[..., requests.Response], pending: Any, code: str, address: str = HOME) -> requests.Response:
    body = {"pending_token": pending["pending_token"], "code": code}
    return ask("POST", "/auth/login/code", body, address=address)


def test_a_second_factor_counts_once_it_is_confirmed_and_ends_the_sessions_begun_without_it(ask, anna, run):
    mine, other = login(ask), login(ask)
    token = mine["access_token"]
    made = ask("POST", "/auth/factors", {"name": "Tablet"}, token=token).json()["data"]
    path = f"/auth/factors/{made['id']}/confirm"
    secret = base64.b32decode(made["secret"])
    stale = one_time_code(secret, int(time.time()) // 30 - 5)
    assert ask("POST", path, {"code": stale}, token=token).json()["error"]["details"][0]["field"] == "code"
    assert login(ask)["session_id"], "not yet asked for"
    # Another one that is begun takes its place.
    secret, _, codes = enrolled(ask, mine)
    assert ask("POST", path, {"code": stale}, token=token).json()["error"]["code"] == "factor_not_found"
    assert (refresh(ask, other), refresh(ask, mine)["session_id"]) == (401, mine["session_id"])
    assert [tuple(row) for row in run("SELECT kind, least_epoch FROM revocations WHERE kind = 'user'")] == [("user", 1)]
    ((stored,),) = run("SELECT factors::text FROM factors")
    assert not [one for one in (secret.hex(), made["secret"], *codes) if one in stored]
    assert len({*codes}) == 10

    pending = login(ask)
    assert [name for name, value in pending.items() if value] == ["token_type", "pending_token"]
    assert run("SELECT count(*) FROM sessions")[0][0] == 1
    body = {"email": "anna@example.com", "password": PASSWORD, "session": "cookie"}
    answer = ask("POST", "/auth/login", body)
    assert "Set-Cookie" not in answer.headers
    answer = with_code(ask, answer.json()["data"], codes[0])
    assert [one.partition("=")[0] for one in answer.raw.headers.getlist("Set-Cookie")] == [
        "siteworks", "siteworks-device"
    ]  # fmt: skip
    assert not answer.json()["data"]["access_token"]


def test_a_code_is_good_once_also_of_many_requests_at_once(ask, anna, run):
    secret, step, recovery = enrolled(ask, login(ask))
    pending = login(ask)
    assert with_code(ask, pending, one_time_code(secret, step)).status_code == 401, "it has confirmed the factor"
    with ThreadPoolExecutor(4) as pool:
        for code in (one_time_code(secret, step + 1), recovery[3]):
            run("DELETE FROM throttles")
            answers = list(pool.map(lambda _, code=code: with_code(ask, pending, code), range(4)))
            assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    (made,) = (answer.json()["data"] for answer in answers if answer.ok)
    for session in (made, refresh(ask, made)):
        claims = jwt.decode(session["access_token"], options={"verify_signature": False})
        assert claims["amr"] == ["pwd", "otp"]
    assert with_code(ask, pending, recovery[3]).status_code == 401
    typed = recovery[4].upper().replace("-", " ")
    assert with_code(ask, pending, typed).ok
    listed = ask("GET", "/auth/factors", token=made["access_token"]).json()["data"]["factors"]
    assert [(one["name"], one["recovery_codes_left"]) for one in listed] == [("Phone", 8)]


def test_wrong_codes_slow_down_from_wherever_they_come_but_not_a_known_device(ask, anna, run):
    known = login(ask)
    _, _, recovery = enrolled(ask, known)
    pending, at_home = login(ask), login(ask, device_token=known["device_token"])
    for number in range(5):
        assert with_code(ask, pending, "000000", f"203.0.{number}.1").status_code == 401
    run("UPDATE throttles SET until = now() + interval '1 minute' WHERE failures = 5")
    assert with_code(ask, pending, recovery[0], AWAY).json()["error"]["code"] == "too_many_attempts"
    # The right password does not settle it.
    assert with_code(ask, login(ask, address=AWAY), recovery[0], AWAY).status_code == 429
    assert with_code(ask, at_home, recovery[0]).ok
    assert run("SELECT count(*) FROM throttles WHERE failures = 5")[0][0] == 1


def test_a_pending_login_ends_with_whatever_ends_sessions_and_opens_nothing_else(ask, anna, run):
    session = login(ask)
    _, _, recovery = enrolled(ask, session)
    pending = login(ask)
    for wrong in ("", "swp_", pending["pending_token"][:-2], session["device_token"], session["refresh_token"]):
        assert with_code(ask, {"pending_token": wrong}, recovery[0]).status_code == 401
    assert ask("GET", "/auth/me", token=pending["pending_token"]).status_code == 401
    assert refresh(ask, {"refresh_token": pending["pending_token"]}) == 401
    run("UPDATE users SET auth_epoch = auth_epoch + 1")
    assert with_code(ask, pending, recovery[0]).status_code == 401
    pending = login(ask)
    run("UPDATE users SET disabled_at = now()")
    assert with_code(ask, pending, recovery[0]).status_code == 401


def test_a_pending_login_waits_five_minutes_and_a_secret_opens_by_its_own_key_and_row(anna, run, users_database):
    database, key, clock = users_database.database, AuthKey(bytes(32)), [datetime.now(UTC)]

    def ours(key: AuthKey) -> Accounts:
        keys = SigningKeys(database, key, issuer="x")
        factors = Factors(database, key, clock=lambda: clock[0])
        return Accounts(database, Passwords(places=1), keys, key, factors, clock=lambda: clock[0])

    secret, factor_id = b"x" * 20, str(new_id())
    run(
        "INSERT INTO factors (id, user_id, name, secret, last_step, recovery, created_at, confirmed_at) "
        "VALUES (:id, :user, 'x', :secret, 0, '{}', now(), now())",
        id=factor_id, user=anna, secret=Box(key, "factors").seal(secret, factor_id),
    )  # fmt: skip

    def log_in(key: AuthKey = key, wait: float = 0.0) -> LoggedIn:
        accounts = ours(key)
        token = accounts.log_in(Login(email="anna@example.com", password=PASSWORD), Sender(HOME)).view.pending_token
        clock[0] += timedelta(seconds=wait)
        code = one_time_code(secret, int(clock[0].timestamp()) // 30)
        return accounts.log_in_by_code(token or "", code, Sender(HOME))

    for wait, other in ((302, key), (0, AuthKey(bytes(31) + b"x"))):
        with pytest.raises(InvalidCredential):
            log_in(other, wait)
    run("UPDATE factors SET id = gen_random_uuid()")
    with pytest.raises(InvalidCredential):
        log_in()
    run("UPDATE factors SET id = :id", id=factor_id)
    assert log_in(wait=298).view.session_id


def test_a_factor_is_begun_and_removed_after_a_fresh_login_alone_and_by_an_administrator(ask, anna, run):
    session = login(ask)
    _, _, recovery = enrolled(ask, session)
    session = with_code(ask, login(ask), recovery[0]).json()["data"]
    token = session["access_token"]
    (factor,) = ask("GET", "/auth/factors", token=token).json()["data"]["factors"]
    path = f"/auth/factors/{factor['id']}"
    add(run, "boris", roles="admin")
    boss = login(ask, "boris")["access_token"]
    assert ask("DELETE", path, token=boss).json()["error"]["code"] == "factor_not_found"
    run("UPDATE sessions SET created_at = now() - interval '6 minutes'")
    assert ask("DELETE", path, token=token).json()["error"]["code"] == "login_not_fresh"
    assert ask("POST", "/auth/factors", {"name": "x"}, token=token).json()["error"]["code"] == "login_not_fresh"
    run("UPDATE sessions SET created_at = now()")
    for number in range(4):
        run(
            "INSERT INTO factors (id, user_id, name, secret, last_step, recovery, created_at, confirmed_at) "
            "VALUES (gen_random_uuid(), :user, 'x', 'x', 0, '{}', now(), now())",
            user=anna,
        )
        status = ask("POST", "/auth/factors", {"name": "x"}, token=token).status_code
        assert status == (201 if number < 3 else 409)
    assert ask("DELETE", path, token=token).json()["data"] == {**factor, "last_used_at": factor["last_used_at"]}
    assert ask("DELETE", f"/users/{anna}/factors", token=token).status_code == 403
    assert ask("DELETE", f"/users/{anna}/factors", token=boss).json()["data"] == {"factors": 4}
    assert login(ask)["session_id"]
    assert [action for action in actions(run) if action.startswith("factor")] == [
        "factor.confirmed", "factor.removed", "factors.removed"
    ]  # fmt: skip


def test_whoever_has_a_password_that_an_administrator_set_can_do_nothing_but_change_it(ask, anna, run):
    add(run, "boris", roles="admin")
    boss = login(ask, "boris")["access_token"]
    body = {"email": "clara@example.com", "name": "Clara", "password": PASSWORD}
    clara = ask("POST", "/users", body, token=boss).json()["data"]["id"]
    session = refresh(ask, login(ask, "clara"))
    token = session["access_token"]
    for method, path in (("GET", "/users"), ("GET", f"/users/{clara}"), ("POST", "/auth/keys"), ("GET", "/auth/keys")):
        refused = ask(method, path, {"name": "x", "scopes": ["read"]} if method == "POST" else None, token=token)
        assert refused.json()["error"]["code"] == "password_change_required"
    # A kept answer is for this session as it is, and not for what becomes of it.
    kept = {"Cache-Control": "max-age=30"}
    for _ in range(2):
        me = ask("GET", "/auth/me", token=token, **kept)
        assert me.json()["data"]["must_change_password"] is True
    assert "Age" in me.headers
    assert ask("PUT", "/auth/password", {"current": PASSWORD, "new": OTHER}, token=token).ok
    token = refresh(ask, session)["access_token"]
    assert ask("GET", f"/users/{clara}", token=token).ok
    assert ask("GET", "/auth/me", token=token, **kept).json()["data"]["must_change_password"] is False
