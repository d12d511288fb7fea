"""The first login of an instance that was open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.instance import closing
from scripts.instance.layout import Layout
from tests.support.postgres import ServiceDatabase


def test_closing_forgets_the_stored_keys_with_those_that_signed(
    users_database: ServiceDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout: Any = Layout(tmp_path)
    for folder in (layout.identity, layout.secrets):
        folder.mkdir()
    layout.keys.write_text("{}")
    monkeypatch.setattr(closing, "database_urls", lambda *_: {"users": users_database.url})

    closing.close(layout, layout, layout)

    assert (layout.keys.exists(), layout.closed.exists()) == (False, True)
