"""Every error of every service has the one shape that its own OpenAPI document promises.

The operations come from each document, so a new route is covered on the day it is declared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from scripts.reference.endpoints import application
from servicekit.process.services import services

AN_ID = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"


@pytest.fixture(scope="module", params=services())
def client(request) -> FlaskClient:
    # What needs the database fails, and everything before it is judged without one.
    return application(request.param).test_client()


@pytest.fixture(scope="module")
def described(client) -> dict:
    return client.get("/openapi.json").json


@pytest.fixture(scope="module")
def error_shape(described) -> Draft202012Validator:
    return Draft202012Validator(described["components"]["schemas"]["Error"])


#: Takes whatever the sign-in provider sends along; where nobody logs in, there is none.
SIGN_IN = "/auth/oidc/callback"


def operations(described: dict) -> Iterator[tuple[str, str, dict]]:
    for template, item in described["paths"].items():
        for method, operation in item.items():
            yield method.upper(), template, operation


def path_of(template: str, id: str = AN_ID) -> str:
    return re.sub(r"\{\w+\}", id, template)


def refused(answer, error_shape: Draft202012Validator, *statuses: int) -> dict:
    assert answer.status_code in statuses, (answer.request.method, answer.request.path, answer.data)
    assert answer.content_type == "application/json"
    assert answer.headers["X-Request-ID"]
    body = json.loads(answer.data)
    error_shape.validate(body)
    for inside in (b"secret", b"127.0.0.1", b"Traceback", b"SELECT", b"psycopg2", b"site-packages"):
        assert inside not in answer.data
    return body["error"]


def test_the_shape_itself_is_closed(error_shape):
    good = {"success": False, "error": {"code": "user_not_found", "message": "x"}}
    assert error_shape.is_valid(good)
    for wrong in (
        good | {"success": True},
        good | {"data": None},
        {"success": False, "error": {"code": "user_not_found"}},
        {"success": False, "error": {"code": "Not Found", "message": "x"}},
        {"success": False, "error": {"code": "x", "message": "x", "trace": "x"}},
    ):
        assert not error_shape.is_valid(wrong)


def test_an_unknown_address(client, error_shape):
    for path in ("/", "/nothing", "/openapi.json/", "/%ff", "/a/../b"):
        assert refused(client.get(path), error_shape, 404)["code"] == "not_found"


def test_a_method_no_operation_has(client, described, error_shape):
    for template in described["paths"]:
        answer = client.open(path_of(template), method="BREW")
        assert refused(answer, error_shape, 405)["code"] == "method_not_allowed"
        assert set(described["paths"][template]) <= set(answer.headers["Allow"].lower().split(", "))


def test_an_id_that_is_none(client, described, error_shape):
    for method, template, _ in operations(described):
        if "{" in template:
            # Any short text names a task type; of an id nearly none will do.
            wrong = "x" * 51 if "{name}" in template else "1"
            error = refused(client.open(path_of(template, wrong), method=method, json={}), error_shape, 400)
            assert error["code"] == "invalid_input"
            assert error["details"]


def test_time_that_is_gone(client, described, error_shape):
    for method, template, _ in operations(described):
        answer = client.open(path_of(template), method=method, json={}, headers={"X-Request-Timeout-Ms": "0"})
        assert refused(answer, error_shape, 504)["code"] == "deadline_exceeded"


def test_a_query_parameter_nobody_knows(client, described, error_shape):
    for method, template, operation in operations(described):
        if template != SIGN_IN and any(one["in"] == "query" for one in operation.get("parameters", [])):
            answer = client.open(path_of(template) + "?unheard=1", method=method)
            assert refused(answer, error_shape, 400)["details"] == [{"field": "unheard", "message": "unknown field"}]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"unheard": 1}', "application/json", 400),
        (b'{"\xff": 1}', "application/json", 400),
        (b"[" * 4_000, "application/json", 400),
        (b"<xml/>", "text/xml", 415),
        (b" " * (16 * 1024 * 1024 + 1), "application/json", 413),
    ],
    ids=["no JSON", "no object", "unknown field", "no UTF-8", "too deep", "media type", "too large"],
)
def test_a_body_that_cannot_be_taken(client, described, error_shape, body, content_type, status):
    for method, template, operation in operations(described):
        if "requestBody" in operation:
            answer = client.open(path_of(template), method=method, data=body, content_type=content_type)
            refused(answer, error_shape, status)
            assert str(status) in operation["responses"]


def test_a_database_that_is_away(client, described, error_shape):
    for method, template, _ in operations(described):
        if method == "GET" and template != SIGN_IN:
            answer = client.get(path_of(template))
            if answer.status_code != 200:  # what needs no database answers all the same
                assert refused(answer, error_shape, 503)["code"] == "database_unavailable"
                assert answer.headers["Retry-After"] == "1"
    assert refused(client.get("/readyz"), error_shape, 503)["code"] == "not_ready"
    assert client.get("/livez").status_code == 200
