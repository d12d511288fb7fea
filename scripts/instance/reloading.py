"""`./scripts/run --reload`: restarts what loads task types whenever their code may have changed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping

from scripts.instance import operating
from scripts.instance.command_line import say
from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.supervision import Supervisor

_LOOK_SECONDS = 1.0


def restart_on_changes(
    before: Mapping[str, int], layout: Layout, supervisor: Supervisor, process: subprocess.Popen[bytes]
) -> int:
    """Return supervisor's exit status once it ends; until then, look every second and restart.

    `before` are the `last_writes` at the start. A restart that fails is printed; the next change tries
    again.
    """
    there = {one.service for one in supervisor.processes()}
    loaders = [name for name in operating.LOADERS if name in there]
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_SECONDS)
        after = last_writes()
        changed = sorted({path for path, _ in before.items() ^ after.items()})
        before = after
        if changed:
            say(f"{', '.join(os.path.relpath(path, CHECKOUT) for path in changed[:3])} changed")
            try:
                operating.act(layout, "restart", loaders)
            except InstanceError as exc:
                say(str(exc))


def last_writes() -> dict[str, int]:
    """When each Python file in the checkout was written last, and `.env`. Folders with a dot in front do not count."""
    found = {}
    for folder, inside, files in os.walk(CHECKOUT):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in files:
            if name.endswith(".py") or name == ".env":
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found[path] = os.stat(path).st_mtime_ns
    return found
