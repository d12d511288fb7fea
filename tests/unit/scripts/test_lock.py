"""A data folder lives once."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.instance.errors import InUse
from scripts.instance.lock import Holder, InstanceLock, holder_of


def test_a_second_run_is_told_where_the_first_one_is(tmp_path: Path) -> None:
    lock = InstanceLock.acquire(tmp_path / "lock", Holder("./scripts/run", 8100, 2))
    with pytest.raises(
        InUse, match=r"already running on http://localhost:8100 .*; stop it with ./scripts/run stop --data"
    ):
        InstanceLock.acquire(tmp_path / "lock", Holder("./scripts/run", 8200), patience=0)
    assert holder_of(tmp_path / "lock") == Holder("./scripts/run", 8100, 2)
    lock.close()
    assert holder_of(tmp_path / "lock") is None
    InstanceLock.acquire(tmp_path / "lock", Holder("./scripts/run", 8200), patience=0).close()


def test_a_command_that_holds_the_folder_is_named(tmp_path: Path) -> None:
    lock = InstanceLock.acquire(tmp_path / "lock", Holder("./scripts/backup"))
    with pytest.raises(InUse, match=r"in use by \./scripts/backup; try again"):
        InstanceLock.acquire(tmp_path / "lock", Holder("./scripts/run", 8200), patience=0)
    lock.close()


def test_looking_at_a_folder_that_was_never_locked_makes_nothing(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "lock") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["lock", "folder"])
def test_a_lock_whose_file_was_removed_keeps_nobody_out_of_the_new_one(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "folder" / "lock"
    path.parent.mkdir()
    refused = InstanceLock.acquire(path, Holder("./scripts/run", 8100))

    def remove(_: float) -> None:
        path.unlink()
        if gone == "folder":
            path.parent.rmdir()
        refused.close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scripts.instance.lock.time.sleep", remove)
        lock = InstanceLock.acquire(path, Holder("./scripts/run", 8200))
    assert holder_of(path) == Holder("./scripts/run", 8200)
    lock.close()
