"""What an answer is, and how it counts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from api_gateway import outcomes


@pytest.mark.parametrize(
    ("status", "code", "counts"),
    [
        (200, None, "success"),
        (201, None, "success"),
        (204, None, "success"),
        (302, None, "success"),
        (400, "invalid_input", "success"),
        (404, "user_not_found", "success"),
        (409, "email_taken", "success"),
        (429, "too_many_requests", "neutral"),
        (500, "internal_error", "success"),  # one request's bug, well answered
        (502, "bad_upstream_answer", "failure"),
        (503, "database_unavailable", "failure"),
        (503, "not_ready", "failure"),
        (503, None, "failure"),
        (504, None, "failure"),
        (503, "users_unavailable", "neutral"),  # orders is well, users is not
        (503, "circuit_open", "neutral"),
        (504, "deadline_exceeded", "neutral"),
        (503, "orders_unavailable", "failure"),  # orders says so of itself
    ],
)
def test_how_an_answer_of_orders_counts(status: int, code: str | None, counts: str) -> None:
    assert outcomes.of_answer(status, "orders", code) == counts


@pytest.mark.parametrize(
    ("status", "body", "is_envelope"),
    [
        (200, b'{"success": true, "data": null}', True),
        (201, b' {"data": [1], "success": true} ', True),
        (404, b'{"success": false, "error": {"code": "x", "message": "y"}}', True),
        (404, b'{"success": true, "data": 1}', False),  # contradicts its status
        (200, b'{"success": false, "error": {"code": "x", "message": "y"}}', False),
        (200, b'{"success": true}', False),
        (200, b'{"success": 1, "data": 1}', False),
        (500, b'{"success": false, "error": "boom"}', False),
        (500, b'{"success": false, "error": {"code": 1, "message": "y"}}', False),
        (200, b'{"success": true, "data": 1', False),
        (200, b'{"success": true, "data": NaN}', False),
        (200, b"", False),
        (200, b"[]", False),
        (200, b"<html>", False),
        (200, b"\xff", False),
        (200, b"[" * 100_000, False),
    ],
)
def test_only_an_envelope_that_fits_its_status_is_one(status: int, body: bytes, is_envelope: bool) -> None:
    assert (outcomes.read_envelope(status, body) is not None) is is_envelope


def test_numbers_with_a_point_stay_exact() -> None:
    envelope = outcomes.read_envelope(200, b'{"success": true, "data": 52.10}')
    assert envelope is not None
    assert envelope.data == Decimal("52.10")


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        (b"application/json", "application/json"),
        (b"Application/JSON; charset=utf-8", "application/json"),
        (b"", ""),
        (None, ""),
    ],
)
def test_the_media_type_is_read_without_parameters(content_type: bytes | None, media_type: str) -> None:
    assert outcomes.media_type(content_type) == media_type


@pytest.mark.parametrize(
    ("method", "status", "none"),
    [("GET", 200, False), ("HEAD", 200, True), ("HEAD", 404, True), ("DELETE", 204, True), ("GET", 304, True)],
)
def test_which_answers_have_no_body(method: str, status: int, none: bool) -> None:
    assert outcomes.has_no_body(method, status) is none
