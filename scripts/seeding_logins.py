"""Who logs in to a seeded instance: somebody with each role, there and on a site, and their passwords.

Made from the machine itself, as ./scripts/create-admin does: whoever may read the instance's secrets needs no login.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scripts.instance.credentials import Credentials
from scripts.instance.layout import Layout
from servicekit.process.files import write_whole

if TYPE_CHECKING:
    from scripts.seeding import GatewayClient

ADMINISTRATOR = "seed.admin@example.com"
#: Address, name and role.
_OTHERS = (
    ("seed.auditor@example.com", "Аудитор Тест", "auditor"),
    ("seed.user@example.com", "Ursula User", "user"),
)


class Logins:
    """Those who log in. Each run makes new passwords."""

    def __init__(self, gateway: GatewayClient, layout: Layout) -> None:
        """Make an administrator, be them from now on, and make somebody with each other role."""
        from scripts.instance.databases import database_server
        from scripts.instance.programs import database_urls
        from service_users.accounts.create_admin import make_admin

        self._gateway, self._layout = gateway, layout
        password = secrets.token_urlsafe(18)
        with database_server(layout, "./scripts/seed") as server:
            url = database_urls(server, Credentials(layout.secrets))["users"]
            make_admin(url, ADMINISTRATOR, name="Seed Administrator", password=password)
        self._lines = [f"{ADMINISTRATOR} {password} administrator"]
        gateway.log_in(ADMINISTRATOR, password)
        #: The ids of those who may own something.
        self.owners = [str(gateway.call("GET", "/auth/me")[1]["id"])]
        for email, name, role in _OTHERS:
            user_id = gateway.user(email, name, [role])[1]
            self._give(email, user_id, role)
            if role == "user":
                self.owners.append(user_id)

    def give_to_people_of_a_site(self, user_ids: Sequence[str]) -> None:
        """Give a password to one of each role on the first site, of the users in the order of `PEOPLE`."""
        from scripts.seeding import PEOPLE
        from scripts.seeding_sites import PLANS

        first: dict[str, int] = {}
        for place, role, _ in PLANS[0].people:
            first.setdefault(role, place)
        for role, place in first.items():
            if place < len(user_ids):
                self._give(f"{PEOPLE[place][1]}@example.com", user_ids[place], f"{role} of {PLANS[0].name}")

    def _give(self, email: str, user_id: str, who: str) -> None:
        password = secrets.token_urlsafe(18)
        _, link = self._gateway.call("POST", f"/users/{user_id}/link", {"purpose": "reset"})
        self._gateway.call("POST", "/auth/reset", {"token": link["token"], "password": password})
        self._lines.append(f"{email} {password} {who}")

    def show(self) -> None:
        """On a terminal, or else in a file."""
        lines = "".join(f"{line}\n" for line in self._lines)
        if sys.stdout.isatty():
            print(f"Who may log in, with passwords that are shown only now:\n{lines}", end="", flush=True)
            return
        file = self._layout.secrets / "seeded"
        write_whole(file, lines.encode())
        print(f"Who may log in, with their passwords, is in {file}, which only its owner can read.", flush=True)
