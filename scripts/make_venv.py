"""Make or repair a virtual environment: `python make_venv.py VENV REQUIREMENTS STAMP` (run by bootstrap.sh).

Runs under any Python from 3.11 with nothing installed. Safe to run twice at once: the second call waits for the first,
then finds nothing to do. An interrupted installation leaves no stamp, so the next call starts afresh.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


def main(venv: Path, requirements: Path, stamp: str) -> int:
    try:
        with open(venv.with_name(venv.name + ".lock"), "w") as lock:
            return _make(venv, requirements, stamp, lock)
    except KeyboardInterrupt:
        _say("make_venv: interrupted; the next start goes on")
        return 130
    except OSError as exc:
        made = "is complete, but you cannot run its Python, and it cannot be made anew"
        what = made if _is_complete(venv, stamp) else "cannot be made"
        _say(f"make_venv: {venv} {what}: {exc}; the checkout must be a folder that you may write to")
        return 1


def _make(venv: Path, requirements: Path, stamp: str, lock: TextIO) -> int:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"{venv.name} is being made by another process; waiting for it …")
        fcntl.flock(lock, fcntl.LOCK_EX)

    installed = venv / "installed"
    usable = _is_usable(venv, installed)
    if usable and _is_complete(venv, stamp):
        return 0
    if not usable:
        _say(f"making {venv.name} with Python {sys.version.split()[0]} …")
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)], what=f"{venv.name} cannot be made")
    installed.unlink(missing_ok=True)
    lines = requirements.read_text(encoding="utf-8").splitlines()
    wanted = sum("==" in line and "'win32'" not in line for line in lines)
    found, retried = 0, False

    def follow(line: str) -> None:
        nonlocal found, retried
        if "(from -r " in line and os.isatty(2):
            found += 1
            _say(f"\033[A\033[2Kinstalling {wanted} packages, once … {found}")
        elif line.startswith("Installing collected packages"):
            _say("unpacking them …")
        elif "Retrying (" in line and not retried:
            retried = True
            _say("the package index does not answer; trying again …")

    _say(f"installing {wanted} packages, once …")
    _run(
        [
            str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off",
            "--no-input", "--cache-dir", str(venv.parent / ".pip-cache"),
            "--require-hashes", "--requirement", str(requirements),
        ],
        what="the packages cannot be installed (is a package index within reach?)",
        follow=follow,
    )  # fmt: skip
    partial = venv / "installed.partial"
    partial.write_text(stamp + "\n")
    partial.replace(installed)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_complete(venv: Path, stamp: str) -> bool:
    installed = venv / "installed"
    return installed.exists() and installed.read_text() == stamp + "\n"


def _is_usable(venv: Path, installed: Path) -> bool:
    """Whether the environment can be added to: it was once complete, at this path, and its Python runs."""
    if not installed.exists() or not installed.read_text().endswith(f" {venv}\n"):
        return False
    try:
        version = subprocess.run(
            [str(venv / "bin" / "python"), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except OSError:  # the Python that it was made with is gone
        return False
    return version.returncode == 0


def _run(command: list[str], *, what: str, follow: Callable[[str], None] = lambda line: None) -> None:
    """Run it quietly; on failure print `what` and its last error as one line."""
    # The caller's PYTHONPATH and the like must not decide what is installed.
    environment = {
        k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER"}
    }
    said: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            follow(line)
    if process.returncode != 0:
        errors = [line for line in said if line.startswith("ERROR: ")] or [line for line in said if line]
        _say(f"make_venv: {what}: {errors[-1] if errors else 'it said nothing'}")
        raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
