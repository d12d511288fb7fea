"""Backups beside a table of services that has changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.instance import archive
from scripts.instance.errors import InstanceError


def _backup(folder: Path, *names: str) -> Path:
    dumps = {name: folder / f"{name}.made" for name in names}
    for dump in dumps.values():
        dump.write_text(f"all of {dump.stem}")
    sums = {name: archive.checksum(dump) for name, dump in dumps.items()}
    archive.write(folder / "backup.tar", archive.Manifest("0.1.0", "18", "2026-01-31T15:00:00Z", sums), dumps)
    return folder / "backup.tar"


def test_a_backup_from_before_a_service_was_added_has_the_databases_of_the_others(tmp_path: Path) -> None:
    _, dumps = archive.read(_backup(tmp_path, "orders", "users"), tmp_path)
    assert {name: dump.read_text() for name, dump in dumps.items()} == {
        "orders": "all of orders",
        "users": "all of users",
    }


def test_a_backup_of_a_service_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"holds a database of gnomes, which services.toml does not name; use"):
        archive.read(_backup(tmp_path, "users", "gnomes"), tmp_path)
