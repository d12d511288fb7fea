"""Who may do what: every operation, called as everybody, against a table that is written by hand from the design."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from api_gateway.control import make_control
from api_gateway.route_table import PAGES, ROUTES
from scripts.reference import endpoints
from scripts.reference.roles import operations
from servicekit.identity.keys import SigningKey
from servicekit.identity.roles import Action, Role
from servicekit.observing.metrics import Metrics
from servicekit.process.services import services
from servicekit.web.routes import Endpoint
from tests.support.identity import KEY, NOW, issue, verifier_of

#: The operation; which rows nobody, a user, an auditor and an administrator reach; the scopes of which a key needs one.
TABLE = """
GET    /users                       none own  all  all   read admin
POST   /users                       none none none all   admin
GET    /users/{id}                  none own  all  all   read admin
PUT    /users/{id}                  none own  own  all   admin
DELETE /users/{id}                  none none none all   admin
POST   /auth/login                  all  all  all  all
POST   /auth/login/code             all  all  all  all
POST   /auth/refresh                all  all  all  all
POST   /auth/logout                 none own  own  own   admin
POST   /auth/logout-all             none own  own  own   admin
GET    /auth/me                     none own  all  all   read admin
PUT    /auth/password               none own  own  own   admin
GET    /auth/sessions               none own  own  own   admin
DELETE /auth/sessions               none own  own  own   admin
DELETE /auth/sessions/{id}          none own  own  own   admin
GET    /auth/keys                   none own  own  own   admin
POST   /auth/keys                   none own  own  own   admin
DELETE /auth/keys/{id}              none own  own  own   admin
GET    /auth/factors                none own  own  own   admin
POST   /auth/factors                none own  own  own   admin
DELETE /auth/factors/{id}           none own  own  own   admin
POST   /auth/factors/{id}/confirm   none own  own  own   admin
DELETE /users/{id}/factors          none none none all   admin
POST   /users/{id}/disable          none none none all   admin
POST   /users/{id}/enable           none none none all   admin
GET    /users/{id}/account          none none none all   admin
GET    /users/{id}/keys             none none none all   admin
DELETE /users/{id}/keys/{key_id}    none none none all   admin
GET    /users/{id}/sessions         none none none all   admin
DELETE /users/{id}/sessions         none none none all   admin
POST   /users/{id}/link             none none none all   admin
GET    /auth/oidc                   all  all  all  all
POST   /auth/oidc/start             all  all  all  all
POST   /auth/oidc/link              none own  own  own   admin
GET    /auth/oidc/callback          all  all  all  all
GET    /auth/identities             none own  own  own   admin
DELETE /auth/identities/{id}        none own  own  own   admin
POST   /auth/forgot                 all  all  all  all
POST   /auth/reset                  all  all  all  all
POST   /auth/email                  none own  own  own   admin
POST   /auth/email/confirm          all  all  all  all
GET    /audit                       none none all  all   read admin
GET    /orders                      none own  all  all   read orders
POST   /orders                      none own  none all   orders
GET    /orders/{id}                 none own  all  all   read orders
PUT    /orders/{id}                 none own  none all   orders
DELETE /orders/{id}                 none own  none all   orders
GET    /tasks                       none own  all  all   read tasks
POST   /tasks                       none own  none all   tasks
POST   /tasks/batch                 none own  none all   tasks
GET    /tasks/{id}                  none own  all  all   read tasks
DELETE /tasks/{id}                  none own  none all   tasks
GET    /tasks/{id}/status           none own  all  all   read tasks
GET    /tasks/{id}/result           none own  all  all   read tasks
GET    /tasks/{id}/events           none own  all  all   read tasks
POST   /tasks/{id}/retry            none own  none all   tasks
GET    /tasks/stats                 none own  all  all   read tasks
GET    /users/{id}/tasks            none own  all  all   read tasks
POST   /tasks/cancel                none none none all   admin
POST   /tasks/retry                 none none none all   admin
GET    /tasks/rejected              none none all  all   read admin
GET    /tasks/rejected/{id}         none none all  all   read admin
POST   /tasks/rejected/{id}/requeue none none none all   admin
DELETE /tasks/rejected/{id}         none none none all   admin
GET    /task-types                  none own  all  all   read tasks
PUT    /task-types/{name}           none none none all   admin
DELETE /task-types/{name}           none none none all   admin
POST   /task-types/{name}/pause     none none none all   admin
POST   /task-types/{name}/resume    none none none all   admin
GET    /schedules                   none own  all  all   read tasks
POST   /schedules                   none own  none all   tasks
GET    /schedules/{id}              none own  all  all   read tasks
PUT    /schedules/{id}              none own  none all   tasks
DELETE /schedules/{id}              none own  none all   tasks
POST   /schedules/{id}/pause        none own  none all   tasks
POST   /schedules/{id}/resume       none own  none all   tasks
POST   /schedules/{id}/run          none own  none all   tasks
GET    /sites                       none own  all  all   read sites
POST   /sites                       none none none all   sites
GET    /sites/{id}                  none own  all  all   read sites
PUT    /sites/{id}                  none own  none all   sites
GET    /sites/{id}/members          none own  all  all   read sites
POST   /sites/{id}/members          none own  none all   sites
PUT    /sites/{id}/members/{user_id} none own none all sites
DELETE /sites/{id}/members/{user_id} none own none all sites
GET    /sites/{id}/locations        none own  all  all   read sites
POST   /sites/{id}/locations        none own  none all   sites
PUT    /sites/{id}/locations/{location_id} none own none all sites
DELETE /sites/{id}/locations/{location_id} none own none all sites
GET    /sites/{id}/calendar         none own  all  all   read sites
PUT    /sites/{id}/calendar/{day}   none own  none all   sites
DELETE /sites/{id}/calendar/{day}   none own  none all   sites
POST   /sites/{id}/work-items       none own  none all   sites
GET    /work-items                  none own  all  all   read sites
POST   /work-items/steps            none own  none all   sites
GET    /work-items/{id}             none own  all  all   read sites
PUT    /work-items/{id}             none own  none all   sites
DELETE /work-items/{id}             none own  none all   sites
GET    /work-items/{id}/history     none own  all  all   read sites
GET    /work-items/{id}/comments    none own  all  all   read sites
POST   /work-items/{id}/comments    none own  none all   sites
PUT    /work-items/{id}/comments/{comment_id} none own none all sites
GET    /work-items/{id}/watchers    none own  all  all   read sites
PUT    /work-items/{id}/watchers/{user_id} none own none all sites
DELETE /work-items/{id}/watchers/{user_id} none own none all sites
GET    /work-items/{id}/links       none own  all  all   read sites
PUT    /work-items/{id}/links/{kind}/{target_id} none own none all sites
DELETE /work-items/{id}/links/{kind}/{target_id} none own none all sites
GET    /sites/{id}/changes          none own  all  all   read sites
POST   /work-items/{id}/steps       none own  none all   sites
GET    /reports/contractors         none own  all  all   read sites
GET    /reports/ageing              none own  all  all   read sites
GET    /reports/burndown            none own  all  all   read sites
GET    /reports/time-to-close       none own  all  all   read sites
GET    /reports/on-time             none own  all  all   read sites
GET    /reports/returns             none own  all  all   read sites
GET    /reports/counts              none own  all  all   read sites
GET    /reports/progress            none own  all  all   read sites
GET    /outbox/users                none none all  all   read admin
GET    /outbox/orders               none none all  all   read admin
GET    /outbox/tasks                none none all  all   read admin
GET    /outbox/sites                none none all  all   read admin
GET    /                            all  all  all  all
GET    /health                      all  all  all  all
GET    /status                      none none all  all   read admin
POST   /admin/circuits/{name}       none none none all   admin
"""
#: Only for the services and the gateway themselves, by their own tokens.
INTERNAL = {
    "POST /internal/events", "POST /internal/people", "POST /internal/mail", "POST /internal/exchange",
    "POST /internal/audit", "GET /internal/revocations",
}  # fmt: skip
ROWS = {f"{method} {path}": rest for method, path, *rest in (line.split() for line in TABLE.strip().splitlines())}
#: What else may be done by whoever must change their password.
OF_ANY_SESSION = {"GET /auth/me", "PUT /auth/password", "POST /auth/logout", "POST /auth/logout-all"}
SCOPES = ("read", "orders", "tasks", "sites", "admin")
GOOD = issue(roles=["admin"])
INVALID = {
    "expired": issue(roles=["admin"], now=NOW - 400),
    "tampered": GOOD[:-9] + ("A" if GOOD[-9] != "A" else "B") + GOOD[-8:],
    "for others": issue(roles=["admin"], audience="others"),
    "by an unknown key": issue(SigningKey.generate(), roles=["admin"]),
    "nonsense": "nonsense",
}


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def test_every_operation_is_in_the_table_and_reaches_what_it_says():
    known = {name_of(one): one for one in operations() if name_of(one) not in INTERNAL}
    assert known.keys() == ROWS.keys()
    for name, row in ROWS.items():
        assert [known[name].action.extents[role] for role in Role] == row[:4], name
        assert known[name].action.scopes == {*row[4:]}, name


def test_the_gateway_refuses_by_the_actions_of_the_services():
    routed = {f"{method} {row.template}": action for row in ROUTES + PAGES for method, action in row.actions.items()}
    known = {name_of(one).replace("PATCH", "PUT"): one.action for one in operations()}
    for name, action in routed.items():
        merged = name.endswith("/details")
        page = known.get(name.replace("PATCH", "PUT").removesuffix("/details" if merged else ""), Action.PUBLIC)
        assert action is (Action.READ_SYSTEM if name == "GET /metrics" else page), name
    assert all(row.actions.keys() == {*row.methods} for row in ROUTES + PAGES)


def asked_of() -> Iterator[str]:
    yield from services()
    yield "gateway"


@pytest.fixture(params=asked_of())
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """One of ours, with its database away: it answers whoever it admits with anything but a 401 or a 403."""
    identify = verifier_of(KEY).identify
    if request.param == "gateway":
        return make_control(
            circuits={}, routes=(), metrics=Metrics("g"), fetch_documents=dict, admin_token=None, identify=identify
        )
    monkeypatch.setattr(f"{services()[request.param].package}.app.identify_with", lambda settings: identify)
    return endpoints.application(request.param)


def expected(row: list[str], role: int, scope: str | None = None) -> int | None:
    """The status of a refusal; None for whoever is admitted."""
    if row[role] == "none":
        return 403 if role else 401
    needed = row[4:]
    return 403 if scope is not None and needed and scope not in needed else None


def test_each_operation_admits_whom_the_table_says_and_nobody_else(app):
    client = app.test_client()
    callers = {
        "nobody": (None, 0, None),
        "user": (issue(roles=["user"]), 1, None),
        "auditor": (issue(roles=["auditor"]), 2, None),
        "admin": (GOOD, 3, None),
        **{f"an admin's key for {scope}": (issue(roles=["admin"], scopes=[scope]), 3, scope) for scope in SCOPES},
        **{f"a user's key for {scope}": (issue(roles=["user"], scopes=[scope]), 1, scope) for scope in SCOPES},
    }
    for endpoint in app.endpoints:
        name = name_of(endpoint).replace("PATCH", "PUT")
        path = re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000001", endpoint.path)

        def ask(token: str | None, endpoint: Endpoint = endpoint, path: str = path) -> int | None:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            status = client.open(path, method=endpoint.method, headers=headers).status_code
            return status if status in (401, 403) else None

        if name in INTERNAL:
            assert {ask(token) for token, *_ in callers.values()} == {403}
            continue
        row = ROWS[name]
        for who, (token, role, scope) in callers.items():
            assert ask(token) == expected(row, role, scope), (who, name)
        if row[0] != "all":
            assert ask(issue(roles=["admin"], must_change_password=True)) == (None if name in OF_ANY_SESSION else 403)
        for why, token in INVALID.items():
            # What shows more to whom it knows asks who that is.
            assert ask(token) == (None if row[0] == "all" and not endpoint.wants_caller else 401), (why, name)
