"""Builds a service's OpenAPI 3.1 document from the models that validate its requests."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import CoreSchema

from servicekit.identity.roles import Action
from servicekit.identity.tokens import IdentityUnavailable, InvalidToken
from servicekit.web.csv_tables import CSV
from servicekit.web.preconditions import ETAG, IF_MATCH
from servicekit.web.routes import Endpoint, Routes
from servicekit.wire.envelope import status_of
from servicekit.wire.errors import (
    AppError,
    DeadlineExceeded,
    Forbidden,
    Invalid,
    InvalidJson,
    PreconditionFailed,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

REF = "#/components/schemas/{model}"

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Every error of the system.",
    "required": ["success", "error"],
    "additionalProperties": False,
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "additionalProperties": False,
            "properties": {
                "code": {
                    "type": "string",
                    "pattern": "^[a-z][a-z0-9_]*$",
                    "examples": ["not_found"],
                    "description": "stable, for programs",
                },
                "message": {"type": "string", "description": "for a person"},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "additionalProperties": False,
                        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
                "present": {
                    "type": "object",
                    "description": "of precondition_failed, for some resources: what GET shows now",
                },
            },
        },
    },
}


#: The only way to say who calls: RFC 6750.
_BEARER = "bearer"
_SECURITY_SCHEMES: dict[str, Any] = {
    _BEARER: {"type": "http", "scheme": "bearer", "description": "an access token, or at the gateway an API key"}
}
#: How pydantic names a bound in the schema of a type with a validator of its own, and how JSON Schema does.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}

_ETAG_FIELD: dict[str, Any] = {ETAG: {"description": "of the present state", "schema": {"type": "string"}}}


def document(
    *, title: str, version: str, description: str, routes: Sequence[Routes], login: bool = False
) -> dict[str, Any]:
    """Build the whole document, from the declared routes alone; `login` says whether callers must show who they are."""
    endpoints = [endpoint for group in routes for endpoint in group.endpoints]
    schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, login)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "security": [],
        "paths": paths,
        "components": {
            "schemas": {**schemas.definitions, "Error": ERROR_SCHEMA},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


class _JsonSchema(GenerateJsonSchema):
    def generate_inner(self, schema: CoreSchema) -> JsonSchemaValue:
        made = super().generate_inner(schema)
        return {_BOUNDS.get(name, name): value for name, value in made.items()}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it would be the field's own name once more


class _Schemas:
    """Locates each model's schema in the document."""

    def __init__(
        self, refs: dict[tuple[type[Any], JsonSchemaMode], dict[str, Any]], definitions: dict[str, Any]
    ) -> None:
        self._refs = refs
        self.definitions = definitions

    def ref(self, model: type[BaseModel], mode: Literal["validation", "serialization"]) -> dict[str, Any]:
        return self._refs[(model, mode)]


def _schemas(endpoints: Iterable[Endpoint]) -> _Schemas:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for endpoint in endpoints:
        if endpoint.body is not None:
            wanted.append((endpoint.body, "validation"))
        wanted += [(view, "serialization") for view in _views(endpoint)]
    refs, whole = models_json_schema(list(dict.fromkeys(wanted)), ref_template=REF, schema_generator=_JsonSchema)
    return _Schemas({key: dict(value) for key, value in refs.items()}, whole.get("$defs", {}))


def _views(endpoint: Endpoint) -> list[type[BaseModel]]:
    """The views of a successful answer; of a stream, the data of each event."""
    if endpoint.media_type == "application/json":
        return [*endpoint.views]
    return [cast("type[BaseModel]", field.annotation) for field in endpoint.view.model_fields.values()]


