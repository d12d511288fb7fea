"""Every operation of the gateway, from its OpenAPI document."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from api_gateway.control import make_control
from api_gateway.route_table import PAGES, ROUTES
from scripts.reference.code import sentence, table
from scripts.reference.schemas import field_rows, kind
from scripts.reference.settings import by_process
from service_tasks.streams.routes import stream_routes
from servicekit.observing.metrics import Metrics
from servicekit.process.services import services
from servicekit.process.settings import ServiceSettings
from servicekit.web.app import ServiceApp
from servicekit.web.openapi import document as document_of
from servicekit.wire.envelope import dump

#: Nothing listens there: building an application needs no database.
_AWAY = "postgresql://role:secret@127.0.0.1:1/away"
_CODE = re.compile(r"`(\w+)`:")
_OF_A_BODY = {"invalid_json", "body_too_large", "unsupported_media_type"}


def application(name: str) -> ServiceApp:
    """The application of a service, with default settings and an unreachable database."""
    settings: Any = next(one for one in by_process()[name] if issubclass(one, ServiceSettings))
    required = {field: _AWAY for field, info in settings.model_fields.items() if info.is_required()}
    package = importlib.import_module(f"{services()[name].package}.app")
    app: ServiceApp = package.create_app(settings(_env_file=None, auth="off", **required))
    return app


def documents() -> dict[str, bytes]:
    """The OpenAPI document of each upstream, as it serves it."""
    found = {name: application(name).test_client().get("/openapi.json").data for name in services()}
    return {**found, "events": dump(document_of(title="", version="", description="", routes=[stream_routes()]))}


def document() -> dict[str, Any]:
    """What the gateway answers to `GET /openapi.json` when every upstream answers."""
    given = documents()
    gateway = make_control(
        circuits=dict.fromkeys(given),  # type: ignore[arg-type]  # only their names are used
        routes=(*ROUTES, *PAGES),
        metrics=Metrics("api_gateway"),
        fetch_documents=lambda: given,
        admin_token=None,
    )
    found: dict[str, Any] = json.loads(gateway.test_client().get("/openapi.json").data)
    return found


def page() -> str:
    """docs/reference/endpoints.md."""
    whole = document()
    schemas = whole["components"]["schemas"]
    operations = list(_operations(whole))
    common = set.intersection(*({code for _, code in _codes(one)} for _, _, one in operations)) | _OF_A_BODY
    parts = [
        "# Endpoints",
        "Every operation, with its fields, limits and errors; [http_api.md](../http_api.md) says what is the same for "
        "all, and [errors.md](errors.md) what each code means. Where there is a `PUT`, `PATCH` does the same. The "
        "paths of the services are there under `/api/v1` as well. `./scripts/docs` writes this page from the gateway's "
        "OpenAPI document.",
        "Any operation may also answer with 503 `database_unavailable` or `overloaded`, 504 `deadline_exceeded` or "
        "`database_too_slow`, and what the gateway says while a service is away; any that takes a body with 400 "
        "`invalid_json`, 413 `body_too_large` and 415 `unsupported_media_type`.",
    ]
    for tag in dict.fromkeys(one["tags"][0] for _, _, one in operations):
        mine = [operation for operation in operations if operation[2]["tags"][0] == tag]
        rows = [
            (f"[`{method} {path}`](#{anchor(method, path)})", sentence(one["summary"])) for method, path, one in mine
        ]
        parts += [f"## {tag.capitalize()}", table(("operation", "what it does"), rows)]
        for method, path, one in mine:
            parts += _operation(method, path, one, schemas, common)
    pages = [
        f"`GET {row.template}`"
        for row in PAGES
        if row.template not in whole["paths"] and not row.template.startswith("/swagger/")
    ]
    parts += ["## Pages", f"{', '.join(pages)}: not in the document, and never limited.", "## Shapes"]
    bodies = {_body(one) for _, _, one in operations}
    linked = "\n".join(parts) + "".join(field_rows(schema, schemas) for schema in schemas.values())
    for name, schema in schemas.items():
        if "properties" in schema and (name not in bodies or f"(#{name.lower()})" in linked):
            parts += [f"### {name}", sentence(schema.get("description", "")), field_rows(schema, schemas)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _operations(whole: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operations in the order of the gateway's routes, without each PATCH, which is a PUT once more."""
    order = [row.template for row in (*ROUTES, *PAGES)]
    for path, item in sorted(whole["paths"].items(), key=lambda one: order.index(one[0])):
        for method, operation in item.items():
            if method != "patch":
                yield method.upper(), path, operation


def _operation(
    method: str, path: str, one: Mapping[str, Any], schemas: Mapping[str, Any], common: set[str]
) -> Iterator[str]:
    yield f"### {method} {path}"
    yield f"{sentence(one['summary'])} {sentence(one.get('description', ''))}".strip()
    parameters = [
        (f"`{each['name']}`", each["in"], kind(each["schema"], schemas), sentence(each.get("description", "")))
        for each in one.get("parameters", ())
        if each["in"] != "path"
    ]
    if parameters:
        yield table(("parameter", "in", "is", "meaning"), parameters)
    if body := _body(one):
        yield f"Body: {body}{'' if one['requestBody']['required'] else ', or none'}."
        yield field_rows(schemas[body], schemas, input=True)
    answers = [
        f"**{status}** {_shape(one['responses'][status], schemas)}".strip()
        for status in one["responses"]
        if status < "3"
    ]
    by_status: dict[str, list[str]] = {}
    for status, code in _codes(one):
        if code not in common:
            by_status.setdefault(status, []).append(f"`{code}`")
    yield "; ".join([*answers, *(f"{status} {', '.join(codes)}" for status, codes in by_status.items())]) + "."


def _body(one: Mapping[str, Any]) -> str:
    """The name of the shape that the operation takes, if it takes one."""
    content = one.get("requestBody", {}).get("content", {})
    return content["application/json"]["schema"]["$ref"].rpartition("/")[2] if content else ""


def _codes(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in one["responses"].items():
        for code in _CODE.findall(answer["description"]):
            yield status, code


def _shape(answer: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    for media_type, content in answer.get("content", {}).items():
        if media_type == "application/json":
            others = "".join(f", or `{one}`" for one in answer["content"] if one != media_type)
            return kind(content["schema"]["properties"]["data"], schemas) + others
        said = (one["properties"] for one in content["schema"]["anyOf"] if "properties" in one)
        shapes = [f"`{one['event']['const']}` {kind(one['data']['contentSchema'], schemas)}" for one in said]
        return f"`{media_type}` of {', '.join(shapes)}"
    return ""


def anchor(method: str, path: str) -> str:
    """Where an operation stands on the page."""
    return re.sub(r"[^\w\- ]", "", f"{method} {path}".lower()).replace(" ", "-")
