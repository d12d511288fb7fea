"""A running instance where people log in, and whatever else is shown instead of a login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.instance.closing import ADMINISTRATOR
from scripts.instance.ports import Ports
from service_users.accounts.signing import SigningKeys
from service_users.auth_key import AuthKey
from servicekit.database.engine import Database
from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import AUDIENCE, LIFETIME, TokenIssuer
from servicekit.process.ids import new_id
from servicekit.process.services import services
from servicekit.process.settings import CallerSettings
from tests.support.gateway import GatewayServer
from tests.support.system import Reply, RunningSystem

PASSWORD = "seven brown cranes at noon"
ISSUER = str(CallerSettings.model_fields["auth_issuer"].default)
#: Of the tokens that are made here: no change of rights makes one of them old.
EPOCH = 2**30
#: By which a browser says that a page of ours asks.
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}

Fields = dict[str, str]


def bearer(text: str) -> Fields:
    return {"Authorization": f"Bearer {text}"}


def by_cookie(cookie: str) -> Fields:
    return {"Cookie": f"siteworks={cookie}", **SAME_SITE}


@dataclass(frozen=True)
class Person:
    """Somebody with a password."""

    id: str
    email: str
    role: str


class ClosedSystem:
    """An instance that asks for a login: its people, and the tokens that they or others show."""

    def __init__(self, system: RunningSystem) -> None:
        self.system = system
        self._admin: Fields = {}
        self._admin_until = float("-inf")
        self._key: SigningKey | None = None

    @property
    def ports(self) -> dict[str, int]:
        """Of the gateway, every service and the event streams."""
        ports = Ports(self.system.port)
        return {name: ports[name] for name in ("gateway", *services(), "events")}

    def secret(self, name: str) -> str:
        return (self.system.data / "secrets" / name).read_text().strip()

    @property
    def admin(self) -> Fields:
        """The administrator's, of a login that has more than half of its life before it."""
        if time.monotonic() > self._admin_until:
            self._admin_until = time.monotonic() + LIFETIME / 2
            self._admin = bearer(self.log_in(ADMINISTRATOR, self.secret("administrator"))["access_token"])
        return self._admin

    def log_in(self, email: str, password: str = PASSWORD, **more: str) -> dict[str, Any]:
        reply = self.system.post("/auth/login", {"email": email, "password": password, **more})
        data: dict[str, Any] = reply.data
        return data

    def cookie(self, person: Person) -> str:
        """A browser's session."""
        body = {"email": person.email, "password": PASSWORD, "session": "cookie"}
        reply = self.system.post("/auth/login", body)
        assert reply.data["access_token"] is None
        # Otherwise the connection, which several people use here, would send it too.
        self.system.forget_cookies()
        return reply.headers["Set-Cookie"].partition("siteworks=")[2].partition(";")[0]

    def person(self, role: str = "user", *, name: str = "Белов Ярослав") -> Person:
        """Somebody new."""
        email = f"{uuid.uuid4().hex}@example.com"
        body = {"email": email, "name": name, "roles": [role]}
        user_id = self.system.post("/users", body, headers=self.admin).data["id"]
        self.invite(user_id)
        return Person(user_id, email, role)

    def invite(self, user_id: str) -> None:
        """Let somebody choose a password: one that the administrator sets has to be changed before anything else."""
        link = self.system.post(f"/users/{user_id}/link", {"purpose": "invitation"}, headers=self.admin).data["token"]
        assert self.system.post("/auth/reset", {"token": link, "password": PASSWORD}).status == 200

    def api_key(self, person: Person, *scopes: str) -> str:
        body = {"name": "a program", "scopes": scopes}
        reply = self.system.post("/auth/keys", body, headers=bearer(self.token(person)))
        return str(reply.data["key"])

    def refresh(self, session: dict[str, Any]) -> Reply:
        return self.system.post("/auth/refresh", {"refresh_token": session["refresh_token"]})

    @property
    def signing_key(self) -> SigningKey:
        """The one of the instance, as only the users service can read it."""
        if self._key is None:
            url = f"postgresql+psycopg2://users:{self.secret('users')}@127.0.0.1:{self.system.port + 5}/users"
            database = Database(url, application_name="tests", pool_size=1)
            try:
                keys = SigningKeys(database, AuthKey.read(self.secret("auth_key")), issuer=ISSUER)
                self._key = keys.issuer()._key
            finally:
                database.dispose()
        return self._key

    def token(
        self,
        person: Person,
        *,
        key: SigningKey | None = None,
        audience: str = AUDIENCE,
        ago: float = 0.0,
        scopes: Sequence[str] | None = None,
    ) -> str:
        """One that the instance might have issued, or almost."""
        issuer = TokenIssuer(key or self.signing_key, issuer=ISSUER, audience=audience, now=lambda: time.time() - ago)
        return issuer.issue(uuid.UUID(person.id), [person.role], session_id=new_id(), epoch=EPOCH, scopes=scopes)

    def another_gateway(self, folder: Path, **settings: str) -> GatewayServer:
        """In front of the same services."""
        urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items() if name != "gateway"}
        login = {"AUTH": "required", "GATEWAY_TOKEN": self.secret("gateway_token"), "AUTH_KEYS_FILE": f"{folder}/keys"}
        return GatewayServer(folder / "log", urls, **login, **settings)


def forms_of(secret: str) -> list[str]:
    """How a text may stand somewhere: as it is, escaped, or encoded."""
    raw = secret.encode()
    # The middle of the base64 at each of the three places where it may begin; an encoding of base64 ends otherwise.
    shifted = [base64.b64encode(b"-" * at + raw + b"---").decode()[4:-8] for at in range(3)]
    return list(dict.fromkeys([secret, quote(secret, safe=""), json.dumps(secret)[1:-1], raw.hex(), *shifted]))


def unsigned(token: str) -> str:
    """The claims of a token under the algorithm `none`."""
    return f"{_segment({'alg': 'none', 'typ': 'at+jwt'})}.{token.split('.')[1]}."


def signed_with_the_public_key(token: str, key: SigningKey) -> str:
    """The claims of a token under HS256, with what everybody knows for its secret (CVE-2022-29217)."""
    message = f"{_segment({'alg': 'HS256', 'kid': key.key_id, 'typ': 'at+jwt'})}.{token.split('.')[1]}"
    return f"{message}.{_base64(hmac.digest(key.public()['x'].encode(), message.encode(), hashlib.sha256))}"


def tampered(token: str) -> str:
    """With other claims under the same signature."""
    head, claims, signature = token.split(".")
    read = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
    changed = re.sub(rb'"roles":\["(user|auditor)"\]', b'"roles":["admin"]', read)
    assert changed != read
    return f"{head}.{_base64(changed)}.{signature}"


def _segment(header: dict[str, str]) -> str:
    return _base64(json.dumps(header, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
