"""An instance that was open, and then asks for a login: who may do what there, and what ends what."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import psutil
import psycopg2
import pytest

from scripts import seeding
from scripts.instance.closing import ADMINISTRATOR
from scripts.instance.ports import Ports
from service_users.accounts.totp import one_time_code
from servicekit.identity.api_keys import new_api_key
from servicekit.identity.keys import SigningKey
from servicekit.identity.roles import Role
from servicekit.identity.tokens import LIFETIME, SKEW
from servicekit.process.services import services
from tests.contract.test_role_table import ROWS, expected
from tests.support.certificates import Authority
from tests.support.frozen import freezing
from tests.support.gateway import GatewayServer
from tests.support.logins import (
    PASSWORD,
    ClosedSystem,
    Fields,
    Person,
    bearer,
    by_cookie,
    forms_of,
    signed_with_the_public_key,
    tampered,
    unsigned,
)
from tests.support.mail_server import MailServer
from tests.support.markdown import CHECKOUT, Document
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.system import Reply, RunningSystem
from tests.support.waiting import eventually

MALLORY = {"email": "mallory@example.com", "name": "Mallory", "roles": ["admin"], "password": PASSWORD}

UNA = {"email": "una@example.com", "name": "Una", "password": PASSWORD}
#: Who works on a site, and as what.
CREW = {"mara": "manager", "eva": "engineer", "conrad": "contractor", "cuno": "customer"}
#: The steps of one work item, and who takes them.
LIFE = (
    ("mara", {"step": "assign", "organisation": "Masons"}),
    ("conrad", {"step": "start"}),
    ("conrad", {"step": "report_done", "note": "closed with mortar"}),
    ("eva", {"step": "return", "reason": "still wet"}),
    ("conrad", {"step": "report_done", "note": "dried"}),
    ("eva", {"step": "accept"}),
)


@dataclass
class WhileOpen:
    """What somebody did who acted as Una: ids of hers and of Mallory's, and the answers."""

    ids: dict[str, str] = field(default_factory=dict)
    answers: list[object] = field(default_factory=list)
    crew: dict[str, str] = field(default_factory=dict)
    life: list[object] = field(default_factory=list)
    #: Statuses of logins by the passwords that were set, once it was closed.
    logins_after: set[int] = field(default_factory=set)


def as_una_sees(system: RunningSystem, fields: Fields, ids: dict[str, str]) -> list[object]:
    """What Una is answered who reads, and tries to change, what is hers and what is not."""
    item = {"product": "cement", "quantity": 1, "price": "1.00"}
    seen: list[object] = []
    for method, path, body in (
        *(("GET", path, None) for path in (
            "/users", "/users/{mine}", "/users/{other}", "/users/{mine}/details", "/users/{other}/details",
            "/orders", "/orders?user_id={other}", "/orders/{my_order}", "/orders/{their_order}",
            "/tasks", "/tasks/{my_task}", "/tasks/{their_task}", "/tasks/{their_task}/events",
            "/tasks/rejected", "/schedules", "/sites", "/work-items", "/audit", "/status", "/users/{mine}/sessions",
        )),
        ("POST", "/users", {"email": "new@example.com", "name": "New"}),
        ("PUT", "/users/{mine}", {"roles": ["admin"]}),
        ("PUT", "/users/{other}", {"name": "Somebody"}),
        ("POST", "/users/{mine}/disable", None),
        ("POST", "/orders", {"user_id": ids["other"], "items": [item]}),
        ("PUT", "/orders/{their_order}", {"status": "cancelled"}),
        ("DELETE", "/tasks/{their_task}", None),
        ("POST", "/tasks/cancel", {"task_type": "noop"}),
    ):  # fmt: skip
        reply = system.request(method, path.format_map(ids), body, headers=dict(fields))
        seen.append((method, path, reply.status, reply.body))
    me = system.get("/auth/me", headers=dict(fields)).data
    return [*seen, me["id"], me["roles"]]


def life_of_an_item(
    system: RunningSystem, key: str, crew: Mapping[str, str], fields: Mapping[str, Fields]
) -> list[object]:
    """What the people of a new site see of a work item, and are answered who try its steps."""

    def ask(who: str, method: str, path: str, body: object = None, **more: str) -> Reply:
        return system.request(method, path, body, headers={**fields[who], **more})

    wanted = {"key": key, "name": "Yard", "time_zone": "Europe/Moscow", "manager": {"user_id": crew["mara"]}}
    site = ask("admin", "POST", "/sites", wanted).data["id"]
    for name, role in CREW.items():
        if name != "mara":
            member = {"user_id": crew[name], "role": role, "organisation": "Masons" if role == "contractor" else "Yard"}
            assert ask("mara", "POST", f"/sites/{site}/members", member).status == 201
    item = ask("eva", "POST", f"/sites/{site}/work-items", {"title": "Crack"}).data["id"]
    seen: list[object] = []
    for taker, step in LIFE:
        for who in CREW:
            shown = ask(who, "GET", f"/work-items/{item}")
            permitted = shown.data.get("permitted_steps", []) if shown.status == 200 else []
            seen.append((who, shown.status, permitted))
            if step["step"] not in permitted:
                refused = ask(
                    who, "POST", f"/work-items/{item}/steps", {**step, "op_id": str(uuid4())}, **{"If-Match": "*"}
                )
                seen.append((who, step["step"], refused.status, refused.error["code"]))
        taken = ask(taker, "POST", f"/work-items/{item}/steps", {**step, "op_id": str(uuid4())}, **{"If-Match": "*"})
        seen.append((taker, taken.status, taken.data["state"], taken.data["version"]))
    told = ask("eva", "GET", f"/work-items/{item}/history").data["history"]
    return [*seen, [(one["step"], one["actor"]["id"], one["actor"]["name"], one["actor"]["role"]) for one in told]]


