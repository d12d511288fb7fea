"""Signing in at a provider: the service's routes on a real database, and a provider that is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import requests
from sqlalchemy import text

from service_users.accounts.sign_in import own_page
from service_users.app import create_app
from service_users.settings import UsersSettings
from servicekit.process.ids import new_id
from tests.support.identity import KEY, SESSION, issue, verifier_of
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, REALM
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase

HERE = "https://sites.example.com"
CALLBACK = f"{HERE}/auth/oidc/callback"
HOME = "198.51.100.7"


class Provider:
    """The process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.oidc_provider"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.issuer = self.origin + REALM

    def told(self, **what: object) -> list[str]:
        """Tell it what to do from now on; returns which paths it was asked for since the last time."""
        return requests.post(f"{self.origin}/told", json=what, timeout=10).json()["asked"]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    _provider.told()
    return _provider


@pytest.fixture
def run(users_database: ServiceDatabase) -> Iterator[Callable[..., list[Any]]]:
    """Give what runs a statement in the database; afterwards nothing is left there."""

    def run(statement: str, **values: object) -> list[Any]:
        with users_database.database.transaction() as transaction:
            rows = transaction.execute(text(statement), values)
            return [tuple(row) for row in rows] if rows.returns_rows else []

    yield run
    for table in ("revocations", "throttles", "sign_ins"):
        run(f"DELETE FROM {table}")
    users_database.administer("TRUNCATE audit")


@pytest.fixture
def anna(run) -> UUID:
    """A user with a session that has just begun."""
    made = new_id()
    run(
        "INSERT INTO users (id, email, email_key, name, name_key, roles, password_hash, created_at, updated_at) "
        "VALUES (:id, 'anna@example.com', 'anna@example.com', 'anna', 'anna', '{user}', 'x', now(), now())",
        id=made,
    )
    run(
        "INSERT INTO sessions (id, user_id, counter, methods, address, agent, created_at, refreshed_at, expires_at) "
        "VALUES (:id, :user, 0, '{pwd}', '', '', now(), now(), now() + interval '1 hour')",
        id=SESSION, user=made,
    )  # fmt: skip
    return made


class Browser:
    """Somebody's browser, at the service and at the provider."""

    def __init__(self, client: Any, me: UUID | None = None) -> None:
        self._client = client
        self.me = me
        #: As the last answer to a start has set it.
        self.cookie = ""

    def ask(self, method: str, path: str, body: object = None, **fields: str) -> Any:
        fields = {"X-Forwarded-For": HOME, "X-Forwarded-Proto": "https", **fields}
        if self.me is not None:
            fields["Authorization"] = f"Bearer {issue(me=self.me)}"
        return self._client.open(path, method=method, json=body, headers=fields)

    def start(self, path: str = "/auth/oidc/start", **body: object) -> str:
        """Go to the provider; returns the address to which it sends the browser back."""
        answer = self.ask("POST", path, body)
        assert answer.status_code == 201, answer.text
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        back = requests.get(answer.json["data"]["address"], allow_redirects=False, timeout=10)
        assert back.headers["Location"].startswith(f"{CALLBACK}?")
        return back.headers["Location"].removeprefix(HERE)

    def come_back(self, address: str, *, cookie: str | None = None) -> Any:
        return self.ask("GET", address, Cookie=self.cookie if cookie is None else cookie)

    def sign_in(self, path: str = "/auth/oidc/start", **body: object) -> Any:
        return self.come_back(self.start(path, **body))


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["error"]["code"] if answer.status_code >= 400 else ""


@pytest.fixture
def make_browser(users_database: ServiceDatabase, provider: Provider, monkeypatch) -> Callable[..., Browser]:
    """Give what makes browsers that share a service, which has asked the provider for nothing yet."""
    monkeypatch.setattr("service_users.app.identify_with", lambda settings: verifier_of(KEY).identify)
    client = client_of(users_database, provider.issuer)
    return lambda me=None: Browser(client, me)


def client_of(database: ServiceDatabase, issuer: str) -> Any:
    settings = UsersSettings(
        users_database_url=database.url,
        auth="required",
        auth_key="A" * 43,
        public_url=HERE,
        oidc_issuer=issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Our directory",
    )
    # It would keep the cookies, which are what is tried here.
    return create_app(settings).test_client(use_cookies=False)


@pytest.fixture
def browser(make_browser) -> Browser:
    return make_browser()


