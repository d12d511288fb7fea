"""Make or repair a virtual environment: `python make_venv.py VENV REQUIREMENTS STAMP` (run by bootstrap.sh).

Runs under any Python from 3.11 with nothing installed. Two at once are safe: the second waits for the first and
then finds nothing to do. An interrupted installation leaves no stamp, so the next call starts afresh.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path


def main(venv: Path, requirements: Path, stamp: str) -> int:
    lock = open(venv.with_name(venv.name + ".lock"), "w")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{venv.name} is being made by another process; waiting for it …", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)

    installed = venv / "installed"
    if installed.exists() and installed.read_text() == stamp + "\n":
        return 0
    if not _is_usable(venv, installed):
        print(f"making {venv.name} with Python {sys.version.split()[0]}", file=sys.stderr, flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
    installed.unlink(missing_ok=True)
    print(
        f"installing {requirements.parent.name}/{requirements.name} (needs a package index, once) …",
        file=sys.stderr,
        flush=True,
    )
    _run(
        [
            str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--cache-dir", str(venv.parent / ".pip-cache"),
            "--require-hashes", "--requirement", str(requirements),
        ]
    )  # fmt: skip
    partial = venv / "installed.partial"
    partial.write_text(stamp + "\n")
    partial.replace(installed)
    return 0


def _is_usable(venv: Path, installed: Path) -> bool:
    """Whether packages can be added to what is there: once complete, in this very place, with a Python that runs."""
    if not installed.exists() or not installed.read_text().endswith(f" {venv}\n"):
        return False
    version = subprocess.run(
        [str(venv / "bin" / "python"), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return version.returncode == 0


def _run(command: list[str]) -> None:
    # PYTHONPATH and friends of the caller must not decide what ends up in the environment.
    environment = {
        k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER"}
    }
    outcome = subprocess.run(command, env=environment, check=False)
    if outcome.returncode != 0:
        print(
            f"make_venv: `{' '.join(command[:4])} …` failed; its output is above. "
            "Check that the package index can be reached and run this again.",
            file=sys.stderr,
        )
        raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
