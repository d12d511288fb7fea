"""What the command line of ./scripts/run refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.instance import cli
from scripts.instance.layout import CHECKOUT, Layout


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


def test_the_logs_of_an_instance_that_does_not_run_are_shown_and_not_followed(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.create()
    layout.log("gateway").write_text("the end\n")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.instance", "logs", "gateway", "--data", str(tmp_path)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert done.stderr == "run: not running; these are the last lines\n"
