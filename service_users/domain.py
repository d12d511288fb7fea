"""(pure) The rules for users."""

from __future__ import annotations

import unicodedata

DEFAULT_ROLES = ("user",)


def comparable(text: str) -> str:
    """Return the form in which addresses and names are compared: normalised, case-folded, normalised again.

    Unicode 15 section 3.13 (D145, canonical caseless matching); done here and not in SQL, since
    PostgreSQL's lower() depends on the locale of the server.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