def test_only_whoever_is_linked_logs_in_whatever_their_address(make_browser, provider, anna, run):
    stranger, hers = make_browser(), make_browser(anna)
    assert stranger.ask("GET", "/auth/oidc").json["data"] == {"name": "Our directory"}
    assert provider.told() == [], "nothing is asked of it before somebody signs in"
    # Its token names anna's address, and says that it was verified.
    assert code(stranger.sign_in()) == (403, "unknown_identity")
    linked = hers.sign_in("/auth/oidc/link", next="/console")
    assert (linked.status_code, linked.headers["Location"]) == (303, "/console")
    assert [one.partition("=")[0] for one in linked.headers.getlist("Set-Cookie")] == ["__Host-siteworks-sign-in"]
    answer = stranger.sign_in(next="/console?page=2#top")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console?page=2#top")
    names = [one.partition("=")[0] for one in answer.headers.getlist("Set-Cookie")]
    assert names == ["__Host-siteworks", "__Host-siteworks-device", "__Host-siteworks-sign-in"]
    assert run("SELECT user_id, methods, cookie_hash IS NULL FROM sessions WHERE id <> :id", id=SESSION) == [
        (anna, ["fed"], False)
    ]
    assert run("SELECT action, actor FROM audit ORDER BY id") == [("identity.linked", anna), ("session.began", anna)]
    assert provider.told() == [
        ".well-known/openid-configuration", "authorize", "token", "keys", *(["authorize", "token"] * 2)
    ]  # fmt: skip
    run("UPDATE users SET disabled_at = now()")
    assert code(stranger.sign_in()) == (403, "unknown_identity")
    assert run("SELECT count(*) FROM sign_ins") == [(0,)]


def test_an_identity_is_linked_after_a_fresh_login_alone_and_to_one_user(make_browser, provider, anna, run):
    hers = make_browser(anna)
    run("UPDATE sessions SET created_at = now() - interval '6 minutes'")
    assert code(hers.ask("POST", "/auth/oidc/link", {})) == (403, "login_not_fresh")
    run("UPDATE sessions SET created_at = now()")
    back = hers.start("/auth/oidc/link")
    run("UPDATE sessions SET id = gen_random_uuid()")
    assert code(hers.come_back(back)) == (401, "invalid_credential"), "she has logged out meanwhile"
    run("UPDATE sessions SET id = :id", id=SESSION)
    assert hers.sign_in("/auth/oidc/link").status_code == 303
    assert code(hers.sign_in("/auth/oidc/link")) == (409, "identity_taken")
    boris = new_id()
    run(
        "INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at) "
        "VALUES (:id, 'boris@example.com', 'boris@example.com', 'boris', 'boris', '{user}', now(), now())",
        id=boris,
    )
    (identity,) = hers.ask("GET", "/auth/identities").json["data"]["identities"]
    assert (identity["issuer"], identity["subject"]) == (provider.issuer, "anna@provider")
    run("UPDATE sessions SET user_id = :user", user=boris)
    his = make_browser(boris)
    assert code(his.sign_in("/auth/oidc/link")) == (409, "identity_taken")
    path = f"/auth/identities/{identity['id']}"
    assert code(his.ask("DELETE", path)) == (404, "identity_not_found")
    run("UPDATE sessions SET user_id = :user", user=anna)
    assert hers.ask("DELETE", path).json["data"] == identity
    assert code(make_browser().sign_in()) == (403, "unknown_identity")


def test_an_invitation_links_an_identity_once_and_leaves_no_password(make_browser, anna, run):
    admin = make_browser()
    fields = {"Authorization": f"Bearer {issue(me=new_id(), roles=['admin'])}"}
    link = admin.ask("POST", f"/users/{anna}/link", {"purpose": "invitation"}, **fields).json["data"]["token"]
    stranger = make_browser()
    for wrong in (link[:-1], "swl_"):
        assert code(stranger.ask("POST", "/auth/oidc/start", {"invitation": wrong})) == (400, "invalid_input")
    back, other = stranger.start(invitation=link), make_browser()
    other_back = other.start(invitation=link)
    ((stored,),) = run("SELECT string_agg(sign_ins::text, '') FROM sign_ins")
    assert link not in stored
    assert stranger.come_back(back).status_code == 303
    assert code(other.come_back(other_back)) == (400, "invalid_input")
    assert run("SELECT password_hash, auth_epoch FROM users") == [(None, 1)]
    assert run("SELECT count(*) FROM sessions") == [(1,)]
    assert make_browser().sign_in().status_code == 303


