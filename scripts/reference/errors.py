"""The error codes, with their status, meaning and remedy."""

from __future__ import annotations

import inspect

from api_gateway import errors as gateway_errors
from api_gateway.route_table import ROUTES
from scripts.reference.code import classes, sentence, table
from servicekit.wire import envelope
from servicekit.wire.errors import AppError, Conflict, Unavailable

#: Only their subclasses are ever raised.
_NEVER_SEEN = {Conflict.code, Unavailable.code}


def errors() -> list[tuple[str, int, str, str]]:
    """Code, status, message and advice to operators, in the order of statuses."""
    found: dict[tuple[int, str], tuple[str, str]] = {}
    raised: list[type[AppError]] = [AppError, *classes(AppError)]
    for cls in sorted(raised, key=lambda one: len(one.__mro__)):
        status = envelope.status_of(cls)
        message, _, more = (inspect.getdoc(cls) or "").partition("\n")
        if cls.code in _NEVER_SEEN:
            continue
        # A class that inherits its code has another message and the same meaning.
        before = found.setdefault((status, cls.code), (message, more))
        if more.strip() and not before[1].strip():
            found[status, cls.code] = (before[0], more)
    for upstream in dict.fromkeys(route.upstream for route in ROUTES if route.upstream):
        error = gateway_errors.UpstreamUnavailable(upstream)
        more = (inspect.getdoc(type(error)) or "").partition("\n")[2]
        found[envelope.status_of(error), error.code] = (error.message, more)
    return [(code, status, message, sentence(more)) for (status, code), (message, more) in sorted(found.items())]


def page() -> str:
    """docs/reference/errors.md."""
    rows = [(f"`{code}`", str(status), message, more) for code, status, message, more in errors()]
    return (
        "\n\n".join(
            (
                "# Error codes",
                "The `code` of an error is stable, and for programs; its message is for a person, and may change. How "
                "an error looks: [http_api.md](../http_api.md#the-envelope). Each 503 and 429 carries `Retry-After`: "
                "ask again after so many seconds. `./scripts/docs` writes this page from the error classes.",
                table(("code", "status", "message", "what it means, and what to do"), rows),
            )
        )
        + "\n"
    )
