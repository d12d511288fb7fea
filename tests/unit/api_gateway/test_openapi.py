"""One document out of several."""

from __future__ import annotations

from typing import Any

from api_gateway.openapi import merge_documents
from api_gateway.route_table import ROUTES

OWN: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Siteworks", "version": "1", "description": "All of it."},
    "paths": {"/health": {"get": {"operationId": "health", "tags": ["gateway"]}}},
    "components": {"schemas": {"Error": {"type": "object"}}},
}


def service(path: str, *, schema: dict[str, Any], tag: str = "things") -> dict[str, Any]:
    operation = {"operationId": "list_all", "tags": [tag], "schema": {"$ref": "#/components/schemas/Thing"}}
    return {
        "paths": {path: {"get": operation}},
        "components": {"schemas": {"Error": {"type": "object"}, "Thing": schema}},
    }


def test_every_routed_path_is_there_and_addresses_are_relative() -> None:
    made = merge_documents(OWN, {"users": service("/users", schema={"type": "string"})}, ROUTES)
    assert sorted(made["paths"]) == ["/health", "/users"]
    assert made["servers"] == [{"url": "/"}]


def page_of(path: str, view: str, properties: dict[str, Any]) -> dict[str, Any]:
    data = {"$ref": f"#/components/schemas/{view}"}
    envelope = {"properties": {"success": {"const": True}, "data": data}}
    answer = {"headers": {"ETag": {}}, "content": {"application/json": {"schema": envelope}}}
    operation = {"operationId": f"get_{view}", "tags": ["things"], "responses": {"200": answer, "404": {}}}
    return {"paths": {path: {"get": operation}}, "components": {"schemas": {view: {"properties": properties}}}}


def test_a_merged_page_is_described_by_what_its_parts_say() -> None:
    users = page_of("/users/{id}", "UserView", {"name": {"type": "string"}})
    orders = page_of("/orders", "OrderPage", {"orders": {"type": "array"}, "total": {"type": "integer"}})
    made = merge_documents(OWN, {"users": users, "orders": orders}, ROUTES)
    shown = made["paths"]["/users/{id}/details"]["get"]
    assert (shown["operationId"], set(shown["responses"])) == ("show_user_details", {"200", "404"})
    assert "headers" not in shown["responses"]["200"]
    answer = shown["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"]
    fields = made["components"]["schemas"][answer["$ref"].rpartition("/")[2]]["properties"]
    assert list(fields) == ["user", "orders", "orders_total", "partial", "missing"]
    assert fields["user"] == {"$ref": "#/components/schemas/UserView"}
    assert fields["orders"] == {"anyOf": [{"type": "array"}, {"type": "null"}]}
    assert made["paths"]["/users/{id}"]["get"] == users["paths"]["/users/{id}"]["get"]


def test_a_merged_page_needs_the_document_of_its_required_part_alone() -> None:
    users = page_of("/users/{id}", "UserView", {})
    # What is not one view is described all the same.
    envelope = users["paths"]["/users/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    whole = envelope["properties"]["data"] = {"anyOf": [{"$ref": "#/components/schemas/UserView"}, {"type": "null"}]}
    made = merge_documents(OWN, {"users": users, "orders": None}, ROUTES)
    assert made["components"]["schemas"]["UserDetails"]["properties"]["user"] == whole
    assert made["components"]["schemas"]["UserDetails"]["properties"]["orders"] == {"anyOf": [{}, {"type": "null"}]}
    assert "/users/{id}/details" not in merge_documents(OWN, {"users": None, "orders": None}, ROUTES)["paths"]


def test_the_services_come_before_the_gateways_own_pages() -> None:
    services = {name: service(f"/{name}", schema={}, tag=name) for name in ("users", "tasks")}
    made = merge_documents(OWN, {**services, "orders": None}, ROUTES)
    assert [tag["name"] for tag in made["tags"]] == ["users", "tasks", "gateway"]


def test_a_variables_name_does_not_matter_for_its_route() -> None:
    made = merge_documents(OWN, {"users": service("/users/{user_id}", schema={})}, ROUTES)
    assert "/users/{user_id}" in made["paths"]


def test_a_path_that_leads_nowhere_or_elsewhere_is_left_out() -> None:
    made = merge_documents(
        OWN, {"users": service("/orders", schema={}), "tasks": service("/internal", schema={})}, ROUTES
    )
    assert sorted(made["paths"]) == ["/health"]


def test_schemas_of_one_name_and_two_meanings_are_told_apart() -> None:
    made = merge_documents(
        OWN,
        {
            "users": service("/users", schema={"type": "string"}),
            "orders": service("/orders", schema={"type": "number"}),
        },
        ROUTES,
    )
    schemas = made["components"]["schemas"]
    assert schemas["Thing"] == {"type": "string"}
    assert schemas["OrdersThing"] == {"type": "number"}
    assert made["paths"]["/orders"]["get"]["schema"] == {"$ref": "#/components/schemas/OrdersThing"}
    assert made["paths"]["/users"]["get"]["schema"] == {"$ref": "#/components/schemas/Thing"}


def test_operation_ids_stay_unique() -> None:
    made = merge_documents(
        OWN, {"users": service("/users", schema={}), "orders": service("/orders", schema={})}, ROUTES
    )
    ids = [operation["operationId"] for item in made["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_a_service_that_does_not_answer_is_named() -> None:
    made = merge_documents(OWN, {"users": None}, ROUTES)
    assert "users" in made["info"]["description"]
    assert OWN["info"]["description"] == "All of it."


def test_a_browsers_session_opens_what_a_token_does_where_people_log_in() -> None:
    document = service("/users", schema={"type": "string"})
    for security in ([], [{"bearer": []}]):
        operation = document["paths"]["/users"]["get"]
        operation.pop("security", None)
        if security:
            operation["security"] = security
        made = merge_documents(OWN, {"users": document}, ROUTES)
        opens = made["paths"]["/users"]["get"].get("security", [])
        assert opens == ([*security, {"cookie": []}] if security else [])
        assert ("cookie" in made["components"]["securitySchemes"]) is bool(security)
