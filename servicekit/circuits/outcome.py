"""Classifies a well-formed answer for the circuit of the service that gave it. Pure."""

from __future__ import annotations

import re
from typing import Literal

from servicekit.process.services import services

CallOutcome = Literal["success", "failure", "neutral"]

#: The service rejects the name it was called by, which is a configuration fault (RFC 9110 section 15.5.20). No client
#: can do anything about it, so this status is never passed on.
MISDIRECTED = 421
_TOO_MANY_REQUESTS = 429
_FAILING_STATUSES = frozenset({MISDIRECTED, 502, 503, 504})
#: Codes with which a healthy service says that it ran out of time or accepts no more, or that a server of others is
#: away. A failure behind it has the `unavailable_code` of another row of the table.
_NO_FAULT_OF_ITS_OWN = re.compile(
    r"deadline_exceeded|(identity|provider)_unavailable|overloaded|circuit_open|too_many_\w+"
)


def outcome_of(status: int, service: str, code: str | None = None) -> CallOutcome:
    """Classify an answer of `service`; `code` is that of an enveloped error."""
    if status == _TOO_MANY_REQUESTS:
        return "neutral"
    if status not in _FAILING_STATUSES:
        return "success"
    if code is None:
        return "failure"
    others = {row.unavailable_code for row in services().values() if row.name != service}
    return "neutral" if code in others or _NO_FAULT_OF_ITS_OWN.fullmatch(code) else "failure"