@pytest.fixture(scope="module")
def while_open() -> WhileOpen:
    return WhileOpen()


def use_openly(system: RunningSystem, noted: WhileOpen) -> None:
    """Store something of Una's and of Mallory's, and act as Una."""
    for (whose, name), person in {("my", "mine"): UNA, ("their", "other"): MALLORY}.items():
        user = noted.ids[name] = system.post("/users", person).data["id"]
        items = [{"product": "cement", "quantity": 2, "price": "3.50"}]
        noted.ids[f"{whose}_order"] = system.post("/orders", {"user_id": user, "items": items}).data["id"]
        task = {"task_type": "noop", "user_id": user}
        task_id = noted.ids[f"{whose}_task"] = system.post("/tasks", task).data["id"]
        # As it stays: no worker is here yet.
        assert system.delete(f"/tasks/{task_id}").status == 200
    noted.answers = as_una_sees(system, {"X-Act-As": noted.ids["mine"]}, noted.ids)
    for name in CREW:
        person = {"email": f"{name}@example.com", "name": name.title(), "password": PASSWORD}
        noted.crew[name] = system.post("/users", person).data["id"]
    fields: dict[str, Fields] = {name: {"X-Act-As": user_id} for name, user_id in noted.crew.items()}
    noted.life = life_of_an_item(system, "OPEN", noted.crew, {"admin": {}, **fields})


#: Where the mailed links lead.
PUBLIC_URL = "https://sites.example.com"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def mails(authority: Authority) -> Iterator[MailServer]:
    with MailServer(tls=authority.server("localhost"), password="hush") as server:
        yield server


@pytest.fixture(scope="module")
def closed(
    tmp_path_factory: pytest.TempPathFactory, while_open: WhileOpen, mails: MailServer, authority: Authority
) -> Iterator[ClosedSystem]:
    """An instance that Mallory used while it was open, and that sends mail."""
    folder = tmp_path_factory.mktemp("closed")
    mail = {
        "PUBLIC_URL": PUBLIC_URL, "SMTP_HOST": "localhost", "SMTP_PORT": str(mails.port), "SMTP_USER": "robot",
        "SMTP_PASSWORD": "hush", "SMTP_FROM": "robot@example.com", "SSL_CERT_FILE": str(authority.write(folder)),
    }  # fmt: skip
    system = RunningSystem(folder / "data", environment=mail)
    try:
        system.start("--workers", "0")
        use_openly(system, while_open)
        system.cli("stop")
        system.start("--workers", "1", "--auth")
        closed = ClosedSystem(system)
        # The gateway asks for the keys again a few seconds after users was away.
        eventually(
            lambda: system.get("/users", headers=closed.admin).status == 200, timeout=20, what="the keys are known"
        )
        for email in (MALLORY["email"], UNA["email"], *(f"{name}@example.com" for name in CREW)):
            while_open.logins_after.add(system.post("/auth/login", {"email": email, "password": PASSWORD}).status)
        for user_id in (while_open.ids["mine"], *while_open.crew.values()):
            closed.invite(user_id)
        yield closed
    finally:
        system.stop()


