"""Merges the services' OpenAPI documents into one for the whole system. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api_gateway.route_table import Part, Route

_VARIABLE = re.compile(r"\{[^}]*\}")
_SCHEMAS = "#/components/schemas/"
#: What a service takes as an access token the gateway takes as a browser's session too, and makes the one of the other.
_COOKIE = {
    "type": "apiKey",
    "in": "cookie",
    "name": "siteworks",
    "description": "the session of a browser, which it sends by itself; over TLS `__Host-siteworks`",
}


def merge_documents(
    own: Mapping[str, Any], services: Mapping[str, Mapping[str, Any] | None], routes: Sequence[Route]
) -> dict[str, Any]:
    """Merge the gateway's own document with every path that has a route.

    A schema name that two services use differently, or a duplicate operation id, is prefixed with the service's name.
    The description lists services without a document (None).
    """
    wanted = {(route.upstream, _shape(route.template)) for route in routes if route.upstream and not route.parts}
    paths: dict[str, Any] = dict(own["paths"])
    schemas: dict[str, Any] = dict(own["components"]["schemas"])
    used_ids = {operation["operationId"] for item in paths.values() for operation in item.values()}
    tags: list[str] = []
    missing = []
    logins = False
    for service, document in services.items():
        if document is None:
            missing.append(service)
            continue
        renamed = _take_schemas(service, document, schemas)
        for path, item in document.get("paths", {}).items():
            if (service, _shape(path)) not in wanted:
                continue
            taken = _with_refs(item, renamed)
            for operation in taken.values():
                if operation.get("operationId") in used_ids:
                    operation["operationId"] = f"{service}_{operation['operationId']}"
                used_ids.add(operation.get("operationId"))
                if "security" in operation:
                    logins = True
                    operation["security"] = [*operation["security"], {"cookie": []}]
            tags += _tags([taken])
            paths[path] = {**paths.get(path, {}), **taken}
    for route in routes:
        if route.parts:
            _add_merged(route, paths, schemas)
    info = dict(own["info"])
    if missing:
        info["description"] += f"\n\nNot shown, because not reachable at the moment: {', '.join(missing)}."
    return {
        **own,
        "info": info,
        "servers": [{"url": "/"}],
        # Readers show groups in this order: most wanted first.
        "tags": [{"name": name} for name in dict.fromkeys((*tags, *_tags(own["paths"].values())))],
        "paths": dict(sorted(paths.items())),
        "components": {
            **own["components"],
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": own["components"].get("securitySchemes", {}) | ({"cookie": _COOKIE} if logins else {}),
        },
    }


def _add_merged(route: Route, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add a page merged from parts: the operation of its first part, whose refusals are its own, with another answer.

    Nothing is added while that part's service has no document.
    """
    operations = {_shape(path): item["get"] for path, item in paths.items() if "get" in item}
    try:
        operation = copy.deepcopy(operations[_shape(route.parts[0].target.partition("?")[0])])
        answer = operation["responses"]["200"]["content"]["application/json"]
        envelope = answer["schema"]["properties"]
    except (TypeError, LookupError):
        return
    fields = {
        name: {"anyOf": [schema, {"type": "null"}]} if part.optional else schema
        for part in route.parts
        for name, schema in _fields_of(part, operations, schemas).items()
    }
    optional = [part.upstream for part in route.parts if part.optional]
    name = "".join(map(str.capitalize, route.name.split("_")))
    schemas[name] = {
        "type": "object",
        "description": f"{route.summary}. While {' or '.join(optional)} cannot be had, `partial` is true and `missing` "
        "says why.",
        "required": [*fields, "partial"],
        "properties": {
            **fields,
            "partial": {"type": "boolean", "description": "a part is missing; the status is 200 all the same"},
            "missing": {
                "type": "object",
                "description": "only then: the code and message of each missing part, by service",
                "additionalProperties": {"$ref": f"{_SCHEMAS}MissingPart"},
            },
        },
    }
    schemas["MissingPart"] = {
        "type": "object",
        "description": "Why a part is missing.",
        "required": ["code", "message"],
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    }
    envelope["data"] = {"$ref": _SCHEMAS + name}
    operation["responses"]["200"].pop("headers", None)
    paths[route.template] = {"get": {**operation, "operationId": f"show_{route.name}", "summary": route.summary}}


def _fields_of(part: Part, operations: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of each field that a part gives; of any value while its service has no document."""
    try:
        operation = operations[_shape(part.target.partition("?")[0])]
        whole = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"]
        return {
            name: whole if field is None else schemas[whole["$ref"].removeprefix(_SCHEMAS)]["properties"][field]
            for name, field in part.fields.items()
        }
    except (TypeError, LookupError):
        return {name: {} for name in part.fields}


def _tags(items: Iterable[Mapping[str, Any]]) -> list[str]:
    return [tag for item in items for operation in item.values() for tag in operation.get("tags", ())]


def _shape(path: str) -> str:
    return _VARIABLE.sub("{}", path)


def _take_schemas(service: str, document: Mapping[str, Any], schemas: dict[str, Any]) -> dict[str, str]:
    """Add a service's schemas; returns the renamed ones, old name to new."""
    theirs = document.get("components", {}).get("schemas", {})
    renamed = {
        name: f"{service.capitalize()}{name}" for name, schema in theirs.items() if schemas.get(name, schema) != schema
    }
    for name, schema in theirs.items():
        schemas[renamed.get(name, name)] = _with_refs(schema, renamed)
    return renamed


def _with_refs(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _SCHEMAS + renamed.get(child.removeprefix(_SCHEMAS), child.removeprefix(_SCHEMAS))
            if key == "$ref" and isinstance(child, str) and child.startswith(_SCHEMAS)
            else _with_refs(child, renamed)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_with_refs(child, renamed) for child in value]
    return value
