"""(pure) The messages about links, as plain text."""

from __future__ import annotations

from datetime import UTC, datetime

#: Of each purpose: the subject, what it says, and where its token goes; none has none.
_OF_PURPOSE = {
    "reset": (
        "Set a new password",
        "Someone asked for a new password for your account at {url}. If it was you, set one with this token",
        "/auth/reset",
    ),
    "invitation": ("Your account", "You have an account at {url}. Set its password with this token", "/auth/reset"),
    "email": (
        "Confirm your address",
        "Someone gave this address for their account at {url}. If it was you, confirm it with this token",
        "/auth/email/confirm",
    ),
    "moved": ("Your address was changed", "Your account at {url} has another address now", None),
}


def written(purpose: str, name: str, token: str, expires_at: datetime, url: str) -> tuple[str, str]:
    """Subject and text of a message."""
    subject, says, path = _OF_PURPOSE[purpose]
    says = says.format(url=url)
    parts: tuple[str, ...]
    if path is None:
        parts = (f"{says}. If it was not you, tell an administrator at once.",)
    else:
        until = expires_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        parts = (
            f"{says}, once, until {until}:",
            token,
            f"It goes to POST {url}{path}. If it was not you, do nothing, and give it to nobody.",
        )
    return subject, "\n\n".join((f"Hello {name},", *parts)) + "\n"