@pytest.fixture(scope="module")
def four(closed: ClosedSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A gateway of four processes in front of the same services."""
    gateway = closed.another_gateway(tmp_path_factory.mktemp("four"), GATEWAY_PROCESSES="4")
    # Which are forked one after the other.
    eventually(
        lambda: gateway.client.get("/livez").json["data"]["processes"] == 4, timeout=30, what="all four processes"
    )
    yield gateway
    gateway.stop()


#: Asks a certain process of a gateway for what auditors may see (or another page), with these fields; the status.
Way = Callable[..., int]


@pytest.fixture
def ways(closed: ClosedSystem, four: GatewayServer) -> Iterator[list[Way]]:
    """To the one process of the instance's gateway, and to each of the four."""

    def way(client: RawClient, connection: socket.socket | None) -> Way:
        return lambda fields, page="/audit": (
            client.request("GET", page, fields=tuple(fields.items()), connection=connection).status
        )

    pids = [child.pid for child in psutil.Process(four.process.pid).children()]
    with ExitStack() as stack:
        found = [way(RawClient(closed.system.port), None)]
        for pid in pids:
            with freezing([other for other in pids if other != pid]):
                connection = stack.enter_context(four.client.connect())
                found.append(way(four.client, connection))
                assert found[-1]({}, "/livez") == 200
        assert len(found) == 5
        yield found


def as_the_readme_says(system: RunningSystem) -> str:
    """What the README's login prints."""
    (text,) = [block.text for block in Document(CHECKOUT / "README.md").blocks if block.language == "shell"]
    text = text.replace("localhost:8000", f"localhost:{system.port}").replace(".data/", f"{system.data}/")
    curl = f'curl() {{ {shlex.quote(sys.executable)} -m tests.support.curl "$@" 2> /dev/null; }}'
    return subprocess.check_output(["sh", "-c", f"{curl}\n{text}"], cwd=CHECKOUT, text=True, timeout=60)


def test_closing_an_open_instance_leaves_no_way_in_but_the_new_administrator(
    closed: ClosedSystem, while_open: WhileOpen
) -> None:
    system = closed.system
    assert system.get("/users").status == 401
    assert while_open.logins_after == {401}, "whoever set the passwords"
    assert (system.data / "secrets" / "administrator").stat().st_mode & 0o777 == 0o600
    shown = json.loads(as_the_readme_says(system))
    assert {user["email"] for user in shown["data"]["users"]} == {ADMINISTRATOR, MALLORY["email"], UNA["email"]} | {
        f"{name}@example.com" for name in CREW
    }


def test_acting_as_somebody_showed_what_they_see_themselves(closed: ClosedSystem, while_open: WhileOpen) -> None:
    fields = bearer(closed.log_in(UNA["email"])["access_token"])
    acting, own = while_open.answers, as_una_sees(closed.system, fields, while_open.ids)
    for one, other in zip(acting, own, strict=True):
        assert one == other
    assert [user["id"] for user in acting[0][3]["data"]["users"]] == [while_open.ids["mine"]]
    assert {answer[2] for answer in acting[:-2]} == {200, 403, 404}


def test_the_people_of_a_site_take_the_steps_of_a_work_item_as_those_who_act_as_them(
    closed: ClosedSystem, while_open: WhileOpen
) -> None:
    fields = {name: bearer(closed.log_in(f"{name}@example.com")["access_token"]) for name in CREW}
    own = life_of_an_item(closed.system, "CLOSED", while_open.crew, {"admin": closed.admin, **fields})
    for one, other in zip(while_open.life, own, strict=True):
        assert one == other
    assert [(step, name) for step, _, name, _ in own[-1]] == [
        ("created", "Eva"),
        *((step["step"], who.title()) for who, step in LIFE),
    ]


@dataclass(frozen=True)
class Shown:
    """A credential, and as whom it is taken by the gateway and by a service: a column of the role table, None for
    nobody in particular; with the scope of a key."""

    fields: Fields
    gateway: Role | None
    service: Role | None
    scope: str | None = None


@dataclass
class Rows:
    """Something of each kind that is a stranger's."""

    closed: ClosedSystem
    paths: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stranger = self.closed.person()
        fields = bearer(self.closed.token(stranger))
        self.paths["/users"] = stranger.id
        items = [{"product": "nails", "quantity": 1, "price": 1}]
        for path, body in {
            "/orders": {"user_id": stranger.id, "items": items},
            "/tasks": {"user_id": stranger.id},
            "/schedules": {"user_id": stranger.id, "name": stranger.id, "every": 86_400, "task_type": "noop"},
        }.items():
            self.paths[path] = self.closed.system.post(path, body, headers=fields).data["id"]
        eventually(lambda: self.shown()["/tasks"]["status"] == "completed", what="the stranger's task has ended")

    def shown(self) -> dict[str, dict]:
        system, admin = self.closed.system, self.closed.admin
        return {path: system.get(f"{path}/{id}", headers=admin).data for path, id in self.paths.items()}

    def target(self, operation: str, role: Role | None) -> str:
        """The path of a stranger's row; for whoever might change it, of none."""
        method, path = operation.split()
        id = self.paths.get(f"/{path.split('/')[1]}")
        if id is None or "/rejected" in path or (method != "GET" and role is Role.ADMIN):
            id = "00000000-0000-4000-8000-000000000001"
        return re.sub(r"\{\w+\}", id, path)


def refusal(answer: RawAnswer) -> int | None:
    """The status of an answer that refuses whoever asks, not what they ask for."""
    if answer.status not in (401, 403):
        return None
    # A session of ours that began just now may be asked for: those of the tokens made here never did.
    after_admission = answer.code in ("invalid_credential", "login_not_fresh")
    assert after_admission or answer.code in ("unauthorized", "invalid_token", "forbidden"), answer
    return None if after_admission else answer.status


def test_each_operation_admits_whom_the_table_says_by_whatever_credential(
    closed: ClosedSystem, ways: list[Way]
) -> None:
    system, rows = closed.system, Rows(closed)
    before = rows.shown()
    user, auditor, admin = (closed.person(role) for role in ("user", "auditor", "admin"))
    gone, disabled, browsing = closed.person(), closed.person(), closed.person()
    good = closed.token(user)
    ended = closed.log_in(gone.email)["access_token"]
    of_disabled = {"token": bearer(closed.log_in(disabled.email)["access_token"])}
    of_disabled |= {"cookie": by_cookie(closed.cookie(disabled)), "key": bearer(closed.api_key(disabled, "read"))}
    assert system.post("/auth/logout", headers=bearer(ended)).status == 200
    assert system.post(f"/users/{disabled.id}/disable", headers=closed.admin).status == 200
    credentials = {
        "nothing": Shown({}, Role.NOBODY, Role.NOBODY),
        "a user's token": Shown(bearer(good), Role.USER, Role.USER),
        "an auditor's": Shown(bearer(closed.token(auditor)), Role.AUDITOR, Role.AUDITOR),
        "an administrator's": Shown(bearer(closed.token(admin)), Role.ADMIN, Role.ADMIN),
        "expired": Shown(bearer(closed.token(user, ago=400)), None, None),
        "tampered": Shown(bearer(tampered(good)), None, None),
        "of a wrong audience": Shown(bearer(closed.token(admin, audience="others")), None, None),
        "by another key": Shown(bearer(closed.token(admin, key=SigningKey.generate())), None, None),
        "alg: none": Shown(bearer(unsigned(good)), None, None),
        "HS256 with the public key": Shown(
            bearer(signed_with_the_public_key(good, closed.signing_key)), None, None
        ),
        # A service takes them until they expire.
        "of a session that has ended": Shown(bearer(ended), None, Role.USER),
        "of somebody disabled": Shown(of_disabled["token"], None, Role.USER),
        # For the gateway alone: to a service a cookie is nothing, and a key no token.
        "the cookie of somebody disabled": Shown(of_disabled["cookie"], None, Role.NOBODY),
        "the key of somebody disabled": Shown(of_disabled["key"], None, None),
        "a cookie": Shown(by_cookie(closed.cookie(browsing)), Role.USER, Role.NOBODY),
        "a broken cookie": Shown(by_cookie("short"), None, Role.NOBODY),
        "a user's key for orders": Shown(bearer(closed.api_key(user, "orders")), Role.USER, None, "orders"),
        "an administrator's key for orders": Shown(bearer(closed.api_key(admin, "orders")), Role.ADMIN, None, "orders"),
        "an administrator's key to read": Shown(bearer(closed.api_key(admin, "read")), Role.ADMIN, None, "read"),
    }  # fmt: skip
    refused_everywhere(ways[:1], {"ended": bearer(ended), **of_disabled})

    roles = [*Role]
    wrong: list[str] = []

    def compare(where: str, port: int, listed: list[str], who: str) -> None:
        shown = credentials[who]
        role = shown.gateway if where == "gateway" else shown.service
        answers = RawClient(port).pipeline(
            [tuple((one.split()[0], rows.target(one, role))) for one in listed], shown.fields
        )
        for operation, answer in zip(listed, answers, strict=True):
            row = ROWS[operation]
            wanted = None if row[0] == "all" else 401
            if role is not None:
                wanted = expected(row, roles.index(role), shown.scope)
            seen = refusal(answer)
            if seen == wanted and seen is None and role is not None and operation in shows_one:
                # Somebody else's row: there for whoever reaches all, and nowhere for the others.
                seen, wanted = answer.status, 404 if row[roles.index(role)] == "own" else 200
            if seen != wanted:
                wrong.append(f"{where}, {operation}, {who}: {seen} instead of {wanted}")

    listed = {where: documented(port) for where, port in closed.ports.items()}
    shows_one = {one for one in ROWS if re.fullmatch(r"GET /(users|orders|tasks|schedules)/\{id\}.*", one)} - {
        "GET /users/{id}/tasks", "GET /tasks/{id}/result",
    }  # fmt: skip
    assert {*listed["gateway"]} == ROWS.keys(), "an operation is not in the table, or not at the gateway"
    for operation, ways_in in secured(closed.ports["gateway"]).items():
        is_page = operation.split()[1] in ("/", "/health", "/status", "/admin/circuits/{name}")
        wanted = set() if ROWS[operation][0] == "all" else {"bearer"} if is_page else {"bearer", "cookie"}
        assert ways_in == wanted, operation
    assert {one for where in listed if where != "gateway" for one in listed[where]} >= {
        one for one in ROWS if one.split()[1] not in ("/", "/health", "/status", "/admin/circuits/{name}")
    }
    with ThreadPoolExecutor(4) as pool:
        cells = [(where, port, listed[where], who) for where, port in closed.ports.items() for who in credentials]
        for one in [pool.submit(compare, *cell) for cell in cells]:
            one.result()
    assert wrong == []
    assert rows.shown() == before


def refused_everywhere(
    ways: list[Way], credentials: Mapping[Hashable, Fields], by: Collection[int] = frozenset({401})
) -> None:
    """Insist that no process of a gateway takes any of these after five seconds, and from then on."""

    def taken() -> list[Hashable]:
        return [name for way in ways for name, fields in credentials.items() if way(fields) not in by]

    eventually(lambda: not taken(), timeout=5, what="every process has heard of it")
    assert taken() == []


def test_whatever_ends_is_refused_by_every_process_of_every_gateway_within_five_seconds(
    closed: ClosedSystem, ways: list[Way]
) -> None:
    system, admin = closed.system, closed.admin
    people = {name: closed.person("auditor") for name in ("disabled", "one session", "sessions", "out", "demoted")}
    sessions = {name: (closed.log_in(one.email), closed.log_in(one.email)) for name, one in people.items()}
    shown: dict[tuple[str, str], Fields] = {}
    for name, person in people.items():
        for number, session in enumerate(sessions[name]):
            shown[name, str(number)] = bearer(session["access_token"])
        shown[name, "cookie"] = by_cookie(closed.cookie(person))
        shown[name, "key"] = bearer(closed.api_key(person, "read"))
    assert {way(fields) for way in ways for fields in shown.values()} == {200}

    second = f"/auth/sessions/{sessions['one session'][1]['session_id']}"
    for method, path, body, fields in (
        ("POST", f"/users/{people['disabled'].id}/disable", None, admin),
        ("DELETE", second, None, shown["one session", "0"]),
        ("DELETE", f"/users/{people['sessions'].id}/sessions", None, admin),
        ("POST", "/auth/logout-all", None, shown["out", "0"]),
        ("PUT", f"/users/{people['demoted'].id}", {"roles": ["user"]}, admin),
    ):
        assert system.request(method, path, body, headers=fields).status == 200, path
    demoted = {what: shown.pop(("demoted", what)) for what in ("0", "1", "cookie", "key")}
    kept = {("one session", what) for what in ("0", "cookie", "key")} | {("sessions", "key"), ("out", "key")}
    refused_everywhere(ways, {one: fields for one, fields in shown.items() if one not in kept} | demoted, {401, 403})
    # The others stay, and what is turned into tokens is turned into such with the new roles, without another login.
    assert {way(shown[one]) for way in ways for one in kept} == {200}
    again = bearer(closed.refresh(sessions["demoted"][0]).data["access_token"])
    assert {way(demoted[what]) for way in ways for what in ("0", "1")} == {401}
    assert {way(fields) for way in ways for fields in (again, demoted["cookie"], demoted["key"])} == {403}
    for name, number in (("disabled", 0), ("one session", 1), ("sessions", 0), ("out", 1)):
        assert closed.refresh(sessions[name][number]).status == 401, name
    assert closed.refresh(sessions["one session"][0]).status == 200


def test_refreshes_at_once_through_four_processes_give_one_successor_and_a_replay_ends_the_session_everywhere(
    closed: ClosedSystem, four: GatewayServer, ways: list[Way]
) -> None:
    session = closed.log_in(closed.person("auditor").email)

    def refresh(token: str) -> RawAnswer:
        body = json.dumps({"refresh_token": token}).encode()
        return four.client.request("POST", "/auth/refresh", body, fields=(("Content-Type", "application/json"),))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(refresh, [session["refresh_token"]] * 32))
    assert {answer.status for answer in answers} == {200}
    (successor,) = {answer.body for answer in answers}
    first = json.loads(successor)["data"]
    second = refresh(first["refresh_token"]).json["data"]
    tokens = {str(at): bearer(one["access_token"]) for at, one in enumerate((session, first, second))}
    assert {way(fields) for way in ways for fields in tokens.values()} == {200}
    # Two steps back: somebody else has it.
    assert refresh(session["refresh_token"]).status == 401
    refused_everywhere(ways, tokens)
    assert refresh(second["refresh_token"]).status == 401


