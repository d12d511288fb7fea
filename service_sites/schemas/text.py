"""Texts that people write, kept without the spaces around them and in Unicode's form C."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from servicekit.web.schemas import Visible


def _tidied(value: Any) -> Any:
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


def _is_seen(character: str) -> bool:
    with suppress(ValueError):
        return bool(cast(Callable[[str], str], Visible.func)(character))
    return False


def _legible(value: str) -> str:
    """Refuse a text in which nothing can be seen. Beside other characters invisible ones stay: whatever is pasted may
    have some."""
    if value and not any(map(_is_seen, value)):
        raise ValueError("must not be blank")
    return value


Legible = AfterValidator(_legible)
#: Before the limits, because the normal form may be the longer one.
Tidied = BeforeValidator(_tidied)
Title = Annotated[str, Tidied, StringConstraints(min_length=1, max_length=200), Visible]
#: May be empty.
Label = Annotated[str, Tidied, StringConstraints(max_length=200), Visible]
#: What somebody says in sentences, in several lines if they like.
Sentences = Annotated[str, Tidied, Legible]
Remark = Annotated[Sentences, StringConstraints(min_length=1, max_length=2000)]
