"""What an http_request task may ask for, and what is read of an answer's fields."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from service_tasks.task_types.http_exchange import retry_after_seconds
from service_tasks.task_types.http_request import http_request

URL = "https://api.example.com/cranes"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://api.example.com"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https:///path"}, "url"),
        ({"url": "//api.example.com"}, "url"),
        ({"url": "https://a b.example.com"}, "url"),
        ({"url": "https://api.example.com/\r\nHost: evil"}, "url"),
        ({"url": "https://api.example.com\\@evil.test/"}, "url"),
        ({"url": "https://user:word@api.example.com/"}, "url"),
        ({"url": "https://api.example.com:70000/"}, "url"),
        ({"url": URL + "x" * 4096}, "url"),
        ({"url": URL, "method": "TRACE"}, "method"),
        ({"url": URL, "method": "get"}, "method"),
        ({"url": URL, "headers": {"X-A": "1\r\nX-B: 2"}}, "headers"),
        ({"url": URL, "headers": {"X A": "1"}}, "headers"),
        ({"url": URL, "headers": {"Host": "evil"}}, "headers"),
        ({"url": URL, "headers": {"transfer-encoding": "chunked"}}, "headers"),
        ({"url": URL, "headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"url": URL, "headers": {"X-A": "бетон"}}, "headers"),
        ({"url": URL, "headers": {"X-A": 1}}, "headers.X-A"),
        ({"url": URL, "body": "x", "json": {}}, ""),
        ({"url": URL, "timeout": 0}, "timeout"),
        ({"url": URL, "timeout": "5"}, "timeout"),
        ({"url": URL, "max_redirects": 11}, "max_redirects"),
        ({"url": URL, "proxy": "http://evil"}, "proxy"),
    ],
)
def test_what_makes_no_request_is_refused_by_its_field(payload, field):
    with pytest.raises(ValidationError) as refused:
        http_request.parse(json.dumps(payload))

    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [field]


def test_a_url_is_enough_and_json_null_is_a_body_too():
    request = http_request.parse(json.dumps({"url": URL}))
    assert (request.method, request.body, request.has_json, request.timeout) == ("GET", None, False, 30)

    assert http_request.parse(json.dumps({"url": URL, "json": None})).has_json
    assert set(http_request.payload_schema()["properties"]) == {
        *("url", "method", "headers", "body", "json", "timeout", "max_redirects")
    }


NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 400, 999999999999.0),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value, seconds):
    assert retry_after_seconds(value, now=NOW) == seconds
