"""Passwords are hashed in 64 MiB of memory each, and as many as come at once take no more than the container has."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.memory import contained, limit_of, peak
from tests.support.postgres import ServiceDatabase


def test_passwords_and_the_largest_bodies_stay_below_the_limit(users_database: ServiceDatabase, tmp_path: Path) -> None:
    with contained("service_users", tmp_path / "log", USERS_DATABASE_URL=users_database.url) as service:
        people = [
            service.post(
                "/users",
                json.dumps({"email": f"user{number}@example.com", "name": "x", "password": "a password"}).encode(),
            )
            for number in range(8)
        ]
        assert service.at_once(*people)[201] >= 1
        assert service.at_once(*[service.post("/users", b'{"roles":[' + b"[]," * 340_000 + b"[]]}")] * 8) == {413: 8}
        assert peak(service.process.pid) < limit_of("service_users")
