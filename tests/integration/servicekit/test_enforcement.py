"""Whoever calls shows an access token, at every port where people and programs are served."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import requests

from servicekit.identity.enforcement import KEYS_PATH
from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import AUDIENCE, TokenIssuer
from tests.support.programs import SERVERS, Program
from tests.support.upstream import ScriptedUpstream, answer, good
from tests.support.waiting import eventually

KEY = SigningKey.generate()
KEY_SET = json.dumps({"keys": [KEY.public()]}).encode()
ISSUER = "https://sites.example"
#: An operation of each: the databases are away, so whoever is admitted gets a 503, and whoever may not is told before.
OPERATIONS = {
    "gateway": ("GET", "/status"),
    "users": ("DELETE", f"/users/{UUID(int=0)}"),
    "orders": ("GET", "/orders"),
    "tasks": ("GET", "/tasks/rejected"),
    "events": ("GET", f"/tasks/{UUID(int=0)}/events"),
    "sites": ("GET", "/sites"),
}
ADMITTED = {"gateway": 200}


@pytest.fixture(scope="module")
def keys() -> Iterator[ScriptedUpstream]:
    """The users service, as far as it publishes keys."""
    with ScriptedUpstream() as users:
        users.script_path(KEYS_PATH, answer(200, KEY_SET))
        users.script_path("/internal/revocations", good({"sessions": [], "keys": [], "users": {}}))
        yield users


def start(name: str, folder: Path, keys: ScriptedUpstream) -> Program:
    return Program(
        folder,
        name,
        "AUTH=required",
        f"AUTH_KEY={'A' * 43}",
        f"AUTH_ISSUER={ISSUER}",
        f"USERS_URL={keys.url}",
        "AUTH_KEYS_FILE=keys",
        "GATEWAY_TOKEN=for the gateway of these tests",
    )


@pytest.fixture(scope="module", params=SERVERS)
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, keys: ScriptedUpstream
) -> Iterator[Program]:
    started = start(request.param, tmp_path_factory.mktemp(request.param), keys)
    started.name = request.param
    eventually((started.folder / "keys").is_file, timeout=20, what="it has the keys")
    yield started
    started.stop()


def token(*roles: str, key: SigningKey = KEY, ago: float = 0, scopes: list[str] | None = None) -> str:
    made = TokenIssuer(key, issuer=ISSUER, audience=AUDIENCE, now=lambda: time.time() - ago)
    return made.issue(UUID(int=1, version=4), roles, session_id=UUID(int=2, version=4), epoch=0, scopes=scopes)


def ask(program: Program, method: str, path: str, *authorization: str) -> tuple[int, str | None, str | None]:
    """The status, the code of an error, and the challenge."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=10)
    try:
        connection.putrequest(method, path)
        for value in authorization:
            connection.putheader("Authorization", value)
        connection.endheaders()
        got = connection.getresponse()
        body = got.read()
        code = json.loads(body).get("error", {}).get("code") if body.startswith(b'{"success"') else None
        return got.status, code, got.headers["WWW-Authenticate"]
    finally:
        connection.close()


def test_every_port_admits_whoever_shows_a_good_token_and_nobody_else(program: Program) -> None:
    operation = OPERATIONS[program.name]
    anonymous = (401, "unauthorized", "Bearer")
    invalid = (401, "invalid_token", 'Bearer error="invalid_token"')
    good = f"Bearer {token('admin')}"

    assert ask(program, *operation, good)[0] == ADMITTED.get(program.name, 503)
    assert ask(program, *operation) == anonymous
    for bad in (
        [f"{good}x"],
        [f"{good}="],
        [good[:-1]],
        [good.removeprefix("Bearer ")],
        ["Basic YWRtaW46YWRtaW4="],
        ["Bearer"],
        ["Bearer for these tests only"],
        [f"Bearer {token('admin', ago=3600)}"],
        [f"Bearer {token('admin', key=SigningKey.generate())}"],
    ):
        assert ask(program, *operation, *bad) == invalid
    for second in (good, "Bearer x"):
        assert ask(program, *operation, good, second) == (400, "bad_request", None)
    few = f"Bearer {token('admin', scopes=['orders' if program.name == 'sites' else 'sites'])}"
    assert ask(program, *operation, few)[:2] == (403, "forbidden")
    # What only reads is for users too, as far as it is theirs.
    expected = 403 if program.name in {"users", "tasks", "gateway"} else 503
    assert ask(program, *operation, f"Bearer {token('user')}")[0] == expected

    def log() -> str:
        return (program.folder / "log").read_text()

    eventually(lambda: log().count('"request"') > 10, what="its lines")
    assert not any(secret in log() for secret in (*good.split("."), "YWRtaW46YWRtaW4=", "for these tests only"))


def test_the_pages_for_machines_need_no_token(program: Program) -> None:
    for path in ("/livez", "/metrics", "/openapi.json"):
        if program.name == "gateway" and path == "/metrics":
            # Its port is for everybody.
            assert ask(program, "GET", path)[0] == 401
            continue
        assert ask(program, "GET", path)[0] == 200
        assert ask(program, "GET", path, "Bearer nonsense")[0] == 200


def test_a_service_that_starts_while_users_is_away_knows_the_keys_of_before(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(KEY_SET)
    a_minute_ago = time.time() - 60
    os.utime(tmp_path / "keys", (a_minute_ago, a_minute_ago))
    with ScriptedUpstream() as users:
        users.stop()
        orders = start("orders", tmp_path, users)
        try:
            for known in (token("user"), token("user", ago=331)):  # which nobody could renew
                assert ask(orders, "GET", "/orders", f"Bearer {known}")[:2] == (503, "database_unavailable")
            assert ask(orders, "GET", "/orders", f"Bearer {token('user', ago=3600)}")[:2] == (401, "invalid_token")
        finally:
            orders.stop()


def test_what_a_service_asks_another_for_somebody_it_asks_with_their_token(
    tmp_path: Path, keys: ScriptedUpstream
) -> None:
    orders = start("orders", tmp_path, keys)
    mine = token("user")
    try:
        eventually((tmp_path / "keys").is_file, timeout=20, what="it has the keys")
        answer = requests.post(
            f"http://127.0.0.1:{orders.port}/orders",
            json={
                "user_id": str(UUID(int=1, version=4)),
                "items": [{"product": "sand", "quantity": 1, "price": "1.00"}],
            },
            headers={"Authorization": f"Bearer {mine}"},
            timeout=10,
        )
        assert answer.json()["error"]["code"] == "database_unavailable"
        (asked,) = keys.requests(f"/users/{UUID(int=1, version=4)}")
        assert asked.values("Authorization") == [f"Bearer {mine}"]
    finally:
        orders.stop()