def test_an_answer_for_another_browser_or_used_twice_is_refused(browser, make_browser, provider, anna, run):
    make_browser(anna).sign_in("/auth/oidc/link")
    back, mine = browser.start(), browser.cookie
    victim = make_browser()
    theirs = victim.start()
    for cookie in ("", "__Host-siteworks-sign-in=", mine.replace("__Host-", ""), mine[:-1], victim.cookie):
        assert code(browser.come_back(back, cookie=cookie)) == (400, "invalid_input"), cookie
    state = parse_qs(urlsplit(back).query)["state"][0]
    for wrong in (back.replace(state, state[:-2]), back.replace(state, ""), back.replace(f"state={state}", "x=y")):
        assert code(browser.come_back(wrong)) == (400, "invalid_input")
    assert code(victim.come_back(theirs.replace("&iss=http", "&iss=https"))) == (400, "invalid_input")
    run("UPDATE sign_ins SET expires_at = now()")
    assert code(browser.come_back(back)) == (400, "invalid_input")
    assert provider.told().count("token") == 1, "that of the link"
    back = browser.start()
    assert browser.come_back(back).status_code == 303
    assert code(browser.come_back(back)) == (400, "invalid_input")
    for accept in ("*/*", "text/html,application/xhtml+xml;q=0.9"):
        refused = browser.start().replace("?code=", "?error=access_denied&x=")
        answer = browser.ask("GET", refused, Cookie=browser.cookie, Accept=accept)
        if accept == "*/*":
            assert code(answer) == (403, "sign_in_refused")
        else:
            assert (answer.status_code, answer.headers["Location"]) == (
                303,
                "../../console#/account?failed=sign_in_refused",
            )
            assert "Max-Age=0" in answer.headers["Set-Cookie"]


def test_codes_that_are_worth_nothing_slow_down_whoever_sends_them(browser, anna, run):
    for _ in range(5):
        back = browser.start()
        right = parse_qs(urlsplit(back).query)["code"][0]
        assert code(browser.come_back(back.replace(right, "guessed"))) == (403, "sign_in_refused")
    run("UPDATE throttles SET until = now() + interval '1 minute' WHERE failures = 5")
    assert code(browser.sign_in()) == (429, "too_many_attempts")


OF_TOKENS: list[dict[str, Any]] = [
    {"claims": {"aud": "others"}},
    {"claims": {"aud": [CLIENT_ID, "others"]}},
    {"claims": {"azp": "others"}},
    {"claims": {"iss": "https://others.example.com"}},
    {"claims": {"iss": "http://127.0.0.1"}},
    {"claims": {"nonce": "x"}},
    {"claims": {"nonce": None}},
    {"claims": {"sub": ""}},
    {"claims": {"sub": "x" * 256}},
    {"claims": {"sub": 5}},
    {"claims": {"exp": {"now": -31}}},
    {"claims": {"exp": "2099"}},
    {"claims": {"iat": {"now": 40}}},
    {"claims": {"nbf": {"now": 40}}},
    {"claims": {"more": "x" * 20_000}},
    {"alg": "none"},
    {"alg": "HS256"},
    {"alg": "other key"},
    {"header": {"kid": "unknown"}},
    {"header": {"typ": "at+jwt"}},
    {"header": {"crit": ["exp"]}},
    {"header": {"kid": "unknown", "jku": "http://127.0.0.1:1/"}},
    {"answers": {"token": [200, "{}"]}},
    {"answers": {"token": [200, "[" * 100]}},
    {"answers": {"token": [200, "x"]}},
    {"answers": {"token": [302, ""]}},
    {"answers": {"token": [401, '{"error": "invalid_client"}']}},
]
OF_ITSELF: list[dict[str, Any]] = [
    {"answers": {".well-known/openid-configuration": [200, "x"]}},
    {"answers": {".well-known/openid-configuration": [404, "{}"]}},
    {"document": {"issuer": "http://127.0.0.1"}},
    {"document": {"token_endpoint": "http://192.0.2.1/token"}},
    {"document": {"jwks_uri": "file:///etc/passwd"}},
    {"document": {"jwks_uri": None}},
]


