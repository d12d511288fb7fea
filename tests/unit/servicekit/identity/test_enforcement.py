"""What a service answers to whom, where a login is required."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
from base64 import urlsafe_b64encode
from uuid import UUID

import pytest

from servicekit.identity.enforcement import OpenToAll
from servicekit.identity.keys import SigningKey
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.identity.tokens import TokenVerifier
from servicekit.web.app import make_app
from servicekit.web.routes import Routes
from servicekit.web.schemas import Body, View
from servicekit.wire.errors import Forbidden
from tests.support.identity import KEY, ME, NOW, issue, verifier_of

TOKEN = issue()
HEAD, CLAIMS, SIGNATURE = TOKEN.split(".")
BY_ADMIN = issue(roles=["admin"])


class Order(Body):
    text: str


class CallerView(View):
    role: str
    owner: UUID | None


def _open_only_to_ourselves(authorization: str | None, client: str | None) -> None:
    if authorization != "Bearer internal":
        raise Forbidden


def routes() -> Routes:
    api = Routes("orders")

    @api.get("/orders", action=Action.READ_ORDERS)
    def list_orders(caller: Principal) -> CallerView:
        """Show what the caller reaches."""
        return CallerView(role=caller.role, owner=caller.reach(Action.READ_ORDERS).owner)

    @api.post("/orders", action=Action.CHANGE_ORDERS)
    def create_order(body: Order) -> CallerView:
        """Need not know the caller."""
        return CallerView(role=body.text, owner=None)

    @api.get("/login", action=Action.PUBLIC)
    def login() -> CallerView:
        """Ask nobody who they are."""
        return CallerView(role="anybody", owner=None)

    @api.get("/front", action=Action.PUBLIC)
    def show_front(caller: Principal) -> CallerView:
        """Show more to whom it knows."""
        return CallerView(role=caller.role, owner=caller.user_id)

    @api.post("/circuits", action=Action.OPERATE_SYSTEM, guard=_open_only_to_ourselves)
    def force_circuit() -> CallerView:
        """Be for administrators."""
        return CallerView(role="done", owner=None)

    @api.post("/internal/events", guard=_open_only_to_ourselves)
    def take_event() -> CallerView:
        """Be for services."""
        return CallerView(role="done", owner=None)

    return api


def client_of(*keys: SigningKey):
    return make_app("orders", routes=[routes()], checks={}, identify=verifier_of(*keys).identify).test_client()


@pytest.fixture(scope="module")
def client():
    return client_of(KEY)


def _hs256() -> str:
    head = urlsafe_b64encode(b'{"alg":"HS256","typ":"at+jwt"}').decode().rstrip("=")
    mac = hmac.digest(KEY.public()["x"].encode(), f"{head}.{CLAIMS}".encode(), hashlib.sha256)
    return f"{head}.{CLAIMS}.{urlsafe_b64encode(mac).decode().rstrip('=')}"


def _none() -> str:
    head = urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    return f"{head}.{CLAIMS}."


#: The field, then what it gets: GET and POST /orders, GET /login, GET /front, POST /circuits, POST /internal/events.
CREDENTIALS = {
    "none": (None, 401, 401, 200, 200, 401, 403),
    "user": (f"Bearer {TOKEN}", 200, 200, 200, 200, 403, 403),
    "auditor": (f"Bearer {issue(roles=['auditor', 'user'])}", 200, 403, 200, 200, 403, 403),
    "admin": (f"Bearer {BY_ADMIN}", 200, 200, 200, 200, 200, 403),
    "a role that means nothing": (f"Bearer {issue(roles=['root'])}", 200, 200, 200, 200, 403, 403),
    "a key that may read": (f"Bearer {issue(roles=['admin'], scopes=['read'])}", 200, 403, 200, 200, 403, 403),
    "a key for orders": (f"Bearer {issue(roles=['admin'], scopes=['orders'])}", 200, 200, 200, 200, 403, 403),
    "a key for nothing": (f"Bearer {issue(roles=['admin'], scopes=[])}", 403, 403, 200, 200, 403, 403),
    "the services' own token": ("Bearer internal", 401, 401, 200, 401, 401, 200),
    "expired": (f"Bearer {issue(now=NOW - 331)}", 401, 401, 200, 401, 401, 403),
    "tampered": (f"Bearer {HEAD}.{CLAIMS[:-3]}AAA.{SIGNATURE}", 401, 401, 200, 401, 401, 403),
    "for others": (f"Bearer {issue(audience='others')}", 401, 401, 200, 401, 401, 403),
    "by others": (f"Bearer {issue(issuer='https://others.example')}", 401, 401, 200, 401, 401, 403),
    "by an unknown key": (f"Bearer {issue(SigningKey.generate())}", 401, 401, 200, 401, 401, 403),
    "unsigned": (f"Bearer {_none()}", 401, 401, 200, 401, 401, 403),
    "signed with the public key": (f"Bearer {_hs256()}", 401, 401, 200, 401, 401, 403),
    "a password": ("Basic YWRtaW46YWRtaW4=", 401, 401, 200, 401, 401, 403),
    "the token alone": (TOKEN, 401, 401, 200, 401, 401, 403),
    "two at once": (f"Bearer {TOKEN}, Bearer {BY_ADMIN}", 401, 401, 200, 401, 401, 403),
    "an empty field": ("", 401, 401, 200, 401, 401, 403),
}


@pytest.mark.parametrize(
    ("field", "listed", "made", "login", "front", "forced", "events"), CREDENTIALS.values(), ids=CREDENTIALS
)
def test_each_credential_opens_what_its_role_and_scopes_allow(
    client, field, listed, made, login, front, forced, events
):
    headers = {} if field is None else {"Authorization": field}
    answers = [
        client.get("/orders", headers=headers),
        client.post("/orders", headers=headers, json={"text": "made"}),
        client.get("/login", headers=headers),
        client.get("/front", headers=headers),
        client.post("/circuits", headers=headers),
        client.post("/internal/events", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [listed, made, login, front, forced, events]
    for answer in answers:
        assert answer.json["success"] == (answer.status_code == 200)
        if answer.status_code == 401:
            wanted = "Bearer" if field is None else 'Bearer error="invalid_token"'
            assert answer.headers["WWW-Authenticate"] == wanted
            assert answer.json["error"]["code"] == ("unauthorized" if field is None else "invalid_token")


def test_where_nobody_logs_in_whoever_shows_nothing_may_do_everything_and_a_token_counts():
    made = []

    def make() -> TokenVerifier:
        made.append(1)
        return verifier_of(KEY)

    client = make_app("orders", routes=[routes()], checks={}, identify=OpenToAll(make)).test_client()

    def statuses(field: str | None) -> list[int]:
        headers = {} if field is None else {"Authorization": field}
        return [
            client.get("/orders", headers=headers).status_code,
            client.post("/orders", headers=headers, json={"text": "made"}).status_code,
            client.get("/login", headers=headers).status_code,
            client.get("/front", headers=headers).status_code,
            client.post("/circuits", headers=headers).status_code,
            client.post("/internal/events", headers=headers).status_code,
        ]

    assert statuses(None) == [200, 200, 200, 200, 403, 403]
    assert client.get("/orders").json["data"] == {"role": "admin", "owner": None}
    assert client.post("/circuits", headers={"Authorization": "Bearer internal"}).status_code == 200
    assert made == []
    for name in ("user", "auditor", "admin", "expired", "tampered", "unsigned", "two at once", "an empty field"):
        field, listed, stored, login, front, *_ = CREDENTIALS[name]
        assert statuses(field)[:4] == [listed, stored, login, front], name
    # A key of ours opens what has a token of its own; anything else is for that token.
    assert [client.post("/circuits", headers={"Authorization": f"Bearer {one}"}).status_code for one in (
        TOKEN, BY_ADMIN, "internal", "x",
    )] == [403, 200, 200, 403]  # fmt: skip
    assert made == [1]
    assert "security" not in client.get("/openapi.json").json["paths"]["/orders"]["get"]


def test_a_user_reaches_their_own_rows_and_an_auditor_all(client):
    def seen(roles: list[str]) -> dict:
        return client.get("/orders", headers={"Authorization": f"Bearer {issue(roles=roles)}"}).json["data"]

    assert seen([]) == {"role": "user", "owner": str(ME)}
    assert seen(["user", "crane_driver"]) == {"role": "user", "owner": str(ME)}
    assert seen(["auditor"]) == {"role": "auditor", "owner": None}
    assert seen(["user", "auditor", "admin"]) == {"role": "admin", "owner": None}


def test_whoever_may_not_is_refused_before_the_body_is_looked_at(client):
    for field, status in ((None, 401), (issue(roles=["auditor"]), 403)):
        headers = {} if field is None else {"Authorization": f"Bearer {field}"}
        assert client.post("/orders", data=b"\xff", headers=headers).status_code == status


def test_the_pages_for_machines_ask_nobody_who_they_are(client):
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            assert client.get(path, headers=headers).status_code == 200


def test_the_document_says_what_needs_a_token_and_what_is_said_without(client):
    paths = client.get("/openapi.json").json["paths"]
    closed = {path for path, item in paths.items() for one in item.values() if one.get("security") == [{"bearer": []}]}
    assert closed == {"/orders", "/circuits", "/internal/events"}
    assert "`invalid_token`" in paths["/orders"]["get"]["responses"]["401"]["description"]
    assert "`identity_unavailable`" in paths["/orders"]["post"]["responses"]["503"]["description"]
    assert "401" not in paths["/login"]["get"]["responses"]


def test_a_service_without_keys_is_unavailable_and_refuses_nobody():
    answer = client_of().get("/orders", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "identity_unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert client_of().get("/orders").status_code == 401


def test_without_a_login_nobody_loads_the_libraries_of_one() -> None:
    script = (
        "import sys; import api_gateway.app, service_tasks.app, service_tasks.streams.app, service_users.app; "
        "print([name for name in ('cryptography', 'requests') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
