"""Reads files of named statements.

Each begins with a line `-- name: NAME`, which comments may follow; `{NAME}` in one stands for another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_FRAGMENT = re.compile(r"\{(\w+)\}")


@cache
def read_statements(package: str, file: str) -> Mapping[str, str]:
    """The statements of a file in a package's folder by name, without comments; raises ValueError for a second one of
    the same name."""
    text = (files(package) / file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    raw: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in raw:
            raise ValueError(f"{file} names {name!r} twice")
        lines = [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--")]
        raw[name] = "\n".join(lines)
    return raw


def filled_in(body: str, fragments: Mapping[str, str]) -> str:
    """A statement with the fragments that it names, and those that these name; raises KeyError for an unknown one."""
    return _FRAGMENT.sub(lambda match: filled_in(fragments[match[1]], fragments), body)
