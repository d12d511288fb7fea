"""Reads files of named statements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_FRAGMENT = re.compile(r"\{(\w+)\}")


@cache
def load_queries(file: str = "queries.sql") -> Mapping[str, str]:
    """The statements of a file in this folder by name, without comments and with fragments filled in."""
    text = (files(__package__) / file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    raw: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in raw:
            raise ValueError(f"{file} names {name!r} twice")
        lines = [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--")]
        raw[name] = "\n".join(lines)

    def whole(body: str) -> str:
        return _FRAGMENT.sub(lambda match: whole(raw[match[1]]), body)

    return {name: whole(body) for name, body in raw.items()}
