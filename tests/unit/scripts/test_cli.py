"""What the command line of ./scripts/run refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.instance import cli


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("status --port 8100", "--port does not go with status; --data names the instance"),
        ("stop --reset", "--reset does not go with stop"),
        ("restart --json", "--json does not go with restart"),
        ("restart users --workers 3", "--workers does not go with restart users"),
        ("start worker --port 8100", "--port does not go with start worker"),
        ("--json", "--json does not go with a start"),
        ("--reload --detach", "--reload does not go with --detach"),
        ("status users", "status shows every service"),
        ("stop users taks", "there is no service taks; there are: postgres, "),
        ("stop worker-1", "there is no service worker-1; workers are started and stopped together: worker"),
        ("restart --workers 65", "--workers must be between 0 and 64"),
        ("--prot 8000", "there is no option --prot"),
        ("statsu --json", "there is no verb statsu; there are: start, stop, restart, status, logs"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    arguments: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--data", str(tmp_path / "data"), *arguments.split()])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("verb", [[], ["status"], ["restart"], ["stop", "users"]])
def test_a_file_instead_of_a_data_folder_is_one_clear_line(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert cli.main([*verb, "--data", str(file)]) == 1
    assert capsys.readouterr().err == f"run: {file} is a file; name a folder with --data\n"
