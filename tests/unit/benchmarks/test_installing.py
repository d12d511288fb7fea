"""Which environment of a peer is there, and which has to be made."""

from __future__ import annotations

import sys

import pytest

from benchmarks import installing
from benchmarks.installing import Missing, install, is_installed, mark_installed, pins


def test_pins_are_read_without_comments_and_without_brackets(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# peers\ncelery==5.7.0\npgqueuer[asyncpg,cli]==1.6.0\n")
    assert pins(file) == {"celery": "5.7.0", "pgqueuer": "1.6.0"}


def test_an_environment_is_made_anew_when_its_requirements_change(tmp_path):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("one==1\n")
    assert not is_installed(tmp_path, wanted)
    mark_installed(tmp_path, wanted)
    assert is_installed(tmp_path, wanted)
    wanted.write_text("one==2\n")
    assert not is_installed(tmp_path, wanted)


def test_an_installer_that_fails_says_why_in_its_last_line(tmp_path):
    with pytest.raises(Missing, match=r"^cannot be installed: no such package$"):
        install(tmp_path, [sys.executable, "-c", "import sys; sys.exit('Collecting\\nno such package')"])


def test_an_installer_that_is_not_there_is_a_missing_peer(tmp_path):
    with pytest.raises(Missing, match="cannot be installed"):
        install(tmp_path, [str(tmp_path / "no-such-installer")])


def test_a_half_made_environment_is_made_again(tmp_path, monkeypatch):
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("one==1\n")
    monkeypatch.setattr(installing, "PEERS", tmp_path)
    asked = []
    monkeypatch.setattr(
        installing, "install", lambda folder, command: (folder.mkdir(exist_ok=True), asked.append(command))
    )
    (tmp_path / "name" / "bin").mkdir(parents=True)
    for _ in range(2):
        assert installing.python_environment("name", wanted) == tmp_path / "name" / "bin" / "python"
    assert [command[2] for command in asked] == ["venv", "pip"]
