"""The sites service over HTTP on a real database, asked by whomever a test wants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from sqlalchemy import insert

from service_sites import tables
from service_sites.app import public_routes
from service_sites.errors import PeopleUnavailable
from service_sites.users_client import Person
from servicekit.identity.principal import LOCAL, Principal
from servicekit.identity.roles import Role
from servicekit.process.clock import Clock, utc_now
from servicekit.web.app import make_app
from tests.support.postgres import ServiceDatabase

OURS, THEIRS = "ООО «Ромашка»", "ООО «Лютик»"
#: Who may work on a site: their role and organisation.
PEOPLE = {
    "Анна": "engineer/Технадзор",
    "Борис": "engineer/Технадзор",
    "Вера": "manager/Технадзор",
    "Глеб": "executive/Технадзор",
    "Дина": "customer/Заказчик",
    "Егор": f"contractor/{OURS}",
    "Жанна": f"contractor/{OURS}",
    "Зоя": f"contractor/{THEIRS}",
}


class Directory:
    """The people who have accounts."""

    def __init__(self) -> None:
        self.by_email: dict[str, Person] = {}
        self.is_away = False
        self.asked = 0

    def find(self, *, email: str | None = None, id: UUID | None = None) -> Person | None:
        self.asked += 1
        if self.is_away:
            raise PeopleUnavailable(retry_after=1)
        known = {person.id: person for person in self.by_email.values()}
        return self.by_email.get(email.lower()) if email is not None else known.get(id) if id is not None else None

    def add(self, name: str) -> Person:
        person = Person(uuid4(), name)
        self.by_email[f"{name.lower()}@example.com"] = person
        return person


@dataclass(frozen=True)
class Reply:
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The data, or the error."""
        read = json.loads(self.raw)
        return read.get("data", read.get("error"))

    @property
    def code(self) -> str:
        return str(self.body["code"])


@dataclass(frozen=True)
class Caller:
    """The service, asked by one person; without an id by the machine's own, as where nobody logs in."""

    app: Flask
    user_id: UUID | None
    role: Role = Role.USER

    @property
    def principal(self) -> Principal:
        return LOCAL if self.user_id is None else Principal(self.user_id, self.role)

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        fields["Authorization"] = f"{self.role.value} {self.user_id}"
        answer = self.app.test_client().open(path, method=method, json=body, headers=fields)
        return Reply(answer.status_code, answer.headers, answer.data)

    def data(self, method: str, path: str, body: Any = None, **headers: str | None) -> Any:
        """What a successful answer has."""
        answer = self.ask(method, path, body, **headers)
        assert answer.status < 300, answer
        return answer.body

    def refusal(self, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, str]:
        """Status and code of a refusal."""
        answer = self.ask(method, path, body, **headers)
        assert answer.status >= 400, answer
        return answer.status, answer.code


class SitesSystem:
    """The service, its directory, and who asks."""

    def __init__(self, database: ServiceDatabase, secret: str = "", clock: Clock = utc_now, reports: int = 4) -> None:
        self.database = database
        self.directory = Directory()
        routes = public_routes(database.database, self.directory, secret, reports_at_once=reports, clock=clock)
        self.app: Flask = make_app("service_sites", routes=routes, checks={}, identify=_identify)
        self.local = Caller(self.app, None, Role.ADMIN)
        self.admin = Caller(self.app, self.directory.add("Root").id, Role.ADMIN)
        self.auditor = Caller(self.app, self.directory.add("Eye").id, Role.AUDITOR)
        self.stranger = self.caller("Stranger")

    def caller(self, name: str) -> Caller:
        """Somebody of this name with an account."""
        person = self.directory.by_email.get(f"{name.lower()}@example.com") or self.directory.add(name)
        return Caller(self.app, person.id)

    def site(self, key: str | None = None, people: Mapping[str, str] | None = None, **columns: Any) -> Site:
        """A site on which nothing has happened, and its people by their names, each with a role and perhaps, after a
        slash, an organisation. If none of them is a manager, Mara is."""
        people = people or {}
        if not any(what.startswith("manager") for what in people.values()):
            people = {"Mara": "manager", **people}
        site_id, now = uuid4(), utc_now()
        key = key or "K" + site_id.hex[:9].upper()
        values = {"id": site_id, "key": key, "name": key.title(), "time_zone": "Europe/Moscow", "calendar": None}
        values |= {"deadline_rules": {}, "next_number": 1, "change_seq": 0, "created_at": now, "updated_at": now}
        callers = {name: self.caller(name) for name in people}
        with self.database.database.transaction() as session:
            session.execute(insert(tables.Site).values(values | columns))
            for name, what in people.items():
                role, _, organisation = what.partition("/")
                member = {"site_id": site_id, "user_id": callers[name].user_id, "name": name, "role": role}
                member |= {"organisation": organisation, "position": "", "disabled": False, "changed_seq": 0}
                session.execute(insert(tables.Membership).values(**member, created_at=now, updated_at=now))
        return Site(self, site_id, callers)


@dataclass(frozen=True)
class Site:
    """A site with its people by their names."""

    system: SitesSystem
    id: UUID
    people: Mapping[str, Caller]

    def __getitem__(self, name: str) -> Caller:
        """One of its people, or "admin", "auditor", "stranger" or "local"."""
        return self.people[name] if name in self.people else getattr(self.system, name)

    @property
    def ids(self) -> Mapping[str, UUID | None]:
        return {name: self[name].user_id for name in (*self.people, "admin", "auditor", "stranger", "local")}

    @property
    def path(self) -> str:
        return f"/sites/{self.id}"

    @property
    def database(self) -> ServiceDatabase:
        return self.system.database

    def rows(self, statement: str, **values: Any) -> list[Any]:
        return self.database.database.once(statement, values, with_names=True)


def _identify(authorization: str | None) -> Principal:
    role, _, user_id = (authorization or "").partition(" ")
    return LOCAL if user_id == "None" else Principal(UUID(user_id), Role(role))
