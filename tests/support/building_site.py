"""A building site with its people, and the sites service as they call it, without a gateway or logins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from sqlalchemy import insert

from service_sites.tables import Membership, Site
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.process.clock import utc_now
from servicekit.wire.errors import Unauthorized
from tests.support.postgres import ServiceDatabase

OURS, THEIRS = "ООО «Ромашка»", "ООО «Лютик»"
#: Who works on it: their role and organisation.
PEOPLE = {
    "Анна": ("engineer", "Технадзор"),
    "Борис": ("engineer", "Технадзор"),
    "Вера": ("manager", "Технадзор"),
    "Глеб": ("executive", "Технадзор"),
    "Дина": ("customer", "Заказчик"),
    "Егор": ("contractor", OURS),
    "Жанна": ("contractor", OURS),
    "Зоя": ("contractor", THEIRS),
}


@dataclass(frozen=True)
class Reply:
    status: int
    #: The data, or the error.
    body: Any
    headers: dict[str, str]
    raw: bytes = field(repr=False)

    @property
    def code(self) -> str:
        return self.body["code"]


class BuildingSite:
    """A site, and a way to speak as one of its people, or as "admin", "auditor", "stranger" or "local"."""

    def __init__(self, app: Flask, database: ServiceDatabase, **columns: Any) -> None:
        self.app = app
        self.database = database
        self.id = uuid4()
        self.ids = {name: uuid4() for name in (*PEOPLE, "admin", "auditor", "stranger")}
        now = utc_now()
        values = {"key": "K" + self.id.hex[:9].upper(), "name": "Дом", "time_zone": "Europe/Moscow", "calendar": None}
        values |= {"deadline_rules": {}, "next_number": 1, "change_seq": 0}
        with database.database.transaction() as session:
            session.execute(
                insert(Site).values({**values, "id": self.id, "created_at": now, "updated_at": now, **columns})
            )
            for name, (role, organisation) in PEOPLE.items():
                member = {"site_id": self.id, "user_id": self.ids[name], "role": role, "organisation": organisation}
                member |= {"position": "", "name": name, "disabled": False, "changed_seq": 0}
                session.execute(insert(Membership).values(**member, created_at=now, updated_at=now))

    def call(
        self, who: str, method: str, path: str, body: Any = None, *, if_match: str | None = None, **headers: str
    ) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields["Authorization"] = f"Bearer {who} {self.ids.get(who, '')}"
        if if_match is not None:
            fields["If-Match"] = if_match
        answer = self.app.test_client().open(path, method=method, json=body, headers=fields)
        read = json.loads(answer.data)
        return Reply(answer.status_code, read.get("data", read.get("error")), dict(answer.headers), answer.data)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        return self.database.database.once(statement, values, with_names=True)


def identify(authorization: str | None) -> Principal:
    """Whoever says so."""
    match (authorization or "").split(" "):
        case ["Bearer", "local", _]:
            return Principal(None, Role.ADMIN)
        case ["Bearer", who, user_id]:
            roles: Sequence[str] = (who,) if who in ("admin", "auditor") else ("user",)
            return Principal(UUID(user_id), Role.highest(roles))
    raise Unauthorized