def test_no_process_that_remembers_a_good_token_takes_a_forged_one(closed: ClosedSystem, ways: list[Way]) -> None:
    good = closed.token(closed.person("auditor"))
    head, claims, signature = good.split(".")
    forged = [f"{good}=", f"{head}.{claims}.{signature[::-1]}", tampered(good), unsigned(good)]
    for way in ways:
        assert way(bearer(good)) == 200
        assert {way(bearer(one)) for one in forged} == {401}
        assert way(bearer(good)) == 200


def test_who_is_invited_or_has_forgotten_a_password_sets_one_by_a_link_that_comes_by_mail(
    closed: ClosedSystem, mails: MailServer
) -> None:
    system, email = closed.system, f"{uuid4().hex}@example.com"
    user_id = system.post("/users", {"email": email, "name": "Нина"}, headers=closed.admin).data["id"]
    invite = {"purpose": "invitation", "mail": True}
    assert system.post(f"/users/{user_id}/link", invite, headers=closed.admin).data["token"] is None
    for number, purpose in enumerate(("invitation", "reset")):
        if purpose == "reset":
            assert system.post("/auth/forgot", {"email": email.upper()}).status == 202
        eventually(
            lambda number=number: [one.recipients for one in mails.taken][number:] == [[email]], what="a mail is there"
        )
        sent = mails.taken[-1]
        assert (sent.encrypted, sent.user) == (True, "robot")
        shown = re.search(rf"^{PUBLIC_URL}/console#/link/{purpose}/(\S+)", sent.message.get_content(), re.MULTILINE)
        assert shown is not None
        chosen = {"token": shown[1], "password": f"{PASSWORD}, {purpose}"}
        assert [system.post("/auth/reset", chosen).status for _ in range(2)] == [200, 400]
        me = system.get("/auth/me", headers=bearer(closed.log_in(email, chosen["password"])["access_token"])).data
        assert (me["id"], me["must_change_password"]) == (user_id, False)
    assert system.post("/auth/login", {"email": email, "password": f"{PASSWORD}, invitation"}).status == 401


