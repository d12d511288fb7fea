"""One credential counts, becomes an access token, and ends when it is told; where nobody logs in, one may act as
somebody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from servicekit.identity.api_keys import new_api_key
from servicekit.identity.enforcement import KEYS_PATH
from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import AUDIENCE, TokenIssuer
from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer, read_answer
from tests.support.upstream import Pause, ScriptedUpstream, answer, bad, good
from tests.support.waiting import eventually

KEY = SigningKey.generate()
KEY_SET = json.dumps({"keys": [KEY.public()]}).encode()
ISSUER, SECRET = "https://sites.example", "what only the gateway knows"
ME = UUID(int=1, version=4)
COOKIE = "c" * 43
EXCHANGE, REVOCATIONS, AUDIT = "/internal/exchange", "/internal/revocations", "/internal/audit"
_numbers = iter(range(100, 10_000))


def token(role: str = "user", *, session: UUID | None = None, key: SigningKey = KEY, epoch: int = 5, **more) -> str:
    issuer = TokenIssuer(key, issuer=ISSUER, audience=AUDIENCE)
    session = session or UUID(int=next(_numbers), version=4)
    return issuer.issue(ME, [role], session_id=session, epoch=epoch, **more)


def bearer(text: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {text}"


def prepare(users: ScriptedUpstream) -> None:
    users.reset()
    users.script_path(KEYS_PATH, answer(200, KEY_SET))
    revoke(users)
    users.script_path(EXCHANGE, bad(401, "invalid_credential"))


def revoke(upstream: ScriptedUpstream, **what: object) -> None:
    body = {"sessions": [], "keys": [], "users": {}, **what}
    upstream.script_path(REVOCATIONS, good(body))


def exchanges(users: ScriptedUpstream, text: str, *before: Pause) -> None:
    users.script_path(EXCHANGE, *before, good({"access_token": text, "expires_in": 300}))


def start(folder: Path, **settings: str) -> GatewayProcess:
    login = {"AUTH": "required", "AUTH_ISSUER": ISSUER, "AUTH_KEYS_FILE": str(folder / "keys"), "GATEWAY_TOKEN": SECRET}
    return GatewayProcess(folder / "log", **login, **settings)


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("identity")
    # Known from before: users publishes nothing until the tests say what.
    (folder / "keys").write_bytes(KEY_SET)
    process = start(folder, CORS_ORIGINS="https://app.example.com")
    yield process
    assert process.client.get("/tasks", bearer("x")).status == 401
    process.stop()
    told = json.loads(process.upstreams["users"].requests(AUDIT)[-1].body)["refusals"]
    assert {(one["address"], one["reason"]) for one in told} >= {("127.0.0.1", "invalid_token")}
    log = (folder / "log").read_text()
    planted = (SECRET, COOKIE, "swk_", token().split(".")[0])
    assert not [secret for secret in planted if secret in log]


@pytest.fixture
def gateway(_process: GatewayProcess) -> GatewayProcess:
    for upstream in _process.upstreams.values():
        upstream.reset()
    prepare(_process.upstreams["users"])
    one = token()
    eventually(lambda: _process.client.get("/tasks", bearer(one)).status == 200, what="it knows of the revocations")
    for upstream in _process.upstreams.values():
        upstream.seen.clear()
    return _process


def code(got: RawAnswer) -> tuple[int, str]:
    return got.status, got.code


def test_a_service_sees_one_access_token_and_no_other_credential(gateway: GatewayProcess, tasks: ScriptedUpstream):
    mine = token()
    others = (("Cookie", f"siteworks={COOKIE}; theme=dark"),)
    for _ in range(2):  # the second time with fields that are remembered
        assert gateway.client.get("/tasks", bearer(mine), *others).status == 200
    for seen in tasks.requests("/tasks"):
        assert seen.values("Authorization") == [f"Bearer {mine}"]
        assert seen.values("Cookie") == []


def test_whoever_may_not_is_refused_before_any_service_is_asked(gateway: GatewayProcess):
    client, key, user = gateway.client, token("admin", scopes=["orders"]), token("user")
    assert client.get("/tasks", bearer(user)).status == 200  # what is remembered of it grants nothing else
    for method, path, fields, expected in (
        ("GET", "/tasks", (), (401, "unauthorized")),
        ("HEAD", "/tasks", (), 401),
        ("POST", "/users", (bearer(user),), (403, "forbidden")),
        ("POST", "/orders", (bearer(token("auditor")),), (403, "forbidden")),
        ("GET", "/api/v1/tasks/rejected", (bearer(user),), (403, "forbidden")),
        ("GET", "/tasks", (bearer(key),), (403, "forbidden")),
        ("GET", "/tasks", (bearer(token(must_change_password=True)),), (403, "password_change_required")),
        ("GET", "/metrics", (), (401, "unauthorized")),
        ("GET", "/status", (bearer(user),), (403, "forbidden")),
        ("GET", "/tasks", (bearer(user), bearer(user)), (400, "bad_request")),
        ("GET", "/tasks", (bearer(user), ("X-Act-As", str(ME))), (400, "invalid_input")),
        ("GET", "/status", (bearer(token("admin")), ("X-Act-As", str(ME))), (400, "invalid_input")),
        ("POST", "/auth/login", (("X-Act-As", str(ME)),), (400, "invalid_input")),
        ("GET", "/tasks", (("Authorization", "Basic YWRtaW46YWRtaW4="),), (401, "invalid_token")),
        ("GET", "/tasks", (bearer(token(key=SigningKey.generate())),), (401, "invalid_token")),
        # Decided on the path that would be forwarded.
        ("GET", "/health/../tasks", (), (400, "invalid_path")),
        ("GET", "/health/%2e%2e/tasks", (), (400, "invalid_path")),
        ("GET", "/health;x/tasks", (), (404, "not_found")),
        ("GET", "//tasks", (), (404, "not_found")),
    ):
        got = client.request(method, path, fields=fields)
        assert (got.status if method == "HEAD" else code(got)) == expected, (method, path)
    for page in ("/metrics", "/status"):
        assert client.get(page, bearer(token("auditor"))).status == 200
    assert all(client.get(page).status == 200 for page in ("/", "/health", "/livez", "/openapi.json"))
    asked = [seen.target for one in gateway.upstreams.values() for seen in one.requests()]
    asked.remove("/tasks")
    assert {*asked} <= {REVOCATIONS, KEYS_PATH, AUDIT}


def test_the_key_set_is_passed_as_it_is(gateway: GatewayProcess, users: ScriptedUpstream):
    users.script_path(KEYS_PATH, answer(200, KEY_SET, media_type="application/jwk-set+json"))
    got = gateway.client.get(KEYS_PATH)
    assert (got.status, got.value("Content-Type"), got.body) == (200, "application/jwk-set+json", KEY_SET)


def test_health_shows_whoever_may_not_read_the_system_the_states_alone(
    gateway: GatewayProcess, users: ScriptedUpstream
):
    def health(*fields: tuple[str, str]) -> dict[str, dict]:
        answer = gateway.client.get("/health", *fields)
        assert answer.status == 200
        return answer.json["data"]["upstreams"]

    few = token("admin", scopes=["orders"])
    for fields in ((), (bearer("x"),), (bearer(token("user")),), (bearer(few),), (("Cookie", "siteworks=short"),)):
        assert [{*shown} for shown in health(*fields).values()] == [{"state"}] * len(health()), fields
    exchanges(users, token("auditor"))
    for fields in ((bearer(token("admin")),), (bearer(token("auditor")),), (("Cookie", f"siteworks={'e' * 43}"),)):
        assert {"failure_rate", "last_probe"} <= health(*fields)["users"].keys(), fields


def test_a_key_is_exchanged_once_for_many_requests_at_once(
    gateway: GatewayProcess, users: ScriptedUpstream, tasks: ScriptedUpstream
):
    key, made = new_api_key(), token(scopes=["read"])
    exchanges(users, made, Pause(0.1))
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda _: gateway.client.get("/tasks", bearer(key)).status, range(64)))
    assert {*got} == {200}
    (asked,) = users.requests(EXCHANGE)
    assert asked.values("Authorization") == [f"Bearer {SECRET}"]
    assert json.loads(asked.body) == {"kind": "key", "credential": key}
    assert {seen.value("Authorization") for seen in tasks.requests("/tasks")} == {f"Bearer {made}"}
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert code(gateway.client.get("/tasks", bearer(wrong))) == (401, "invalid_token")
    assert len(users.requests(EXCHANGE)) == 1


def test_a_cookie_is_exchanged_unless_a_token_is_shown_and_a_broken_one_is_never_nobody(
    gateway: GatewayProcess, users: ScriptedUpstream, tasks: ScriptedUpstream
):
    exchanges(users, token())
    client = gateway.client
    for cookie in ("siteworks=", "siteworks=short", f"siteworks={COOKIE}; siteworks={COOKIE}", f"siteworks={COOKIE}é"):
        assert code(client.get("/tasks", ("Cookie", cookie))) == (401, "invalid_token"), cookie
    assert code(client.get("/tasks", ("Cookie", "theme=dark"))) == (401, "unauthorized")
    assert code(client.get("/tasks", bearer("x"), ("Cookie", f"siteworks={COOKIE}"))) == (401, "invalid_token")
    assert users.requests(EXCHANGE) == []
    for _ in range(2):
        assert client.get("/tasks", ("Cookie", f"theme=dark; siteworks={COOKIE}")).status == 200
    assert [json.loads(one.body) for one in users.requests(EXCHANGE)] == [{"kind": "cookie", "credential": COOKIE}]
    assert tasks.requests("/tasks")[-1].values("Cookie") == []


def test_only_a_page_of_ours_changes_something_by_a_cookie(gateway: GatewayProcess, users: ScriptedUpstream):
    exchanges(users, token())
    cookie = ("Cookie", f"siteworks={'d' * 43}")
    for fields, status in (
        ((), 403),
        ((("Content-Type", "text/plain"),), 403),
        ((("Origin", "http://localhost"),), 200),
        ((("Sec-Fetch-Site", "same-origin"),), 200),
        ((("Sec-Fetch-Site", "none"),), 403),
        ((("Origin", "https://app.example.com"),), 403),
        ((("Origin", "https://evil.example"),), 403),
    ):
        assert gateway.client.request("POST", "/tasks", b"{}", fields=(cookie, *fields)).status == status, fields


def test_what_was_revoked_is_refused_on_every_path_and_a_stream_ends(gateway: GatewayProcess, users: ScriptedUpstream):
    client, session = gateway.client, UUID(int=7, version=4)
    events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    ended = threading.Event()
    gateway.upstreams["events"].script(events, b"6\r\n: hi\n\n\r\n", Pause(20))
    key = new_api_key()
    exchanges(users, token(session=UUID(int=8, version=4), scopes=["read"]))
    of_session, of_epoch = token(session=session), token(epoch=4)
    for text in (of_session, of_epoch, key):
        assert client.get("/tasks", bearer(text)).status == 200

    def watch() -> None:
        with client.connect() as connection:
            lines = f"GET /tasks/1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {of_session}\r\n\r\n"
            connection.sendall(lines.encode())
            assert read_answer(connection).body.startswith(b": hi")
            ended.set()

    watching = threading.Thread(target=watch)
    watching.start()
    gateway.upstreams["events"].wait_for(1)
    users.script_path(EXCHANGE, bad(401, "invalid_credential"))
    revoke(users, sessions=[str(session)], keys=[str(UUID(int=8, version=4))], users={str(ME): 5})
    for text in (of_session, of_epoch, key):
        eventually(lambda text=text: client.get("/tasks", bearer(text)).status == 401, timeout=5, what="it is refused")
        assert code(client.get("/tasks", bearer(text))) == (401, "invalid_token")
    assert client.get("/tasks", bearer(token(epoch=5))).status == 200
    assert ended.wait(5)
    watching.join()


def test_users_away_and_the_gateway_restarted_nobody_revoked_comes_back_and_the_others_stay(tmp_path: Path):
    (tmp_path / "keys").write_bytes(KEY_SET)
    gone, mine, key = UUID(int=9, version=4), token(), new_api_key()
    gateway = start(tmp_path)
    try:
        users = gateway.upstreams["users"]
        assert code(gateway.client.get("/tasks", bearer(mine))) == (503, "identity_unavailable")
        waiting = gateway.client.get("/readyz")
        assert (*code(waiting), waiting.json["error"]["details"][0]["field"]) == (503, "not_ready", "identity")
        prepare(users)
        revoke(users, sessions=[str(gone)])
        exchanges(users, token(scopes=["read"]))
        eventually(lambda: gateway.client.get("/tasks", bearer(mine)).status == 200, what="it knows of the revocations")
        assert gateway.client.get("/tasks", bearer(key)).status == 200
        assert code(gateway.client.get("/tasks", bearer(token(session=gone)))) == (401, "invalid_token")
        users.stop()
        assert gateway.client.get("/tasks", bearer(key)).status == 200
        assert code(gateway.client.get("/tasks", bearer(new_api_key()))) == (503, "identity_unavailable")
    finally:
        gateway.stop()
    gateway = start(tmp_path)
    try:
        gateway.upstreams["users"].stop()
        assert gateway.client.get("/readyz").status == 200
        assert gateway.client.get("/tasks", bearer(mine)).status == 200
        assert code(gateway.client.get("/tasks", bearer(token(session=gone)))) == (401, "invalid_token")
        shown = gateway.client.get("/metrics", bearer(token("auditor"))).body.decode()
        (age,) = [line for line in shown.splitlines() if line.startswith("siteworks_gateway_revocations_age_seconds ")]
        assert 0 <= float(age.split()[1]) < 60
    finally:
        gateway.stop()
    assert time.time() - (tmp_path / "keys.revocations").stat().st_mtime < 60


def test_forged_tokens_are_soon_refused_unseen_and_known_ones_go_on(gateway: GatewayProcess):
    client, mine = gateway.client, token()
    assert client.get("/tasks", bearer(mine)).status == 200

    def forged(number: int) -> str:
        head, claims, _ = token(session=UUID(int=number, version=4)).split(".")
        return f"{head}.{claims}.{'A' * 86}"

    def try_one(number: int) -> RawAnswer:
        # Whatever address they claim to come from.
        return client.get("/tasks", bearer(forged(number)), ("X-Forwarded-For", f"192.0.2.{number}"))

    began = time.monotonic()
    assert code(try_one(0)) == (401, "invalid_token")
    with ThreadPoolExecutor(40) as pool:
        trying = [pool.submit(try_one, number) for number in range(1, 40)]
        assert client.get("/tasks", bearer(mine)).status == 200
        refused = [got for got in (one.result() for one in trying) if got.status != 401]
    assert {code(got) for got in refused} == {(429, "too_many_credentials")}
    assert all(got.value("Retry-After") for got in refused)
    assert time.monotonic() - began >= 1, "answers to a flood are slow on purpose"
    eventually(lambda: client.get("/tasks", bearer(token())).status == 200, timeout=15, what="it forgives")


def test_where_nobody_logs_in_who_acts_as_somebody_gets_what_that_person_would(tmp_path: Path):
    gateway = GatewayProcess(tmp_path / "log", AUTH_ISSUER=ISSUER, GATEWAY_TOKEN=SECRET)
    client, users, tasks = gateway.client, gateway.upstreams["users"], gateway.upstreams["tasks"]
    act_as = ("X-Act-As", str(ME))

    def asked() -> list[object]:
        return [json.loads(one.body) for one in users.requests(EXCHANGE)]

    try:
        # Whatever a client shows: nobody logs in.
        for shown in (bearer("x"), ("Authorization", "Basic x")):
            assert client.get("/tasks", shown).status == 200
            assert tasks.requests()[-1].values("Authorization") == []
        assert asked() == []

        users.script_path(KEYS_PATH, answer(200, KEY_SET))
        made = token()
        exchanges(users, made, Pause(0.1))
        with ThreadPoolExecutor(8) as pool:
            got = pool.map(lambda _: client.get("/tasks", act_as, bearer(token("admin"))).status, range(8))
        assert {*got} == {200}
        assert asked() == [{"kind": "act_as", "credential": str(ME)}]
        for seen in tasks.requests()[2:]:
            assert (seen.values("Authorization"), seen.values("X-Act-As")) == ([f"Bearer {made}"], [])
        assert client.get("/health", act_as).json["data"]["upstreams"]["users"] == {"state": "closed"}
        for method, path in (("POST", "/users"), ("GET", "/status"), ("GET", "/metrics"), ("POST", "/tasks/cancel")):
            assert code(client.request(method, path, fields=(act_as,))) == (403, "forbidden"), path
        force = {"method": "POST", "target": "/admin/circuits/users", "body": b'{"state": "auto"}'}
        json_type = ("Content-Type", "application/json")
        assert code(client.request(**force, fields=(act_as, json_type))) == (403, "forbidden")
        assert code(client.request(**force, fields=(bearer("x"), json_type))) == (401, "unauthorized")
        assert gateway.force("users", "auto").status == 200

        # Soon seen as who they are now.
        exchanges(users, token("admin"))
        eventually(lambda: client.get("/status", act_as).status == 200, timeout=5, what="the other role is known")
        assert client.request(**force, fields=(act_as, json_type)).status == 200
        assert "calls" in client.get("/health", act_as).json["data"]["upstreams"]["users"]

        def forced_by() -> list[str | None]:
            told = [json.loads(one.body).get("circuits", []) for one in users.requests(AUDIT)]
            return [one["actor"] for several in told for one in several]

        eventually(lambda: forced_by() == [None, str(ME)], timeout=20, what="the audit is told who set the circuit")

        # No page of others does it through somebody's browser.
        wanted = (("Origin", "https://evil.example"), ("Access-Control-Request-Headers", "x-act-as"))
        assert code(client.get("/tasks", act_as, *wanted)) == (403, "foreign_page")
        assert client.request("OPTIONS", "/tasks", fields=wanted).values("Access-Control-Allow-Headers") == []

        users.script_path(EXCHANGE, bad(401, "invalid_credential"))
        for wrong in ("me", "", f"{{{ME}}}", f"{ME}, {ME}", str(UUID(int=5, version=4))):
            for path in ("/tasks", "/health"):
                refused = client.get(path, ("X-Act-As", wrong))
                assert (*code(refused), refused.json["error"]["details"][0]["field"]) == (
                    400, "invalid_input", "X-Act-As",
                ), wrong  # fmt: skip
        assert code(client.get("/tasks", act_as, act_as)) == (400, "bad_request")
        users.script_path(EXCHANGE, bad(403, "forbidden"))
        other = ("X-Act-As", str(UUID(int=6, version=4)))
        assert code(client.get("/tasks", other)) == (403, "forbidden")
        users.stop()
        assert code(client.get("/tasks", other)) == (503, "identity_unavailable")
        assert client.get("/tasks").status == 200
    finally:
        gateway.stop()
