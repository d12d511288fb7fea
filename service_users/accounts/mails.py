"""(pure) The messages that bring links, as plain text."""

from __future__ import annotations

from datetime import datetime

from servicekit.process.clock import rfc3339

#: Of each purpose: the subject, what it is about, and where its code goes.
_ABOUT = {
    "reset": (
        "Set a new password",
        "somebody, you we hope, forgot the password of your account at {url}. With this code you set a new one",
        "/auth/reset",
    ),
    "invitation": (
        "Your account",
        "there is an account for you at {url}. With this code you set its password",
        "/auth/reset",
    ),
    "email": (
        "Confirm your address",
        "somebody, you we hope, gave this address for their account at {url}. This code confirms it",
        "/auth/email/confirm",
    ),
}


def written(purpose: str, name: str, token: str, expires_at: datetime, url: str) -> tuple[str, str]:
    """Subject and text of a message."""
    subject, about, path = _ABOUT[purpose]
    lines = (
        f"Hello {name},",
        f"{about.format(url=url)}, once, until {rfc3339(expires_at)}:",
        token,
        f"It is the token of POST {url}{path}.",
        "If you know nothing of this, do nothing: without the code nothing happens. Give it to nobody.",
    )
    return subject, "\n\n".join(lines) + "\n"
