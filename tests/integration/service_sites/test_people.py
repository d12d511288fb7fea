"""Sites ask users who somebody is: the composed service and a users service that is at hand, away or wrong."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from service_sites.app import create_app
from service_sites.settings import SitesSettings
from service_sites.users_client import Names, Person
from service_users.app import create_app as create_users
from service_users.settings import UsersSettings
from servicekit.identity.roles import Role
from tests.support.postgres import ServiceDatabase
from tests.support.sites import Caller, Directory, SitesSystem
from tests.support.upstream import ScriptedUpstream, Step, bad, good

TOKEN = "for those who find people"
MARA = uuid4()
NEW = {"key": "NORTH", "name": "North", "time_zone": "UTC", "manager": {"email": "mara@example.com"}}


@pytest.fixture
def upstream():
    with ScriptedUpstream() as upstream:
        upstream.script(good({"people": [{"id": str(MARA), "name": "Mara"}]}))
        yield upstream


@pytest.fixture
def composed(sites_database: ServiceDatabase, upstream: ScriptedUpstream) -> FlaskClient:
    settings = SitesSettings(
        sites_database_url=sites_database.url, users_url=upstream.url, people_token=TOKEN, auth="off", service_threads=2
    )
    return create_app(settings).test_client()


def test_users_are_asked_with_the_token_for_people_by_what_was_given(composed: FlaskClient, upstream: ScriptedUpstream):
    made = composed.post("/sites", json=NEW)
    assert made.status_code == 201
    (asked,) = upstream.seen
    assert (asked.line, asked.value("Authorization")) == (b"POST /internal/people HTTP/1.1", f"Bearer {TOKEN}")
    assert json.loads(asked.body) == {"email": "mara@example.com"}
    members = composed.get(f"/sites/{made.json['data']['id']}/members").json["data"]["members"]
    assert [(one["user_id"], one["name"], one["role"]) for one in members] == [(str(MARA), "Mara", "manager")]


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (good({"people": []}), 400, "person_not_found"),
        (bad(400, "invalid_input"), 400, "person_not_found"),
        (bad(401, "unauthorized"), 503, "users_unavailable"),
        (bad(403, "forbidden"), 503, "users_unavailable"),
        (bad(503, "database_unavailable"), 503, "users_unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 502, "bad_upstream_answer"),
    ],
    ids=["unknown", "no address", "another token", "no token", "away", "nonsense"],
)
def test_what_users_answer_becomes_a_refusal_with_nothing_stored(
    composed: FlaskClient, upstream: ScriptedUpstream, script: Step, status: int, code: str
):
    upstream.script(script)
    refused = composed.post("/sites", json=NEW)
    assert (refused.status_code, refused.json["error"]["code"]) == (status, code)
    assert composed.get("/sites").json["data"]["total"] == 0


def test_people_are_found_by_exact_address_or_id_while_their_account_is_enabled(users_database: ServiceDatabase):
    settings = UsersSettings(users_database_url=users_database.url, people_token=TOKEN, auth="off")
    users = create_users(settings).test_client()
    anna = users.post("/users", json={"email": "Anna@example.com", "name": "Anna"}).json["data"]

    def find(token: str = TOKEN, **sought: str) -> object:
        answer = users.post("/internal/people", json=sought, headers={"Authorization": f"Bearer {token}"})
        return answer.json["data"]["people"] if answer.status_code == 200 else answer.status_code

    known = [{"id": anna["id"], "name": "Anna"}]
    assert find(email="ANNA@EXAMPLE.com") == find(id=anna["id"]) == known
    assert find(email="anna@example.co") == find(email="%") == find(id=str(uuid4())) == []
    assert find(email="an\0na@example.com") == 400
    assert find() == find(email="anna@example.com", id=anna["id"]) == 400
    assert find("another token than that") == find("") == 401
    users.post(f"/users/{anna['id']}/disable")
    assert find(id=anna["id"]) == []
    closed = create_users(UsersSettings(users_database_url=users_database.url, auth="off")).test_client()
    assert closed.post("/internal/people", json={"id": anna["id"]}).status_code == 403


def test_an_administrator_who_is_none_of_the_people_is_named_in_history_as_far_as_users_say(system: SitesSystem):
    path = f"{system.site().path}/work-items"
    other = Caller(system.app, system.directory.add("Olga").id, Role.ADMIN)
    for caller, is_away, name in (
        (system.admin, True, "administrator"),
        (other, False, "Olga"),
        (system.local, False, "local"),
    ):
        system.directory.is_away = is_away
        made = caller.data("POST", path, {"kind": "defect", "title": "a crack", "reason": "nobody else is there"})
        told = system.auditor.data("GET", f"/work-items/{made['id']}/history")["history"]
        assert [one["actor"]["name"] for one in told] == [name]


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_names_are_remembered_for_a_while_also_while_users_are_away():
    clock, directory = _Clock(), Directory()
    root = directory.add("Root")
    names = Names(directory, now=clock)
    directory.is_away = True
    assert [names.of(root.id), names.of(root.id), directory.asked] == [None, None, 1]
    directory.is_away, clock.now = False, 11
    assert [names.of(root.id), names.of(root.id), directory.asked] == ["Root", "Root", 2]
    directory.is_away, clock.now = True, 400
    assert [names.of(root.id), directory.asked] == ["Root", 3]
    directory.is_away, clock.now = False, 500
    directory.by_email["root@example.com"] = Person(root.id, "Anna")
    assert names.of(root.id) == "Anna"
    assert names.of(uuid4()) is None
