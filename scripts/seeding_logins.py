"""Who logs in to a seeded instance: somebody with each role, and their passwords.

Made from the machine itself, as ./scripts/create-admin does: whoever may read the instance's secrets needs no login.
"""

from __future__ import annotations

import secrets
import sys
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


def log_in(gateway: GatewayClient, layout: Layout) -> list[str]:
    """Make the people, show their passwords, and log in as the administrator; return the ids of those who may own
    something. Each run makes new passwords."""
    from scripts.instance.databases import database_server
    from scripts.instance.programs import database_urls
    from service_users.accounts.create_admin import make_admin

    passwords = {email: secrets.token_urlsafe(18) for email in (ADMINISTRATOR, *(one[0] for one in _OTHERS))}
    with database_server(layout, "./scripts/seed") as server:
        url = database_urls(server, Credentials(layout.secrets))["users"]
        make_admin(url, ADMINISTRATOR, name="Seed Administrator", password=passwords[ADMINISTRATOR])
    gateway.log_in(ADMINISTRATOR, passwords[ADMINISTRATOR])
    owners = [str(gateway.call("GET", "/auth/me")[1]["id"])]
    for email, name, role in _OTHERS:
        user_id = gateway.user(email, name, [role])[1]
        _, link = gateway.call("POST", f"/users/{user_id}/link", {"purpose": "reset"})
        gateway.call("POST", "/auth/reset", {"token": link["token"], "password": passwords[email]})
        if role == "user":
            owners.append(user_id)
    _show(passwords, layout)
    return owners


def _show(passwords: dict[str, str], layout: Layout) -> None:
    lines = "".join(f"{email} {password}\n" for email, password in passwords.items())
    if sys.stdout.isatty():
        print(f"Who may log in, with passwords that are shown only now:\n{lines}", end="", flush=True)
        return
    file = layout.secrets / "seeded"
    write_whole(file, lines.encode())
    print(f"Who may log in, with their passwords, is in {file}, which only its owner can read.", flush=True)
