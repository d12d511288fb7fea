"""(pure) The rules for users."""

from __future__ import annotations

DEFAULT_ROLES = ("user",)
