"""Liveness: the process runs. Readiness: it can do its work now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from servicekit.wire.errors import AppError, FieldError, Unavailable

Check = Callable[[], None]


class NotReady(Unavailable):
    """This service cannot work at the moment; the details say what it waits for.

    An answer of `/readyz` alone.
    """

    code = "not_ready"


def readiness(checks: Mapping[str, Check]) -> dict[str, Any]:
    """Run every named check; raises `NotReady` with those that raised an `AppError`."""
    problems = []
    for name, check in checks.items():
        try:
            check()
        except AppError as exc:
            problems.append(FieldError(name, exc.message))
    if problems:
        raise NotReady(details=problems, retry_after=1)
    return {"status": "ready", "checks": dict.fromkeys(checks, "ok")}
