"""One way to read the time, and one way to write it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment in UTC, aware."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Write an aware datetime as RFC 3339 in UTC with `Z`; raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone has no RFC 3339 form")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
