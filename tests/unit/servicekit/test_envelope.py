"""The one shape of every answer, and the status of each error class."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from pydantic import BaseModel

from servicekit.database.engine import DatabaseTooSlow
from servicekit.web.health import NotReady
from servicekit.wire import errors
from servicekit.wire.envelope import (
    NotAnEnvelope,
    Written,
    code_of,
    dump,
    failure,
    read_envelope,
    scan_envelope,
    status_of,
    success,
)
from servicekit.wire.errors import AppError, FieldError, Invalid, Unavailable
from servicekit.wire.json_reader import read_json


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.AppError, 500, "internal_error"),
        (errors.Invalid, 400, "invalid_input"),
        (errors.InvalidJson, 400, "invalid_json"),
        (errors.Unauthorized, 401, "unauthorized"),
        (errors.Forbidden, 403, "forbidden"),
        (errors.NotFound, 404, "not_found"),
        (errors.MethodNotAllowed, 405, "method_not_allowed"),
        (errors.Conflict, 409, "conflict"),
        (errors.PreconditionFailed, 412, "precondition_failed"),
        (errors.PreconditionRequired, 428, "precondition_required"),
        (errors.TooLarge, 413, "body_too_large"),
        (errors.UnsupportedMediaType, 415, "unsupported_media_type"),
        (errors.TooManyRequests, 429, "too_many_requests"),
        (errors.BadGateway, 502, "bad_upstream_answer"),
        (errors.Unavailable, 503, "unavailable"),
        (errors.DatabaseUnavailable, 503, "database_unavailable"),
        (NotReady, 503, "not_ready"),
        (errors.DeadlineExceeded, 504, "deadline_exceeded"),
        (errors.Overloaded, 503, "overloaded"),
        (DatabaseTooSlow, 504, "database_too_slow"),
    ],
)
def test_each_error_class_has_its_status_its_code_and_a_sentence(error, status, code):
    assert status_of(error) == status_of(error()) == status
    body = failure(error())
    assert body == {"success": False, "error": {"code": code, "message": error().message}}
    assert body["error"]["message"].endswith((".", "again"))
    assert "\n" not in body["error"]["message"]


def test_a_failed_precondition_may_show_what_there_is_now():
    error = errors.PreconditionFailed("x", present=Written('{"a":1}'))
    assert failure(error)["error"] == {"code": "precondition_failed", "message": "x", "present": {"a": 1}}


def test_a_new_leaf_takes_the_status_of_its_nearest_class():
    class OutOfStock(errors.Conflict):
        """There is none left."""

        code = "out_of_stock"

    assert status_of(OutOfStock) == 409
    assert failure(OutOfStock()) == {
        "success": False,
        "error": {"code": "out_of_stock", "message": "There is none left."},
    }


def test_details_name_each_field_and_are_absent_when_there_are_none():
    error = Invalid("two things", details=[FieldError("items.0.quantity", "must be at least 1"), FieldError("x", "y")])
    assert failure(error)["error"]["details"] == [
        {"field": "items.0.quantity", "message": "must be at least 1"},
        {"field": "x", "message": "y"},
    ]
    assert "details" not in failure(Invalid())["error"]


@pytest.mark.parametrize(
    ("seconds", "field"), [(None, None), (0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (59.5, "60")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(seconds, field):
    assert Unavailable(retry_after=seconds).headers.get("Retry-After") == field


def test_success_wraps_whatever_it_is_given():
    assert success(None) == {"success": True, "data": None}
    assert success([1]) == {"success": True, "data": [1]}


class Colour(StrEnum):
    RED = "red"


class Model(BaseModel):
    id: UUID
    at: datetime


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Ярослав 王 😀", '"Ярослав 王 😀"'),
        (UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"), '"018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"'),
        (datetime(2026, 1, 31, 15, tzinfo=UTC), '"2026-01-31T15:00:00Z"'),
        (datetime(2026, 1, 31, 18, tzinfo=timezone(timedelta(hours=3))), '"2026-01-31T15:00:00Z"'),
        (datetime(2026, 1, 31, 15, 0, 0, 250_000, tzinfo=UTC), '"2026-01-31T15:00:00.250000Z"'),
        (Decimal("0.10"), "0.10"),
        (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (Colour.RED, '"red"'),
        ((1, 2), "[1,2]"),
        ({"a": None, "b": True}, '{"a":null,"b":true}'),
        (
            Model(id=UUID(int=1), at=datetime(2026, 1, 1, tzinfo=UTC)),
            '{"id":"00000000-0000-0000-0000-000000000001","at":"2026-01-01T00:00:00Z"}',
        ),
    ],
)
def test_every_kind_of_value_has_its_json_form(value, written):
    assert dump(value) == written.encode()


@pytest.mark.parametrize(
    ("value", "refused_with"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (Decimal("NaN"), ValueError),
        (Decimal("-Infinity"), ValueError),
        (datetime(2026, 1, 1), ValueError),
        (object(), TypeError),
        ({1, 2}, TypeError),
        ("\ud800", UnicodeEncodeError),
    ],
)
def test_what_is_not_json_never_leaves(value, refused_with):
    with pytest.raises(refused_with):
        dump({"x": value})


def test_what_is_written_reads_back_equal_down_to_the_last_digit():
    value = {"price": Decimal("52.00"), "names": ["Ярослав", 'O\'Neil \\ "x" \u2028'], "n": 10**39}
    assert read_json(dump(value)) == value
    assert str(read_json(dump(value))["price"]) == "52.00"


def test_an_error_says_its_own_message_when_it_has_one():
    assert AppError("the pump is dry").message == str(AppError("the pump is dry")) == "the pump is dry"


@pytest.mark.parametrize(
    ("status", "body", "is_envelope"),
    [
        (200, b'{"success": true, "data": null}', True),
        (201, b' {"data": [1], "success": true} ', True),
        (404, b'{"success": false, "error": {"code": "x", "message": "y"}}', True),
        (200, b'{"success":true,"data":"\\ud800"}', True),
        (200, b'{"success":true,"data":' + b"9" * 5000 + b"}", True),  # longer than Python reads
        (200, b'{"success":true,"data":' + b"[" * 500 + b"]" * 500 + b"}", True),
        (200, b'{"success":true,"data":["NaN","Infinity"]}', True),
        (404, b'{"success":true,"data":1}', False),  # contradicts its status
        (302, b'{"success":true,"data":1}', False),
        (200, b'{"success": false, "error": {"code": "x", "message": "y"}}', False),
        (200, b'{"success": true}', False),
        (200, b'{"success": 1, "data": 1}', False),
        (500, b'{"success": false, "error": "boom"}', False),
        (500, b'{"success": false, "error": {"code": 1, "message": "y"}}', False),
        (500, b'{"success": false, "error": {"code": "x"}}', False),
        (200, b'{"success": true, "data": 1', False),
        (200, b'{"success":true,"data":1', False),
        (200, b'{"success":true,"data":1}}', False),
        (200, b'{"success":true,"data":NaN}', False),
        (200, b'{"success":true,"data":-Infinity}', False),
        (200, b'{"success":true,"data":"\xff"}', False),
        (200, b'{"success":true,"data":{"\xc3":1}}', False),
        (200, b'{"success":true,"data":"\xed\xa0\x80"}', False),
        (200, b'{"success":true,"data":1,"error":{"code":"x","message":"y"}}', True),
        (200, b'{"success":true,"success":false,"data":1}', False),
        (200, b"", False),
        (200, b"[]", False),
        (200, b"<html>", False),
        (200, b"\xff", False),
        (200, b"[" * 100_000, False),
    ],
)
def test_only_an_envelope_that_fits_its_status_is_one(status, body, is_envelope):
    for judge in (code_of, read_envelope, scan_envelope):
        try:
            judge(status, body)
        except NotAnEnvelope:
            assert not is_envelope
        else:
            assert is_envelope


def test_an_envelope_is_read_exactly_and_a_refusal_has_a_code():
    assert read_envelope(200, b'{"success":true,"data":52.10}').data == Decimal("52.10")
    assert read_envelope(200, b'{"success":true,"data":' + b"9" * 5000 + b"}").data == Decimal("9" * 5000)
    refusal = read_envelope(404, dump(failure(errors.NotFound())))
    assert (refusal.status, refusal.code, refusal.message) == (404, "not_found", errors.NotFound().message)
    assert code_of(404, dump(failure(errors.NotFound()))) == "not_found"
    assert code_of(200, dump(success({}))) is None
    assert code_of(200, b'{"success":true,"data":1,"error":{"code":"x","message":"y"}}') is None


@pytest.mark.parametrize("data", [b'{"a":[1.10,"\xd0\x96"],"b":null}', b'{"a":"\\ud83d\\ude00","a":1e400}'])
def test_scanned_data_is_written_as_it_came_whole_or_by_field(data):
    scanned = scan_envelope(200, b'{ "data" : %b, "success": true}' % data).data
    assert dump(scanned) == data
    assert dump(scanned["a"]) == (b'[1.10,"\xd0\x96"]' if b"null" in data else b"1e400")
    with pytest.raises(KeyError):
        scanned["c"]


@pytest.mark.parametrize("data", ["[1]", "null", '"a"'])
def test_only_an_object_has_fields(data):
    with pytest.raises(TypeError):
        Written(data)["a"]
