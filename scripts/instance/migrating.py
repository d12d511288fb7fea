"""Apply the three histories with the services' own code, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.instance.errors import StartFailed
from scripts.instance.layout import CHECKOUT
from scripts.instance.postgres import last_lines_of
from scripts.instance.programs import migration_environment


def migrate(urls: Mapping[str, str], log: Path) -> None:
    """`urls` as {"users": …, "orders": …, "tasks": …}. Raise StartFailed with the last words of the failed one."""
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "servicekit.database.migrations", "all"],
            cwd=CHECKOUT,
            env=migration_environment(urls),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise StartFailed(f"a migration failed: {last_lines_of(log)} (log: {log})")
