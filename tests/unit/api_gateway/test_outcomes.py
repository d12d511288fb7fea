"""What an answer is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from api_gateway import outcomes


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


def test_whole_numbers_may_be_longer_than_python_reads() -> None:
    envelope = outcomes.read_envelope(200, b'{"success":true,"data":' + b"9" * 5000 + b"}")
    assert envelope is not None
    assert envelope.data == Decimal("9" * 5000)


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
