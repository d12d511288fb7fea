"""(pure) How a well-formed answer counts for the circuit of the service that gave it."""

from __future__ import annotations

import re
from typing import Literal

from servicekit.process.services import services

CallOutcome = Literal["success", "failure", "neutral"]

#: The service is not known by the name it was asked by, which is a fault of the configuration (RFC 9110 section
#: 15.5.20). Nobody who asked us can do anything about it, so that it never leaves as an answer of ours.
MISDIRECTED = 421
_TOO_MANY_REQUESTS = 429
_FAILING_STATUSES = frozenset({MISDIRECTED, 502, 503, 504})
#: Codes by which a healthy service says that it ran out of time, or takes on no more at once. That something behind it
#: failed it says by the `unavailable_code` of another row of the table.
_NO_FAULT_OF_ITS_OWN = re.compile(r"deadline_exceeded|overloaded|circuit_open|too_many_\w+")


def outcome_of(status: int, service: str, code: str | None = None) -> CallOutcome:
    """Judge an answer of `service`; `code` is that of an enveloped error."""
    if status == _TOO_MANY_REQUESTS:
        return "neutral"
    if status not in _FAILING_STATUSES:
        return "success"
    if code is None:
        return "failure"
    others = {row.unavailable_code for row in services().values() if row.name != service}
    return "neutral" if code in others or _NO_FAULT_OF_ITS_OWN.fullmatch(code) else "failure"
