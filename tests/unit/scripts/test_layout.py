"""Which folders an instance may live in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.instance.errors import ForeignFolder
from scripts.instance.layout import DEFAULT_DATA, Layout


def test_an_absent_and_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    Layout.of(tmp_path / "absent").require_ours_or_empty()
    Layout.of(tmp_path).require_ours_or_empty()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").touch()
    with pytest.raises(ForeignFolder, match="neither empty nor a data folder"):
        Layout.of(tmp_path).require_ours_or_empty()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ForeignFolder, match="is a file"):
        Layout.of(tmp_path / "file").require_ours_or_empty()


def test_a_folder_of_ones_own_that_is_closed_is_told_with_the_command_that_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may always
    with pytest.raises(ForeignFolder, match=f"is yours, but closed to you; open it: chmod u[+]rwx {tmp_path}"):
        Layout.of(tmp_path).require_ours_or_empty()


def test_a_created_instance_is_recognised_and_a_mark_of_somebody_else_is_not(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.create()
    layout.require_ours()
    layout.mark.write_text('{"what": "something else"}')
    with pytest.raises(ForeignFolder):
        layout.require_ours()


def test_a_start_interrupted_before_the_mark_can_be_repeated(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.lock.touch()
    layout.mark.with_suffix(".partial").touch()
    layout.require_ours_or_empty()
    with pytest.raises(
        ForeignFolder, match=f"no Siteworks instance in .*; start one with ./scripts/run --data {tmp_path}$"
    ):
        layout.require_ours()


def test_reset_removes_what_the_instance_made_and_nothing_else(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.create()
    layout.postgres.mkdir()
    layout.rabbitmq.mkdir()
    (tmp_path / "notes.txt").touch()
    layout.remove_contents()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_same_folder_by_another_name_is_the_same_instance(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert Layout.of(tmp_path / "link") == Layout.of(tmp_path / "data")


def test_the_option_that_names_an_instance_survives_a_shell(tmp_path: Path) -> None:
    assert Layout.of(None).option == ""
    assert Layout.of(None).data == DEFAULT_DATA
    assert Layout(Path("/srv/Bob's site")).option == """ --data '/srv/Bob'"'"'s site'"""