def test_whatever_the_provider_does_wrong_nobody_is_let_in(browser, provider, anna, run):
    run(
        "INSERT INTO identities (id, user_id, issuer, subject, created_at) "
        "VALUES (gen_random_uuid(), :user, :issuer, 'anna@provider', now())",
        user=anna, issuer=provider.issuer,
    )  # fmt: skip
    refused = (503, "provider_unavailable")
    for told in OF_ITSELF:
        provider.told(**told)
        assert code(browser.ask("POST", "/auth/oidc/start", {})) == refused, told
    provider.told()
    for told in ({"answers": {"keys": [200, '{"keys": []}']}}, *OF_TOKENS):
        provider.told()
        back = browser.start()
        provider.told(**told)
        assert code(browser.come_back(back)) == refused, told
    assert run("SELECT count(*) FROM sessions") == [(1,)]
    provider.told()
    assert browser.sign_in().status_code == 303
    assert run("SELECT count(*) FROM throttles") == [(0,)], "nobody but the provider is to blame"


def test_another_key_is_asked_for_once_in_a_while_and_the_known_ones_outlast_its_absence(
    make_browser, provider, anna, monkeypatch
):
    browser = make_browser()
    make_browser(anna).sign_in("/auth/oidc/link")
    provider.told(rotate=True)
    for _ in range(3):
        assert code(browser.sign_in()) == (503, "provider_unavailable")
    assert "keys" not in provider.told()
    monkeypatch.setattr("service_users.accounts.provider._COOLDOWN", 0.0)
    assert browser.sign_in().status_code == 303
    # Old, and not to be had anew: what is known goes on.
    monkeypatch.setattr("service_users.accounts.provider._FRESH", 0.0)
    away = {".well-known/openid-configuration": [404, ""], "keys": [404, ""]}
    provider.told(answers=away)
    assert browser.sign_in().status_code == 303


def test_a_provider_that_is_slow_or_away_takes_few_threads_and_no_time_from_others(
    make_browser, provider, anna, users_database
):
    nowhere = Browser(client_of(users_database, f"http://127.0.0.1:{free_port()}/"))
    assert code(nowhere.ask("POST", "/auth/oidc/start", {})) == (503, "provider_unavailable")
    assert nowhere.ask("GET", "/auth/oidc").json["data"] == {"name": "Our directory"}
    browser = make_browser()
    make_browser(anna).sign_in("/auth/oidc/link")
    backs = [(one, one.start()) for one in (make_browser(), make_browser(), make_browser())]
    provider.told(slow={"token": 2})
    answers: list[tuple[int, str]] = []

    def come_back(one: Browser, back: str) -> None:
        answers.append(code(one.ask("GET", back, Cookie=one.cookie, **{"X-Request-Timeout-Ms": "1500"})))

    waiting = [threading.Thread(target=come_back, args=pair) for pair in backs]
    for one in waiting:
        one.start()
    for one in waiting:
        one.join(10)
    assert sorted(answers) == [(503, "provider_unavailable"), (504, "deadline_exceeded"), (504, "deadline_exceeded")]
    provider.told()
    assert browser.sign_in().status_code == 303


@pytest.mark.parametrize(
    ("text", "page"),
    [
        *((own, own) for own in ("/", "/console", "/console/", "/a/b-c.d?x=1&y=/z#top", "/users/018f?next=%2F%2Fx")),
        *(
            (foreign, "/")
            for foreign in (
                None, "", "x", "//evil.example", "/\\evil.example", "/%09/evil.example", "/\t/evil.example",
                "\\\\evil.example", "https://evil.example", "/a//b", "/%5cevil.example", "/..//evil.example",
                " /x", "/x\n", "/x y", "javascript:alert(1)", "/" + "x" * 1000, "/x?\\", "/ü",
            )
        ),
    ],
)  # fmt: skip
def test_the_next_page_is_one_of_ours(text, page):
    assert own_page(text) == page


def test_without_a_provider_or_without_logins_nobody_signs_in(users_database):
    for auth, expected in (("required", "no_provider"), ("off", "auth_is_off")):
        settings = UsersSettings(users_database_url=users_database.url, auth=auth, auth_key="A" * 43)
        browser = Browser(create_app(settings).test_client())
        assert browser.ask("GET", "/auth/oidc").json["data"] == {"name": None}
        assert code(browser.ask("POST", "/auth/oidc/start", {})) == (409, expected)
        assert code(browser.ask("GET", "/auth/oidc/callback?state=x&code=x")) == (409, expected)
