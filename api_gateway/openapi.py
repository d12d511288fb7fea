"""Merges the services' OpenAPI documents into one for the whole system. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from api_gateway.route_table import Route

_VARIABLE = re.compile(r"\{[^}]*\}")
_SCHEMAS = "#/components/schemas/"


def merge_documents(
    own: Mapping[str, Any], services: Mapping[str, Mapping[str, Any] | None], routes: Iterable[Route]
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
            tags += _tags([taken])
            paths[path] = {**paths.get(path, {}), **taken}
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
        "components": {**own["components"], "schemas": dict(sorted(schemas.items()))},
    }


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
