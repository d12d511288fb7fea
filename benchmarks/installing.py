"""Installs peers from other people's packages into environments of their own, the first time they are needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import CHECKOUT

PEERS = CHECKOUT / "benchmarks" / ".peers"
_INSTALL_SECONDS = 300


class Missing(Exception):
    """A peer that cannot be had here, and why."""


def python_environment(name: str, wanted: Path) -> Path:
    """The Python of the environment `name`, which has what the requirement file names. Raises Missing."""
    folder = PEERS / name
    python = folder / "bin" / "python"
    if not is_installed(folder, wanted):
        install(folder, [sys.executable, "-m", "venv", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        install(folder, [*pip, "--requirement", str(wanted.resolve())])
        mark_installed(folder, wanted)
    return python


def pins(wanted: Path) -> dict[str, str]:
    """The version of each package that a requirement file names; without what stands in brackets."""
    lines = (line.split("==") for line in wanted.read_text().splitlines() if "==" in line)
    return {name.partition("[")[0]: version for name, version in lines}


def is_installed(folder: Path, wanted: Path) -> bool:
    """Whether the folder holds exactly what the file names, for this Python."""
    stamp = folder / "installed"
    return stamp.exists() and stamp.read_text() == _stamp(wanted)


def mark_installed(folder: Path, wanted: Path) -> None:
    (folder / "installed").write_text(_stamp(wanted))


def install(folder: Path, command: Sequence[str]) -> None:
    """Run an installer in the folder. Raises Missing with its last word."""
    print(f"installing peers into {os.path.relpath(folder)}: {Path(command[0]).name} …", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            command, cwd=folder, check=True, timeout=_INSTALL_SECONDS, capture_output=True, text=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        last = said.strip().splitlines()[-1:] or ["unknown reason"]
        raise Missing(f"cannot be installed: {last[0]}") from error


def _stamp(wanted: Path) -> str:
    return hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
