"""Strict JSON parsing (RFC 8259) for all input: HTTP bodies, queue messages, other services' answers. Also parses our
own handlers' results and stored values, without those limits."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

from servicekit.wire.errors import FieldError, InvalidJson

MAX_DEPTH = 32
MAX_NUMBER_DIGITS = 40
MAX_STORED_DEPTH = 500
#: Capacity of PostgreSQL's `numeric`, before and after the point.
_NUMERIC_DIGITS, _NUMERIC_DECIMALS = 131_072, 16_383
#: Python refuses longer ones (sys.set_int_max_str_digits), which could take minutes.
_LONGEST_INT = 4000
#: Memory of a value per mark. An empty list, which has two, takes 80 bytes, a Decimal 112.
_VALUE_BYTES = 128
#: Below this many marks, 24 MiB, it is not worth finding out how many of them are inside strings.
_MANY = 24 * 1024 * 1024 // _VALUE_BYTES
# Possessive, and the closing quote is optional: it passes over each byte once.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_ASTRAL = re.compile(rb"[\xf0-\xf4]")
_ESCAPED_ASTRAL = re.compile(rb"\\u[dD][89abAB]")
_FURTHER_BYTES = bytes(range(0x80, 0xC0))
_SHOWN = 20  # characters of a refused number that the answer repeats


class _Refused(ValueError):
    """Raised inside the parser's hooks; its text is for people."""


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _too_long(number: str) -> _Refused:
    return _Refused(f"the number {_shortened(number)} has more than {MAX_NUMBER_DIGITS} digits")


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_NUMBER_DIGITS:
        raise _too_long(text)
    return int(text)


def _decimal(text: str) -> Decimal:
    mantissa, _, exponent = text.lower().partition("e")
    # Check the length of the exponent first: Decimal() of a long one is costly or infinite.
    if len(mantissa) > MAX_NUMBER_DIGITS + 2 or len(exponent) > 4:
        raise _too_long(text)
    value = Decimal(text)
    parts = value.as_tuple()
    scale = int(parts.exponent)  # always a number: NaN and infinities never reach this hook
    before, after = max(len(parts.digits) + scale, 0), max(-scale, 0)
    if before + after > MAX_NUMBER_DIGITS:
        raise _too_long(text)
    # Exponents are expanded here, so that no later code ever writes 1E+2.
    return Decimal(format(value, "f"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key[:50]!r} appears twice")
            seen.add(key)
    return result


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_decimal
)


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) < _LONGEST_INT else Decimal(text)


def _numeric(text: str) -> Decimal | None:
    """None for a number that is short enough for `numeric` and written as `numeric` would write it."""
    if len(text) < _NUMERIC_DECIMALS and "e" not in text and "E" not in text:
        return None
    try:
        return Decimal(text)
    except ArithmeticError as exc:
        raise _Refused(f"the number {_shortened(text)} is too large or too small") from exc


_STORED = json.JSONDecoder(parse_int=_whole, parse_float=Decimal)
_ANSWER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_whole, parse_float=Decimal
)
_STORABLE = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_numeric, parse_float=_numeric
)


def _invalid(problem: str, path: str | None = None) -> InvalidJson:
    details = [] if path is None else [FieldError(path, problem)]
    return InvalidJson(f"Invalid JSON: {problem}.", details=details)


def _check_text(text: str, trail: list[str]) -> None:
    if "\0" in text:
        raise _invalid("a string holds the character U+0000", _path(trail))
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise _invalid("a string holds half of a surrogate pair", _path(trail)) from exc


def _path(trail: list[str]) -> str:
    return ".".join(trail)[:200] or "body"


