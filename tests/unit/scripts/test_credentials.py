"""The instance's passwords."""

from __future__ import annotations

import stat
from pathlib import Path

from scripts.instance.credentials import Credentials, password_names
from service_users.auth_key import AuthKey


def test_passwords_are_made_once_and_differ(tmp_path: Path) -> None:
    first = Credentials(tmp_path / "secrets")
    first.create()
    made = {name: first[name] for name in password_names()}
    assert len(set(made.values())) == len(password_names())
    AuthKey.read(made["auth_key"])
    assert all(len(made[name]) >= 32 and made[name].isalnum() for name in made if name != "auth_key")
    again = Credentials(tmp_path / "secrets")
    again.create()
    assert {name: again[name] for name in password_names()} == made


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    Credentials(tmp_path / "secrets").create()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == sorted(password_names())
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o600}
