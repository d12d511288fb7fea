"""JSON Schemas as tables: a row for each field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.reference.code import sentence, table

_KINDS = {"integer": "whole number", "string": "text", "boolean": "true or false", "array": "list"}
_FORMATS = {"uuid": "UUID", "date-time": "time", "date": "date", "email": "e-mail address"}


def field_rows(schema: Mapping[str, Any], schemas: Mapping[str, Any], *, input: bool = False) -> str:
    """A table of an object's fields; `input` says which are required."""
    needed = schema.get("required", ())
    rows = []
    for name, field in schema.get("properties", {}).items():
        limits = kind(field, schemas)
        if input and name in needed:
            limits += "; **required**"
        elif input and field.get("default") not in (None, {}, []):
            limits += f"; {_json(field['default'])} when left out"
        rows.append((f"`{name}`", limits, sentence(_description(field))))
    return table(("field", "is", "meaning"), rows) if rows else "No fields."


def kind(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """What a value may be: its type and limits, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return kind(schemas[name], schemas) if "enum" in schemas[name] else f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        kinds = [kind({**option, **_limits(field)}, schemas) for option in field["anyOf"]]
        return "; or ".join(dict.fromkeys(kinds))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if field.get("type") == "null":
        return "null"
    if field.get("type") == "array":
        return f"list of {kind(field.get('items', {}), schemas)}{_count(field, 'minItems', 'maxItems', ' of them')}"
    if field.get("type") == "object":
        return _object(field, schemas)
    if "type" not in field:
        return "any JSON"
    name = _FORMATS.get(field.get("format", ""), _KINDS.get(field["type"], field["type"]))
    size = _count(field, "minLength", "maxLength", " characters")
    return f"{name}{size}{_count(field, 'minimum', 'maximum', '')}"


def _object(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    values = field.get("additionalProperties")
    return f"object of {kind(values, schemas)}" if isinstance(values, dict) and values else "object"


def _limits(field: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in field.items() if name in {"minimum", "maximum", "minLength", "maxLength"}}


def _count(field: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = field.get(least), field.get(most)
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:,}{unit}"
    return f", {low:,} to {high:,}{unit}" if low is not None else f", at most {high:,}{unit}"


def _description(field: Mapping[str, Any]) -> str:
    return str(field.get("description", ""))


def _json(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
