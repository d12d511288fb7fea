"""(pure) How a well-formed answer counts for the circuit of the service that gave it."""

from __future__ import annotations

import re
from typing import Literal

Outcome = Literal["success", "failure", "neutral"]

_FAILING_STATUSES = frozenset({502, 503, 504})
#: Codes by which a service that is well says that something behind it failed, or that it will not do so much at once.
_NO_FAULT_OF_ITS_OWN = re.compile(
    r"deadline_exceeded|overloaded|circuit_open|too_many_\w+|(?:users|orders|tasks)_unavailable"
)


def outcome_of(status: int, service: str, code: str | None = None) -> Outcome:
    """Judge an answer of `service`; `code` is that of an enveloped error."""
    if status == 429:
        return "neutral"
    if status not in _FAILING_STATUSES:
        return "success"
    if code is not None and _NO_FAULT_OF_ITS_OWN.fullmatch(code) and code != f"{service}_unavailable":
        return "neutral"
    return "failure"
