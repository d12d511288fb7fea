"""Texts that people write, kept without the spaces around them and in Unicode's form C."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

from servicekit.web.schemas import Visible


def _tidied(value: Any) -> Any:
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


#: Before the limits, because the normal form may be the longer one.
Tidied = BeforeValidator(_tidied)
Title = Annotated[str, Tidied, StringConstraints(min_length=1, max_length=200), Visible]
#: May be empty.
Label = Annotated[str, Tidied, StringConstraints(max_length=200), Visible]
#: What somebody says in sentences, in several lines if they like.
Remark = Annotated[str, Tidied, StringConstraints(min_length=1, max_length=2000)]
