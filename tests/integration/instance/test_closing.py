"""The first login of an instance that was open."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from scripts.instance import closing
from scripts.instance.layout import Layout
from service_users.accounts.create_admin import make_admin
from tests.support.postgres import ServiceDatabase


def test_closing_forgets_the_stored_keys_with_those_that_signed_and_writes_and_tells_whom_it_disables(
    users_database: ServiceDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout: Any = Layout(tmp_path)
    for folder in (layout.identity, layout.secrets):
        folder.mkdir()
    layout.keys.write_text("{}")
    monkeypatch.setattr(closing, "database_urls", lambda *_: {"users": users_database.url})

    make_admin(users_database.url, "mallory@example.com", file=tmp_path / "password")

    closing.close(layout, layout, layout)

    assert (layout.keys.exists(), layout.closed.exists()) == (False, True)
    with users_database.database.transaction() as session:
        mallory = session.execute(text("SELECT id, disabled_at FROM users WHERE email LIKE 'mallory%'")).one()
        sent = session.execute(text("SELECT subject, time FROM outbox WHERE type = 'user.disabled'")).all()
        written = session.execute(text("SELECT action, subject, actor FROM audit ORDER BY id")).all()
    assert [(UUID(str(subject)), time) for subject, time in sent] == [tuple(mallory)]
    assert [entry[:2] for entry in written[1:-1]] == [("instance.closed", None), ("user.disabled", mallory.id)]
    assert {entry.action for entry in (written[0], written[-1])} == {"admin.created"}
    assert {entry.actor for entry in written} == {None}
