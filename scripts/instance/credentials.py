"""The instance's passwords: made once, kept in <data>/secrets, readable by their owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from servicekit.process.services import services


def password_names() -> tuple[str, ...]:
    """Those of the database roles, PostgreSQL's superuser and supervisor, the tokens of the services, of the gateway,
    for people and for mail, and the key of accounts."""
    owners = (row.owner for row in services().values())
    return (
        *services(),
        *owners,
        "postgres",
        "supervisor",
        "internal",
        "gateway_token",
        "people_token",
        "mail_token",
        "auth_key",
    )


class Credentials:
    """Reads <folder>/NAME, making it on first use (0600 in a 0700 folder)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> None:
        """Make whatever is missing."""
        for name in password_names():
            self[name]

    def __getitem__(self, name: str) -> str:
        path = self._folder / name
        if not path.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            # Linked into place when complete: a reader never sees half a password, and the first writer wins.
            draft = self._folder / f".{name}.{secrets.token_hex(4)}"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write((secrets.token_urlsafe(32) if name == "auth_key" else secrets.token_hex(24)) + "\n")
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another process was first; its password counts
            finally:
                draft.unlink()
        return path.read_text().strip()
