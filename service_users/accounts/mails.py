"""(pure) The messages about links, as plain text.

They greet nobody by name: a name is whatever its owner has typed, and a new address is anybody's.
"""

from __future__ import annotations

from datetime import UTC, datetime

#: Of each purpose the subject and what it says.
_OF_PURPOSE = {
    "reset": (
        "Set a new password",
        "Someone asked for a new password for your account at {url}. If it was you, set one on this page",
    ),
    "invitation": ("Your account", "You have an account at {url}. Set its password on this page"),
    "email": (
        "Confirm your address",
        "Someone gave this address for their account at {url}. If it was you, confirm it on this page",
    ),
    "moved": ("Your address was changed", "Your account at {url} has another address now"),
}


def written(purpose: str, token: str, expires_at: datetime, url: str) -> tuple[str, str]:
    """Subject and text of a message. The token stands after the #, which no browser sends and no server logs."""
    subject, says = _OF_PURPOSE[purpose]
    says = says.format(url=url)
    parts: tuple[str, ...]
    if purpose == "moved":
        parts = (f"{says}. If it was not you, tell an administrator at once.",)
    else:
        until = expires_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        parts = (
            f"{says}, once, until {until}:",
            f"{url}/console#/link/{purpose}/{token}",
            "If it was not you, do nothing, and give the link to nobody.",
        )
    return subject, "\n\n".join(("Hello,", *parts)) + "\n"
