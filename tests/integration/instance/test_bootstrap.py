"""What happens before there is a virtual environment."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scripts import make_venv
from scripts.instance.layout import CHECKOUT

_OLD_PYTHON = """#!/bin/sh
# Answers the version question like Python 3.9, and fails the test for 3.11.
case "$*" in *print*) echo 3.9 ;; *) exit 1 ;; esac
"""

_SCRIPTS = sorted(file.name for file in (CHECKOUT / "scripts").iterdir() if file.is_file() and not file.suffix)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the scripts and one empty requirement file, in a folder with an awkward name."""
    made = tmp_path / "мой site 50%"
    (made / "scripts").mkdir(parents=True)
    (made / "requirements").mkdir()
    (made / "requirements" / "local.txt").write_text("")
    for name in ("bootstrap.sh", "make_venv.py", "run"):
        shutil.copy(CHECKOUT / "scripts" / name, made / "scripts" / name)
    (made / "scripts" / "instance").mkdir()
    (made / "scripts" / "instance" / "__main__.py").write_text("import sys; print('started', *sys.argv[1:])")
    return made


def _run(
    checkout: Path, *arguments: str, path: str = os.environ["PATH"], **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "scripts" / "run"), *arguments],
        env={"PATH": path, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _tools_without_python(folder: Path) -> str:
    folder.mkdir()
    for tool in ("sh", "dirname", "basename", "cat", "cksum"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return str(folder)


def test_a_too_old_python_is_one_clear_line(checkout: Path, tmp_path: Path) -> None:
    path = _tools_without_python(tmp_path / "bin")
    (tmp_path / "bin" / "python3").write_text(_OLD_PYTHON)
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = _run(checkout, path=path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "python3 is 3.9" in done.stderr


def test_no_python_at_all_is_one_clear_line(checkout: Path, tmp_path: Path) -> None:
    done = _run(checkout, path=_tools_without_python(tmp_path / "bin"))
    assert done.returncode == 1
    assert "no python3 was found" in done.stderr


def test_the_second_call_installs_nothing_and_an_interrupted_or_outdated_one_is_repaired(checkout: Path) -> None:
    assert "installing" in _run(checkout).stderr
    again = _run(checkout, "--port", "8100")
    assert (again.stdout, again.stderr) == ("started --port 8100\n", "")
    (checkout / ".venv" / "installed").unlink()
    repaired = _run(checkout)
    assert "making .venv" in repaired.stderr
    assert repaired.stdout == "started\n"
    (checkout / "requirements" / "local.txt").write_text("# nothing, but other bytes\n")
    assert "installing" in _run(checkout).stderr
    assert _run(checkout).stderr == ""
    (checkout / "requirements" / "local.txt").write_text(f"nothing-of-ours==1 --hash=sha256:{'0' * 64}\n")
    failed = _run(checkout, PIP_NO_INDEX="1")
    assert (failed.returncode, failed.stdout) == (1, "")
    step, error = failed.stderr.splitlines()
    assert step == "installing 1 packages, once …"
    assert "package index" in error
    assert "No matching distribution found for nothing-of-ours==1" in error


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, requirements = tmp_path / ".venv", tmp_path / "local.txt"
    requirements.write_text("")
    venv.mkdir()
    (venv / "installed").write_text(f"1 0 {venv}\n")
    ran: list[str] = []

    def run(command: list[str], **_: object) -> None:
        ran.append(command[2])
        venv.mkdir(exist_ok=True)

    monkeypatch.setattr(make_venv, "_run", run)
    assert make_venv.main(venv, requirements, f"1 0 {venv}") == 0
    assert ran == ["venv", "pip"]


def test_a_checkout_that_cannot_be_written_to_is_one_clear_line(checkout: Path) -> None:
    (checkout / ".venv.lock").mkdir()  # root may write everywhere else
    done = _run(checkout)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{checkout}/.venv cannot be made: " in done.stderr
    assert "a folder that you may write to" in done.stderr
    (checkout / ".venv").mkdir()
    stamp = subprocess.run(["cksum"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    (checkout / ".venv" / "installed").write_text(f"{stamp.strip()} {checkout}/.venv\n")
    assert "/.venv is complete, but you cannot run its Python, and it cannot be made anew: " in _run(checkout).stderr


def test_ctrl_c_before_the_environment_is_complete_is_one_clear_line(checkout: Path) -> None:
    with (checkout / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [checkout / "scripts" / "run"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Tests that run in the background may have been told to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as call:
            try:
                assert call.stderr is not None
                assert "waiting for it" in call.stderr.readline()
                psutil.Process(call.pid).children()[0].send_signal(signal.SIGINT)
                said = call.stderr.read()
                call.wait(20)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(call.pid, signal.SIGKILL)
    assert (call.returncode, said) == (130, "make_venv: interrupted; the next start goes on\n")


@pytest.mark.parametrize("name", _SCRIPTS)
def test_help_needs_no_package_and_installs_nothing(name: str, tmp_path: Path) -> None:
    made = tmp_path / "checkout"
    for folder in ("scripts", "servicekit", "requirements"):
        shutil.copytree(CHECKOUT / folder, made / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "services.toml", made)
    path = _tools_without_python(tmp_path / "bin")
    (tmp_path / "bin" / "sed").symlink_to(str(shutil.which("sed")))
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    # -S: without the packages of the system too.
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec "{base}" -S "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    before = sorted(made.rglob("*"))
    done = subprocess.run(
        [str(made / "scripts" / name), "--help"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 150
    assert sorted(made.rglob("*")) == before


def test_two_first_calls_at_once_make_one_environment_with_the_newer_python_behind_an_old_one(
    checkout: Path, tmp_path: Path
) -> None:
    path = _tools_without_python(tmp_path / "bin")
    for name, text in (("python3", _OLD_PYTHON), ("python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    calls = [
        subprocess.Popen(
            [str(checkout / "scripts" / "run"), "status"],
            env={"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [call.communicate(timeout=60) for call in calls]
    assert [call.returncode for call in calls] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["started status\n", "started status\n"]
    assert sum("making .venv" in err for _, err in outputs) == 1
