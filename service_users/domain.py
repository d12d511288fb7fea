"""(pure) The rules for users."""

from __future__ import annotations

import unicodedata

DEFAULT_ROLES = ("user",)


def comparable(text: str) -> str:
    """Give the form in which two addresses or names are the same: canonical, case-folded, canonical again.

    Unicode 15 section 3.13 (D145, canonical caseless matching); done here and not in SQL, since
    PostgreSQL's lower() depends on the locale of the server.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
