"""The OpenAPI document that the gateway serves: valid, and such that generators and readers take all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from api_gateway.route_table import PAGES, ROUTES
from scripts.reference.endpoints import document, documents
from servicekit.web.schemas import Body, parse_body

#: Keywords of JSON Schema 2020-12 and of OpenAPI 3.1 that the documents use.
KEYWORDS = {
    "$ref", "additionalProperties", "anyOf", "const", "contentMediaType", "contentSchema", "default", "description",
    "enum", "examples", "format", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum",
    "oneOf", "pattern", "properties", "required", "title", "type", "uniqueItems", "writeOnly",
}  # fmt: skip


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def schemas(value: Any, *, inside: str = "") -> Iterator[dict[str, Any]]:
    """Every schema in the document, however deep."""
    if isinstance(value, list):
        for child in value:
            yield from schemas(child, inside=inside)
    elif isinstance(value, dict):
        named = inside in {"properties", "schemas"}  # the keys are names of fields or schemas
        if not named and inside in {"schema", "items", "anyOf", "oneOf", "contentSchema", "of a name"}:
            yield value
        for name, child in value.items():
            if name not in {"default", "examples", "const", "enum"} or named:
                yield from schemas(child, inside="of a name" if named else name)


def subclasses(model: type[Body]) -> Iterator[type[Body]]:
    for one in model.__subclasses__():
        yield one
        yield from subclasses(one)


def test_the_document_is_valid_with_its_defaults_and_examples(described: dict[str, Any]) -> None:
    validate(described)


def test_schemas_use_no_keyword_that_json_schema_does_not_know(described: dict[str, Any]) -> None:
    found = list(schemas(described))

    assert len(found) > 400
    assert set().union(*found) <= KEYWORDS


def test_the_bounds_of_a_number_with_a_check_of_its_own_are_told(described: dict[str, Any]) -> None:
    fields = described["components"]["schemas"]["TaskCreate"]["properties"]

    assert fields["timeout"]["anyOf"][0] == {"type": "number", "minimum": 0.1, "maximum": 86400}


def test_the_values_of_an_enum_give_different_names_in_every_language(described: dict[str, Any]) -> None:
    """Generators make a constant of each value, whatever its case and its spaces."""
    for schema in schemas(described):
        names = [re.sub(r"\W", "_", str(value)).lower() for value in schema.get("enum", ())]
        assert len(names) == len(set(names)), schema


def test_every_tag_has_an_operation_and_the_gateways_own_come_last(described: dict[str, Any]) -> None:
    listed = [tag["name"] for tag in described["tags"]]

    assert set(listed) == {tag for _, _, operation in operations(described) for tag in operation["tags"]}
    assert (listed[0], listed[-1]) == ("users", "gateway")


def test_where_a_body_or_an_answer_has_a_pattern_it_has_an_example(described: dict[str, Any]) -> None:
    """Readers show an example made up from the pattern otherwise, another each time."""
    in_bodies = [*schemas(described["components"], inside="components"), *schemas(
        [operation["responses"] for _, _, operation in operations(described)]
    )]  # fmt: skip
    with_pattern = [schema for schema in in_bodies if "pattern" in schema]

    assert len(with_pattern) >= 4
    for schema in with_pattern:
        assert re.search(schema["pattern"], schema["examples"][0]), schema


def test_the_example_of_every_body_is_one_that_is_taken(described: dict[str, Any]) -> None:
    """Readers would fill in every field, and so ask for what nobody wants or nothing takes."""
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(described)
        if "requestBody" in operation
    }
    models = {model.__name__: model for model in subclasses(Body)}

    assert len(bodies) >= 12
    for name in bodies:
        (example,) = described["components"]["schemas"][name]["examples"]
        parse_body(models[name], json.dumps(example), "application/json")


def test_names_do_not_depend_on_which_services_answer(described: dict[str, Any]) -> None:
    """A name that two services use gets a prefix in one of them, but only while both answer."""
    parts = [json.loads(given) for given in documents().values()]
    ids = [operation["operationId"] for part in parts for _, _, operation in operations(part)]

    assert len(ids) == len(set(ids))
    assert {operation["operationId"] for _, _, operation in operations(described)} >= set(ids)
    for part in parts:
        for name, schema in part["components"]["schemas"].items():
            assert described["components"]["schemas"][name] == schema, name


def test_the_gateway_lets_every_operation_of_the_document_pass(described: dict[str, Any]) -> None:
    methods = {re.sub(r"\{\w+\}", "{}", row.template): row.methods for row in (*ROUTES, *PAGES)}
    for method, path, _ in operations(described):
        assert method in methods[re.sub(r"\{\w+\}", "{}", path)], f"{method} {path}"


def test_patch_is_offered_where_put_is_and_takes_and_gives_the_same(described: dict[str, Any]) -> None:
    found = [item for item in described["paths"].values() if "put" in item or "patch" in item]

    assert len(found) >= 4
    for item in found:
        put, patch = dict(item["put"]), dict(item["patch"])
        assert put.pop("operationId").partition("_")[::2] == ("update", patch.pop("operationId").partition("_")[2])
        assert put == patch


def test_only_what_needs_a_token_says_so(described: dict[str, Any]) -> None:
    assert described["security"] == []
    guarded = {path: operation["security"] for _, path, operation in operations(described) if "security" in operation}
    assert guarded == {"/admin/circuits/{name}": [{"bearer": []}]}
    schemes = described["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert "cookie" not in schemes, "nobody logs in here"