def _check_tree(value: Any, trail: list[str]) -> None:
    """`trail` holds the keys and indexes that lead to the value. Recurses only as deep as a tree may be nested."""
    kind = type(value)
    if kind is str:
        _check_text(value, trail)
        return
    if kind is not dict and kind is not list:
        return
    if len(trail) >= MAX_DEPTH:
        raise _invalid(f"nested deeper than {MAX_DEPTH} levels")
    if kind is dict:
        for key in value:
            if "\0" in key or not key.isascii():
                _check_text(key, trail)
    for key, child in value.items() if kind is dict else enumerate(value):
        kind = type(child)
        if kind is dict or kind is list or (kind is str and ("\0" in child or not child.isascii())):
            trail.append(str(key))
            _check_tree(child, trail)
            trail.pop()


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def weight(raw: bytes) -> int:
    """Estimate the memory that reading this JSON takes, in bytes, as text and as values, without parsing it. One huge
    object or string may briefly take up to twice as much.

    A megabyte of `[[],[],[],…` makes a tree of thirty, so values are counted, by the marks before or between them.
    """
    # Python stores a string at the width of its widest character, which an escape may introduce in a value alone.
    text = 1 if raw.isascii() else 4 if _ASTRAL.search(raw) else 2
    value = max(text, (4 if _ESCAPED_ASTRAL.search(raw) else 2) if b"\\u" in raw else 1)
    characters = len(raw) if text == 1 else len(raw.translate(None, _FURTHER_BYTES))
    values = _marks(raw)
    if values > _MANY:
        values = _marks(_TEXT.sub(b"", raw))
    return (text + value) * characters + _VALUE_BYTES * values


def read_json(raw: bytes | str) -> Any:
    """Parse one JSON text, in UTF-8 or already decoded.

    Numbers with a point or an exponent become Decimal, others int. Raises `InvalidJson` for broken UTF-8, a byte order
    mark, duplicate keys, NaN and infinities, U+0000, half surrogate pairs, more than 32 levels, numbers of more than 40
    digits written out, and anything after the value.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _invalid(f"it is not UTF-8 (byte {exc.start})") from exc
    if text.startswith("\ufeff"):
        raise _invalid("it starts with a byte order mark (RFC 8259 section 8.1 wants none)")
    try:
        value, end = _DECODER.raw_decode(text, _skip_space(text, 0))
    except json.JSONDecodeError as exc:
        raise _invalid(f"{exc.msg} (line {exc.lineno}, column {exc.colno})") from exc
    except RecursionError as exc:
        raise _invalid(f"nested deeper than {MAX_DEPTH} levels") from exc
    except _Refused as exc:
        raise _invalid(str(exc)) from exc
    rest = _skip_space(text, end)
    if rest != len(text):
        raise _invalid(f"there is more after the value (character {rest + 1})")
    # The tree has copies.
    del text
    _check_tree(value, [])
    return value


def read_stored(text: str) -> Any:
    """Parse JSON from a jsonb column, without the limits of requests.

    Numbers are as in `read_json`, except that an integer too long for `int` becomes Decimal too.
    """
    return _STORED.decode(text)


def read_any_json(raw: bytes) -> Any:
    """Parse another service's JSON, which may hold whatever a database can, without the limits of requests.

    Raises `InvalidJson` for anything but JSON in UTF-8, and for duplicate keys. Numbers are as in `read_stored`.
    """
    try:
        return _ANSWER.decode(raw.decode("utf-8"))
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise InvalidJson from exc


def check_storable(text: str, largest: int) -> None:
    """Raise `InvalidJson` unless PostgreSQL can store this JSON as jsonb and return it unchanged.

    jsonb has no duplicate keys and no U+0000; its numbers are `numeric`, written out without exponents. `largest`
    limits that written form, in bytes. MAX_STORED_DEPTH is ours: most parsers stop at a thousand levels.
    """
    try:
        value = _STORABLE.decode(text)
        size = len(text.encode("utf-8"))
    except RecursionError as exc:
        raise _invalid(f"nested deeper than {MAX_STORED_DEPTH} levels") from exc
    except UnicodeEncodeError as exc:
        raise _invalid("a string holds half of a surrogate pair") from exc
    except ValueError as exc:
        raise _invalid(str(exc)) from exc
    level = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, Decimal):
                size += _written_out(item)
                if size > largest:
                    raise _invalid(f"its numbers take more than {largest} bytes without exponents")
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and "\0" in item:
                raise _invalid("a string holds the character U+0000")
        if below and (depth := depth + 1) > MAX_STORED_DEPTH:
            raise _invalid(f"nested deeper than {MAX_STORED_DEPTH} levels")
        level = below


def _written_out(number: Decimal) -> int:
    """The least number of digits that `numeric` writes; refuses what it cannot hold."""
    if not number.is_finite():
        raise _invalid("a number is not finite")
    exponent = int(number.as_tuple().exponent)
    if (number and number.adjusted() >= _NUMERIC_DIGITS) or -exponent > _NUMERIC_DECIMALS:
        raise _invalid(
            f"a number has more than {_NUMERIC_DIGITS} digits before its point or {_NUMERIC_DECIMALS} after it"
        )
    return max(number.adjusted(), -exponent, 0)


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start
