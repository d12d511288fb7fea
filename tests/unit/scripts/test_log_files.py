"""The logs that programs write by themselves are turned over under their hands."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from scripts.instance.log_files import BACKUPS, turn_over


def test_a_log_is_moved_on_when_it_is_full_and_its_writer_goes_on_in_the_same_file(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(BACKUPS + 2):
        os.write(writer, b"%d" % number * 10)
        turn_over(log, 10)
    os.write(writer, b"few")
    turn_over(log, 10)
    os.close(writer)

    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "postgres.log": "few",
        "postgres.log.1": "4" * 10,
        "postgres.log.2": "3" * 10,
        "postgres.log.3": "2" * 10,
    }


def test_a_log_that_is_not_there_yet_is_no_trouble(tmp_path: Path) -> None:
    turn_over(tmp_path / "postgres.log", 10)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_no_log_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {
        "postgres.log": "new" * 10,
        **{f"postgres.log.{number}": f"old {number}" for number in range(1, BACKUPS + 1)},
    }
    for name, text in kept.items():
        (tmp_path / name).write_text(text)

    def copy_some(source: Path, target: Path) -> None:
        target.write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy", copy_some)
    for _ in range(BACKUPS + 1):
        turn_over(tmp_path / "postgres.log", 10)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == kept