def _operation(endpoint: Endpoint, schemas: _Schemas, login: bool) -> dict[str, Any]:
    doc = inspect.getdoc(endpoint.handler) or endpoint.handler.__name__
    summary, _, rest = doc.partition("\n")
    judged = login and endpoint.action not in (None, Action.PUBLIC)
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "tags": [endpoint.tag],
        "summary": summary.rstrip("."),
        "parameters": [
            *_path_parameters(endpoint),
            *_query_parameters(endpoint),
            *_header_parameters(endpoint),
        ],
        "responses": _responses(endpoint, schemas, judged),
    }
    if judged or endpoint.guard is not None:
        operation["security"] = [{_BEARER: []}]
    if rest.strip():
        operation["description"] = " ".join(rest.split())
    if not operation["parameters"]:
        del operation["parameters"]
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": not endpoint.body_may_be_empty,
            "content": {"application/json": {"schema": schemas.ref(endpoint.body, "validation")}},
        }
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    """The handler's name; a PATCH shares its handler with a PUT: `patch_user` beside `update_user`."""
    name = endpoint.handler.__name__
    return f"patch_{name.partition('_')[2]}" if endpoint.method == "PATCH" else name


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"} if kind is str else {"type": "string", "format": "uuid"},
        }
        for name, kind in endpoint.path_parameters.items()
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema(ref_template=REF, schema_generator=_JsonSchema)
    parameters = []
    for name, field in schema.get("properties", {}).items():
        if field.get("default", ...) is None:
            del field["default"]
        options = [option for option in field.pop("anyOf", []) if option != {"type": "null"}]
        if len(options) == 1:
            field = {**options[0], **field}
        elif options:
            field["anyOf"] = options
        description = field.pop("description", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": field}
        if description:
            parameter["description"] = description
        parameters.append(parameter)
    return parameters


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": meaning,
        }
        for name, meaning in _request_fields(endpoint).items()
    ]


def _request_fields(endpoint: Endpoint) -> Mapping[str, str]:
    if not endpoint.conditional:
        return endpoint.headers
    return {**endpoint.headers, IF_MATCH: "ETags that were seen, or `*`: do it only if the present one is among them"}


def _responses(endpoint: Endpoint, schemas: _Schemas, judged: bool) -> dict[str, Any]:
    errors: list[type[AppError]] = [*endpoint.errors]
    if judged:
        errors += [Unauthorized, InvalidToken, Forbidden, IdentityUnavailable]
    if endpoint.body is not None:
        errors += [InvalidJson, Invalid, TooLarge, UnsupportedMediaType]
    elif endpoint.query is not None or endpoint.path_parameters:
        errors.append(Invalid)
    errors += [Unavailable, DeadlineExceeded]
    good = _envelope_of(endpoint, schemas) if endpoint.media_type == "application/json" else _event(endpoint, schemas)
    responses: dict[str, Any] = {
        str(endpoint.status): {"description": "Done.", "content": {endpoint.media_type: {"schema": good}}}
    }
    if endpoint.csv:
        responses[str(endpoint.status)]["content"][CSV] = {"schema": {"type": "string"}}
    if endpoint.tagged:
        responses[str(endpoint.status)]["headers"] = _ETAG_FIELD
    if endpoint.no_content:
        responses["204"] = {"description": endpoint.no_content}
    if endpoint.not_modified:
        responses["304"] = {"description": endpoint.not_modified}
    by_status: dict[int, list[type[AppError]]] = {}
    for error in dict.fromkeys(errors):
        by_status.setdefault(status_of(error), []).append(error)
    for status, classes in sorted(by_status.items()):
        responses[str(status)] = _error_response(classes)
        if PreconditionFailed in classes:
            responses[str(status)]["headers"] = _ETAG_FIELD
    responses["default"] = _error_response([])
    return responses


def _envelope_of(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    data = [schemas.ref(view, "serialization") for view in endpoint.views]
    return {
        "type": "object",
        "required": ["success", "data"],
        "additionalProperties": False,
        "properties": {"success": {"const": True}, "data": data[0] if len(data) == 1 else {"anyOf": data}},
    }


def _event(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    """An event, for readers that take a schema of text/event-stream for that of one event, as was usual before OpenAPI
    3.2 had `itemSchema`; or text, for those that take it for that of the whole answer."""
    events = [
        {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"const": name},
                "id": {"type": "string"},
                "retry": {"type": "integer"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": schemas.ref(view, "serialization"),
                },
            },
        }
        for name, view in zip(endpoint.view.model_fields, _views(endpoint), strict=True)
    ]
    return {"anyOf": [{"type": "string"}, *events]}


def _error_response(classes: Sequence[type[AppError]]) -> dict[str, Any]:
    lines = [f"`{cls.code}`: {(cls.__doc__ or '').partition(chr(10))[0]}" for cls in classes]
    return {
        "description": "\n\n".join(lines) or "Any other error.",
        "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
    }
