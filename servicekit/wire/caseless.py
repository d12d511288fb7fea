"""(pure) When two texts are the same, whatever the case of their letters."""

from __future__ import annotations

import unicodedata


def comparable(text: str) -> str:
    """Return the form in which texts are compared and searched: normalised, case-folded, normalised again.

    Unicode 15 section 3.13 (D145, canonical caseless matching); done here and not in SQL, since
    PostgreSQL's lower() depends on the locale of the server.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
