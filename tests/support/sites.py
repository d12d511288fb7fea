"""The sites service over HTTP on a real database, asked by whomever a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service_sites.app import public_routes
from service_sites.errors import PeopleUnavailable
from service_sites.users_client import Person
from servicekit.database.engine import Database
from servicekit.identity.principal import LOCAL, Principal
from servicekit.identity.roles import Role
from servicekit.web.app import make_app


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
class Caller:
    """The service, asked by one person."""

    client: FlaskClient
    user_id: UUID | None
    role: Role = Role.USER

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields["Authorization"] = f"{self.role.value} {self.user_id}"
        return self.client.open(path, method=method, json=body, headers=fields)

    def data(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What a successful answer has."""
        answer = self.ask(method, path, body, **headers)
        assert answer.status_code < 300, answer.json
        return answer.json["data"]

    def refusal(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and code of a refusal."""
        answer = self.ask(method, path, body, **headers)
        assert answer.status_code >= 400, answer.json
        return answer.status_code, answer.json["error"]["code"]


class SitesSystem:
    """The service, its directory, and who asks."""

    def __init__(self, database: Database, secret: str = "of the service") -> None:
        self.directory = Directory()
        routes = public_routes(database, self.directory, secret)
        self.app: Flask = make_app("service_sites", routes=routes, checks={}, identify=_identify)
        self.client = self.app.test_client()
        #: As everybody is where nobody logs in.
        self.local = Caller(self.client, None, Role.ADMIN)
        self.admin = Caller(self.client, self.directory.add("Root").id, Role.ADMIN)
        self.auditor = Caller(self.client, self.directory.add("Eye").id, Role.AUDITOR)
        self.stranger = Caller(self.client, self.directory.add("Stranger").id)

    def caller(self, name: str) -> Caller:
        """Somebody of this name with an account."""
        person = self.directory.by_email.get(f"{name.lower()}@example.com") or self.directory.add(name)
        return Caller(self.client, person.id)

    def site(self, key: str = "NORTH", people: Mapping[str, str] | None = None, **fields: Any) -> Site:
        """A site whose manager is Mara, and further people by their names, each with a role and perhaps, after a slash,
        an organisation."""
        mara = self.caller("Mara")
        wanted = {"key": key, "name": key.title(), "time_zone": "Europe/Moscow", **fields}
        made = self.admin.data("POST", "/sites", {**wanted, "manager": {"user_id": str(mara.user_id)}})
        path = f"/sites/{made['id']}"
        callers = {"Mara": mara}
        for name, what in (people or {}).items():
            role, _, organisation = what.partition("/")
            callers[name] = self.caller(name)
            body = {"user_id": str(callers[name].user_id), "role": role, "organisation": organisation}
            mara.data("POST", f"{path}/members", body)
        return Site(UUID(made["id"]), path, callers)


@dataclass(frozen=True)
class Site:
    """A site with its people by their names."""

    id: UUID
    path: str
    people: Mapping[str, Caller]

    def __getitem__(self, name: str) -> Caller:
        return self.people[name]


def _identify(authorization: str | None) -> Principal:
    role, _, user_id = (authorization or "").partition(" ")
    return LOCAL if user_id == "None" else Principal(UUID(user_id), Role(role))
