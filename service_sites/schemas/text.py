"""Short texts that people write: one line, kept without the spaces around it and in Unicode's form C."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

from servicekit.web.schemas import Visible


def _tidied(value: Any) -> Any:
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


Title = Annotated[str, BeforeValidator(_tidied), StringConstraints(min_length=1, max_length=200), Visible]
#: May be empty.
Label = Annotated[str, BeforeValidator(_tidied), StringConstraints(max_length=200), Visible]