def test_a_task_outlives_its_owners_logout_and_ends_with_its_owners_right_to_it(closed: ClosedSystem) -> None:
    system, owner = closed.system, closed.person()
    fields = bearer(closed.log_in(owner.email)["access_token"])
    tasks = [
        system.post("/tasks", {"user_id": owner.id, **body}, headers=fields).data["id"]
        for body in ({"task_type": "io", "payload": {"seconds": 100}}, {"execute_at": "2099-01-01T00:00:00Z"})
    ]

    def shown() -> list[tuple[str, str | None]]:
        answers = [system.get(f"/tasks/{id}", headers=closed.admin).data for id in tasks]
        return [(task["status"], task["error"]) for task in answers]

    eventually(lambda: shown()[0][0] == "processing", what="the worker has begun")
    assert system.post("/auth/logout", headers=fields).status == 200
    eventually(lambda: system.get("/auth/me", headers=fields).status == 401, timeout=5, what="the owner is out")
    assert shown() == [("processing", None), ("pending", None)]
    assert system.post(f"/users/{owner.id}/disable", headers=closed.admin).status == 200
    cancelled = ("cancelled", "the user was disabled")
    eventually(lambda: shown() == [cancelled, cancelled], what="the tasks have ended")


def test_the_seed_makes_somebody_with_each_role_who_can_log_in_and_data_of_several_people(
    closed: ClosedSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in (("USERS", 3), ("ORDERS", 20), ("TASKS", 3)):
        monkeypatch.setattr(seeding, name, few)
    # Takes more people than these.
    monkeypatch.setattr(seeding, "create_sites", lambda *_: None)
    system, file = closed.system, closed.system.data / "secrets" / "seeded"
    for _ in range(2):
        assert seeding.main(["--data", str(system.data)]) == 0
        assert (file.stat().st_mode & 0o777, str(file) in capsys.readouterr().out) == (0o600, True)
    lines = [line.split(maxsplit=2) for line in file.read_text().splitlines()]
    assert [who for _, _, who in lines] == [
        "administrator", "auditor", "user", "manager of Tower A", "engineer of Tower A",
    ], "as far as these few go"  # fmt: skip
    seeded = {email: password for email, password, _ in lines}
    sessions = {email: closed.log_in(email, password) for email, password in seeded.items()}
    roles, orders = {}, {}
    for email, session in sessions.items():
        fields = bearer(session["access_token"])
        roles[email] = system.get("/auth/me", headers=fields).data["roles"]
        orders[email] = system.get("/orders?limit=1", headers=fields).data["total"]
    assert list(roles.values())[:3] == [["admin"], ["auditor"], ["user"]]
    assert 0 < orders["seed.user@example.com"] < orders["seed.auditor@example.com"]
    assert seeding.main(["--url", system.url]) == 1
    assert "people log in there" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{seeded['seed.admin@example.com']}\n"))
    assert seeding.main(["--url", system.url, "--login", "seed.admin@example.com"]) == 0
    assert "users 3/3, 3 of them already there" in capsys.readouterr().out


#: Something that a user reads of each service, by its name.
PAGES = {"users": "/auth/me", "orders": "/orders?limit=1", "tasks": "/tasks?limit=1"}


@pytest.mark.big
@pytest.mark.parametrize("stopped", ["orders", "tasks"])
def test_a_service_is_stopped_and_who_has_logged_in_uses_the_others(
    closed: ClosedSystem, ways: list[Way], stopped: str
) -> None:
    person = closed.person()
    shown = [
        bearer(closed.log_in(person.email)["access_token"]),
        by_cookie(closed.cookie(person)),
        bearer(closed.api_key(person, "read")),
    ]
    asked = [(way, fields) for way in ways for fields in shown]
    assert {way(fields, page) for way, fields in asked for page in PAGES.values()} == {200}
    closed.system.cli("stop", stopped)
    try:
        for _ in range(10):
            seen = {(name, way(fields, page)) for way, fields in asked for name, page in PAGES.items()}
            assert seen == {(name, 503 if name == stopped else 200) for name in PAGES}
    finally:
        closed.system.cli("start", stopped)
    eventually(
        lambda: {way(fields, PAGES[stopped]) for way, fields in asked} == {200}, timeout=30, what=f"{stopped} is back"
    )


@pytest.mark.big
def test_users_away_for_longer_than_a_token_lives_leaves_in_whoever_was_in_and_out_whoever_was_out(
    closed: ClosedSystem, ways: list[Way], four: GatewayServer
) -> None:
    system, person, gone = closed.system, closed.person(), closed.person()
    session = closed.log_in(person.email)
    ended = bearer(closed.log_in(gone.email)["access_token"])
    cookie, key = by_cookie(closed.cookie(person)), bearer(closed.api_key(person, "read"))
    ports = closed.ports
    straight: list[Way] = [
        lambda fields, page, port=ports[name]: RawClient(port).get(page, *fields.items()).status
        for name in ("orders", "tasks")
    ]
    assert system.post("/auth/logout", headers=ended).status == 200
    refused_everywhere(ways, {"ended": ended})
    assert {way(fields, PAGES["tasks"]) for way in ways for fields in (cookie, key)} == {200}

    def everybody_stays_where_they_are(gateways: list[Way], inside: list[Fields]) -> None:
        assert {way(fields, PAGES["tasks"]) for way in gateways for fields in inside} == {200}
        assert {way(ended, PAGES["tasks"]) for way in gateways} == {401}
        unknown = bearer(new_api_key())
        assert {way(unknown, PAGES["tasks"]) for way in gateways} == {503}, "nobody can tell"
        for way, name in zip(straight, ("orders", "tasks"), strict=True):
            assert way(last, PAGES[name]) == 200

    system.cli("stop", "users")
    try:
        # As long as it lives otherwise, it outlives the users service by some seconds.
        lived = time.time()
        last = bearer(closed.token(person, ago=LIFETIME - 10))
        until = lived + 10 + SKEW + 5
        while time.time() < until:
            everybody_stays_where_they_are(ways, [last, cookie, key])
        # The next process knows what this one knew, of tokens; what stands for one has to be asked for.
        system.cli("restart", "gateway")
        instance = [ways[0]]
        everybody_stays_where_they_are(instance, [last])
        assert {way(fields, PAGES["tasks"]) for way in instance for fields in (cookie, key)} == {503}
    finally:
        system.cli("start", "users")
    tokens = eventually(
        lambda: reply.data if (reply := closed.refresh(session)).status == 200 else None, timeout=30, what="a refresh"
    )
    again = bearer(tokens["access_token"])
    eventually(
        lambda: {way(fields, PAGES["tasks"]) for way in ways for fields in (again, cookie, key)} == {200},
        timeout=30,
        what="everybody is in again",
    )
    assert {way(ended, PAGES["tasks"]) for way in ways} == {401}
    eventually(
        lambda: {way(last, PAGES["tasks"]) for way in ways} == {401}, timeout=60, what="it could have been renewed"
    )


class Planted:
    """Secrets of every kind, and what they were shown to with every mistake that we can think of."""

    def __init__(self, closed: ClosedSystem) -> None:
        self.closed, self.answers = closed, list[RawAnswer]()
        system, person = closed.system, closed.person()
        session = closed.log_in(person.email)
        mine = bearer(session["access_token"])
        factor = system.post("/auth/factors", {"name": "Phone"}, headers=mine).data
        code = one_time_code(base64.b32decode(factor["secret"]), int(time.time()) // 30)
        confirmed = system.post(f"/auth/factors/{factor['id']}/confirm", {"code": code}, headers=mine).data
        browsing, program = closed.person(), closed.person()
        purpose = {"purpose": "reset"}
        #: Those that somebody may send to us.
        self.shown = {
            "password": PASSWORD,
            "mistyped password": "eight green mixers at dawn",
            "access token": session["access_token"],
            "refresh token": session["refresh_token"],
            "device token": session["device_token"],
            "recovery code": confirmed["recovery_codes"][0],
            "secret of an app": factor["secret"],
            "pending login": closed.log_in(person.email)["pending_token"],
            "cookie": closed.cookie(browsing),
            "API key": closed.api_key(program, "read"),
            "link": system.post(f"/users/{program.id}/link", purpose, headers=closed.admin).data["token"],
            "the gateway's token": closed.secret("gateway_token"),
            "the services' token": closed.secret("internal"),
        }
        passwords = {file.name: file.read_text().strip() for file in (system.data / "secrets").iterdir()}
        self.secrets = {**self.shown, **passwords, "signing key": json.loads(closed.signing_key.secret())["d"]}

    def ask(self, port: int, method: str, path: str, body: bytes | None = None, **fields: str) -> None:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        # A process that was just killed may not be there.
        with suppress(OSError):
            self.answers.append(RawClient(port).request(method, path, body, fields=tuple(named.items())))

    def show_in_fields(self) -> None:
        """To every process that listens, right or wrong."""
        for port in self.closed.ports.values():
            for secret in self.shown.values():
                for path in ("/auth/me", "/users", "/orders", "/tasks", "/internal/exchange", "/nothing"):
                    self.ask(port, "GET", path, Authorization=f"Bearer {secret}", Cookie=f"siteworks={secret}")
                self.ask(port, "POST", "/orders", b"{", Authorization=f"Basic {secret}", X_Act_As=secret)

    def show_in_bodies(self, port: int) -> None:
        """In all that are meant for secrets: whole, of another shape, and cut off."""
        for secret in self.shown.values():
            for path, names in (
                ("/auth/login", ("email", "password", "device_token", "session")),
                ("/auth/login/code", ("pending_token", "code")),
                ("/auth/refresh", ("refresh_token",)),
                ("/auth/reset", ("token", "password")),
                ("/auth/email/confirm", ("token",)),
                ("/internal/exchange", ("kind", "credential")),
            ):
                for value in (secret, [secret], {secret: 1}, secret * 30):
                    self.ask(port, "POST", path, json.dumps(dict.fromkeys(names, value)).encode())
                self.ask(port, "POST", path, f'{{"{names[0]}": "{secret}'.encode())
                self.ask(port, "POST", path, secret.encode(), Content_Type="text/plain")

    def metrics_of(self, name: str) -> str:
        """Empty while nobody answers."""
        log = self.closed.system.data / "logs" / f"{name}.log"
        found = re.findall(r"worker_pages +port=(\d+)", log.read_text()) if name.startswith("worker") else []
        with suppress(OSError):
            answer = RawClient(int(found[-1]) if found else Ports(self.closed.system.port)[name]).get(
                "/metrics", *self.closed.admin.items()
            )
            return answer.body.decode() if answer.status == 200 else ""
        return ""

    def places(self) -> Iterator[tuple[str, str]]:
        """Everything that people or programs can read later."""
        system = self.closed.system
        for file in (*(system.data / "logs").iterdir(), *(system.data / "identity").iterdir()):
            yield file.name, file.read_text(errors="replace")
        yield "the error answers", "\n".join(answer.body.decode() for answer in self.answers if answer.status >= 400)
        yield "what was printed", system.printed
        processes = [psutil.Process(int(one["pid"])) for one in system.status().values()]
        family = {child for one in processes for child in (one, *one.children(recursive=True))}
        lines = list[str]()
        for one in family:
            with suppress(psutil.NoSuchProcess):  # workers of PostgreSQL's end by themselves
                lines.append(" ".join(one.cmdline()))
        yield "the command lines", "\n".join(lines)
        for name in (*self.closed.ports, "relay", "worker-1"):
            # Whoever was killed, or has lost the database, is on the way back.
            yield f"the metrics of {name}", eventually(lambda name=name: self.metrics_of(name), timeout=60, what=name)
        yield "the audit", json.dumps(system.get("/audit?limit=100", headers=self.closed.admin).data)
        for name in services():
            url = f"postgresql://postgres:{self.closed.secret('postgres')}@127.0.0.1:{system.port + 5}/{name}"
            yield f"the database {name}", everything_in(url)


def everything_in(url: str) -> str:
    """Every row of a database, as text."""
    copied = io.StringIO()
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in cursor.fetchall():
                cursor.copy_expert(f"COPY (SELECT * FROM {table}) TO STDOUT", copied)
    finally:
        connection.close()
    return copied.getvalue()


def test_no_secret_that_was_planted_is_found_anywhere(closed: ClosedSystem) -> None:
    planted, system = Planted(closed), closed.system
    planted.show_in_fields()
    for name in ("gateway", "users"):
        planted.show_in_bodies(closed.ports[name])
    admin = closed.admin
    # Services that fail while they hold one: the database is away, and one of them is killed.
    pids = {name: system.kill(name) for name in ("postgres", "orders")}
    for port in closed.ports.values():
        planted.ask(port, "GET", "/orders", **admin)
        planted.ask(port, "GET", "/users", **admin)
    for name, pid in pids.items():
        system.wait_until_replaced(name, pid)
    for path in ("/users", "/orders", "/tasks"):
        answers = lambda path=path: system.get(path, headers=closed.admin).status == 200  # noqa: E731
        eventually(answers, timeout=30, what=f"{path} answers again")

    places = dict(planted.places())
    assert len(planted.answers) > 1000
    assert places["users.log"].count("request") > 100
    assert len(planted.secrets) > 20
    found = {
        (what, where)
        for what, secret in planted.secrets.items()
        for form in forms_of(secret)
        for where, text in places.items()
        if form in text
    }
    assert found == set()


def secured(port: int) -> dict[str, set[str]]:
    """By what the document says that each operation of the table may be asked for."""
    paths = RawClient(port).get("/openapi.json").json["paths"]
    found = {
        f"{method.upper()} {path}": {scheme for one in operation.get("security", []) for scheme in one}
        for path, item in paths.items()
        for method, operation in item.items()
    }
    return {name: schemes for name, schemes in found.items() if name in ROWS}


#: Lists, by the field that says whose a row is; each is asked for by each of these queries.
LISTS = {
    "users": ("id", ("", "q=worker", "role=user", "sort=-name")),
    "orders": ("user_id", ("", "status=cancelled", "product=product 1", "sort=-total_amount")),
    "tasks": ("user_id", ("", "status=cancelled", "task_type=io")),
    "schedules": ("user_id", ("", "status=paused")),
}


def test_each_of_twenty_people_gets_the_whole_truth_of_their_own_and_of_nobody_elses(closed: ClosedSystem) -> None:
    system, admin, chance = closed.system, closed.admin, random.Random(20)
    fields: dict[str, Fields] = {}
    for number in range(20):
        body = {"email": f"{uuid4().hex}@example.com", "name": f"Worker {number}"}
        person = Person(system.post("/users", body, headers=admin).data["id"], body["email"], "user")
        mine = fields[person.id] = bearer(closed.token(person))
        for _ in range(chance.randrange(4)):
            items = [{"product": f"product {chance.randrange(3)}", "quantity": 1, "price": chance.randrange(1, 9)}]
            order = system.post("/orders", {"user_id": person.id, "items": items}, headers=mine).data
            if chance.random() < 0.5:
                system.put(f"/orders/{order['id']}", {"status": "cancelled"}, headers=mine)
        later = [
            {"task_type": chance.choice(["noop", "io"]), "execute_at": "2099-01-01T00:00:00Z"}
            for _ in range(chance.randrange(1, 6))
        ]
        made = system.post("/tasks/batch", {"tasks": later}, headers=mine).data["ids"]
        for task_id in made[: len(made) // 2]:
            assert system.delete(f"/tasks/{task_id}", headers=mine).status == 200
        schedule = system.post("/schedules", {"name": person.id, "every": 3600}, headers=mine).data
        if chance.random() < 0.5:
            assert system.post(f"/schedules/{schedule['id']}/pause", headers=mine).status == 200

    def listed(who: Fields, name: str, query: str) -> list[dict]:
        rows: list[dict] = []
        after = ""
        while True:
            page = system.get(f"/{name}?limit=100&{query}{after}", headers=who).data
            rows += page[name]
            if page.get("next") is None:
                assert page["total"] == len(rows)
                return rows
            after = f"&after={page['next']}"

    for name, (owner, queries) in LISTS.items():
        for query in queries:
            truth = listed(admin, name, query)
            assert {row[owner] for row in truth} & fields.keys(), "there is something to be seen"
            for user_id, mine in fields.items():
                assert listed(mine, name, query) == [row for row in truth if row[owner] == user_id], (name, query)
    tasks = listed(admin, "tasks", "")
    others = closed.person()
    for user_id, mine in fields.items():
        truth = Counter(task["status"] for task in tasks if task["user_id"] == user_id)
        counts = system.get("/tasks/stats", headers=mine).data["counts"]
        assert {status: count for status, count in counts.items() if count} == truth
        assert system.get(f"/users/{user_id}/tasks", headers=mine).data["total"] == truth.total()
        assert system.get(f"/users/{others.id}/tasks", headers=mine).data["total"] == 0
    for task in tasks:
        seen = {
            whose: system.get(f"/tasks/{task['id']}/events", headers=fields[whose]).status
            for whose in list(fields)[:2]
            if task["user_id"] != whose
        }
        assert {*seen.values()} <= {404}


def documented(port: int) -> list[str]:
    """The operations of an /openapi.json that the table has rows for; those that end a login come last."""
    paths = RawClient(port).get("/openapi.json").json["paths"]
    found = [
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method in item
        if method not in ("patch", "parameters") and not path.startswith("/internal/") and not path.endswith("/details")
    ]
    return sorted(found, key=lambda one: "/auth/logout" in one)
