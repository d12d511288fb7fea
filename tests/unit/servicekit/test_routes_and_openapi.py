"""Routes declared once: what Flask gets, and what the OpenAPI document says about them."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from openapi_spec_validator import validate
from pydantic import Field

from service_orders.app import create_app as create_orders
from service_orders.settings import OrdersSettings
from service_users.app import create_app as create_users
from service_users.settings import UsersSettings
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.openapi import document
from servicekit.web.routes import Answer, Routes
from servicekit.web.schemas import Body, PageQuery, PageView, QueryText, Update, View, unsent
from servicekit.wire.errors import Conflict, NotFound

NOWHERE = "postgresql://u:p@127.0.0.1:1/d"


class PumpCreate(Body):
    name: str
    note: str | None = None


class PumpUpdate(Update):
    name: str = unsent()


class PumpQuery(PageQuery):
    colour: QueryText | None = Field(default=None, description="pumps of this colour")


class PumpView(View):
    id: UUID
    name: str


class PumpPage(PageView):
    pumps: list[PumpView]


class PumpBusy(Conflict):
    """The pump is busy."""

    code = "pump_busy"


def pump_routes() -> Routes:
    api = Routes("pumps")

    @api.get("/pumps", action=Action.PUBLIC)
    def list_pumps(query: PumpQuery) -> PumpPage:
        """List pumps.

        The newest
        first.
        """
        raise NotImplementedError

    @api.post(
        "/pumps",
        action=Action.PUBLIC,
        status=201,
        errors=(PumpBusy,),
        body_may_be_empty=True,
        headers={"Idempotency-Key": "once"},
    )
    def create_pump(body: PumpCreate, headers: dict[str, str]) -> Answer[PumpView]:
        """Make a pump."""
        raise NotImplementedError

    @api.put("/sites/{site_id}/pumps/{id}", action=Action.PUBLIC, errors=(NotFound, PumpBusy))
    def change_pump(site_id: UUID, id: UUID, body: PumpUpdate) -> PumpView:
        """Change a pump."""
        raise NotImplementedError

    return api


@pytest.fixture(scope="module")
def described():
    return json.loads(
        json.dumps(document(title="pumps", version="1", description="All pumps.", routes=[pump_routes()]))
    )


def test_the_document_is_valid_openapi(described):
    validate(described)
    assert described["openapi"].startswith("3.1")
    assert described["info"] == {"title": "pumps", "version": "1", "description": "All pumps."}


def test_there_is_an_operation_for_each_route_and_nothing_else(described):
    assert {(method, path) for path, item in described["paths"].items() for method in item} == {
        ("get", "/pumps"),
        ("post", "/pumps"),
        ("put", "/sites/{site_id}/pumps/{id}"),
        ("patch", "/sites/{site_id}/pumps/{id}"),
    }


def test_an_operation_is_named_and_described_by_its_handler(described):
    operation = described["paths"]["/pumps"]["get"]
    assert (operation["operationId"], operation["tags"]) == ("list_pumps", ["pumps"])
    assert (operation["summary"], operation["description"]) == ("List pumps", "The newest first.")


def test_path_query_and_header_parameters_are_told_apart(described):
    paths = described["paths"]
    assert [(p["name"], p["in"], p["required"]) for p in paths["/sites/{site_id}/pumps/{id}"]["put"]["parameters"]] == [
        ("site_id", "path", True),
        ("id", "path", True),
    ]
    limit, offset, colour = paths["/pumps"]["get"]["parameters"]
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}
    assert offset["schema"]["minimum"] == 0
    assert (colour["name"], colour["in"], colour["required"]) == ("colour", "query", False)
    assert colour["description"] == "pumps of this colour"
    assert (colour["schema"]["type"], "anyOf" in colour["schema"]) == ("string", False)
    (key,) = paths["/pumps"]["post"]["parameters"]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", False)


def test_a_body_is_required_unless_it_may_be_empty(described):
    assert described["paths"]["/pumps"]["post"]["requestBody"]["required"] is False
    assert described["paths"]["/sites/{site_id}/pumps/{id}"]["put"]["requestBody"]["required"] is True


def test_good_and_bad_answers_are_listed_with_their_codes(described):
    responses = described["paths"]["/pumps"]["post"]["responses"]
    assert sorted(responses) == ["201", "400", "409", "413", "415", "503", "504", "default"]
    assert "`pump_busy`: The pump is busy." in responses["409"]["description"]
    assert responses["201"]["content"]["application/json"]["schema"]["properties"] == {
        "success": {"const": True},
        "data": {"$ref": "#/components/schemas/PumpView"},
    }
    assert sorted(described["paths"]["/sites/{site_id}/pumps/{id}"]["put"]["responses"])[:4] == [
        "200", "400", "404", "409",
    ]  # fmt: skip


def test_a_stream_is_described_by_its_events_and_an_answer_without_content_by_its_reason():
    api = Routes("pumps")

    class PumpEvents(View):
        moved: PumpView

    def watch_pump(id):
        """Watch a pump."""

    watch_pump.__annotations__ = {"id": UUID, "return": PumpEvents}
    api.get("/pumps/{id}/events", action=Action.PUBLIC, media_type="text/event-stream", no_content="It is gone.")(
        watch_pump
    )
    made = document(title="t", version="1", description="d", routes=[api])
    validate(made)
    answers = made["paths"]["/pumps/{id}/events"]["get"]["responses"]
    whole, event = answers["200"]["content"]["text/event-stream"]["schema"]["anyOf"]
    assert whole == {"type": "string"}
    assert event["properties"]["event"] == {"const": "moved"}
    assert event["properties"]["data"]["contentSchema"] == {"$ref": "#/components/schemas/PumpView"}
    assert answers["204"] == {"description": "It is gone."}
    assert set(made["components"]["schemas"]) == {"PumpView", "Error"}


def test_nothing_has_null_for_a_default(described):
    assert '"default": null' not in json.dumps(described)


def test_a_handler_with_a_parameter_nobody_fills_is_refused_at_once():
    api = Routes("pumps")

    def handler(id: UUID, colour: str) -> PumpView:
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"GET /pumps/\{id\}: no value for the parameters \['colour'\]"):
        api.get("/pumps/{id}", action=Action.PUBLIC)(handler)


def test_an_operation_that_is_neither_in_the_role_table_nor_guarded_is_refused_at_once():
    with pytest.raises(TypeError, match=r"DELETE /pumps/\{id\}: name an action of the role table, or a guard"):
        Routes("pumps").delete("/pumps/{id}")


def test_a_handler_that_a_guard_alone_protects_has_no_caller_to_ask_for():
    def handler(id: UUID, caller: Principal) -> PumpView:
        raise NotImplementedError

    with pytest.raises(TypeError, match="whoever passes a guard is nobody in particular"):
        Routes("pumps").get("/pumps/{id}", guard=lambda authorization, client: None)(handler)


@pytest.mark.parametrize(
    "app",
    [
        lambda: create_users(UsersSettings(users_database_url=NOWHERE)),
        lambda: create_orders(OrdersSettings(orders_database_url=NOWHERE)),
    ],
    ids=["users", "orders"],
)
def test_each_service_serves_a_valid_document_of_its_routes_without_its_database(app):
    answer = app().test_client().get("/openapi.json")
    assert answer.status_code == 200
    described = answer.json
    validate(described)
    assert described["paths"]
    assert '"default": null' not in json.dumps(described)
    assert "password_hash" not in json.dumps(described)
