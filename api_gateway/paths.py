"""Validates request targets. Pure; a target that passes is forwarded byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass

from api_gateway.errors import BadPath

ALIAS = "/api/v1"

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: An upstream that decodes once would read these as a separator, a control character or the end of the path.
_HIDDEN = re.compile(r"%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
_DOT = re.compile(r"%2[eE]")
#: All of visible ASCII but `\ # < > " ^ { | }` and the backtick.
_SAFE = re.compile(r"[!$-;=?-\[\]_a-z~]*")


@dataclass(slots=True)
class Target:
    """A request target in origin form. `query` follows the first `?`; None if there is none."""

    path: str
    query: str | None

    @property
    def raw(self) -> str:
        return self.path if self.query is None else f"{self.path}?{self.query}"


def split_target(raw: str) -> Target:
    """Split a request target into path and query; raises BadPath if decoding could take it out of its route."""
    if raw[:1] != "/":
        raise BadPath("The address does not start with a slash.")
    path, mark, query = raw.partition("?")
    _check(path)
    return Target(path, query if mark else None)


def without_alias(path: str) -> str:
    """Strip the alias: `/api/v1/users` becomes `/users`."""
    if path.startswith(ALIAS + "/"):
        return path[len(ALIAS) :]
    return path


def _check(path: str) -> None:
    if not _SAFE.fullmatch(path):
        raise BadPath("The path holds a character that must be percent-encoded.")
    if "%" in path:
        if _PERCENT.search(path):
            raise BadPath("The path holds a percent sign that encodes nothing.")
        if _HIDDEN.search(path):
            raise BadPath("The path hides a separator or a control character.")
        try:
            decoded = _decode(path)
            decoded.decode("utf-8")
        except UnicodeDecodeError:
            raise BadPath("The path is not UTF-8.") from None
    if "." in path or "%2" in path:
        for segment in _DOT.sub(".", path).split("/"):
            # Servers that strip path parameters read `..;x` as `..`.
            if segment.partition(";")[0] in (".", ".."):
                raise BadPath("The path holds a dot segment.")


def _decode(path: str) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode("ascii")), path.encode("ascii"))
