"""What the server knows of a request before anybody answers it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from servicekit.http_server import request as request_module
from servicekit.http_server.request import NO_BODY, Request, RequestBody, RequestFields, origin_form
from servicekit.wire.errors import BadRequest, RequestTimeout
from servicekit.wire.memory import MIB, Account, Budget


def request(fields: list[tuple[bytes, bytes]], http_version: str = "1.1") -> Request:
    nobody: object = None
    return Request("GET", "/", http_version, RequestFields(fields), NO_BODY, nobody)  # type: ignore[arg-type]


def test_of_a_field_that_comes_twice_the_first_value_is_asked_for() -> None:
    fields = RequestFields([(b"x-request-id", b"1"), (b"host", b"a"), (b"x-request-id", b"\xe9")])
    assert (fields.get(b"x-request-id"), fields.get(b"accept"), fields.hosts) == ("1", None, [b"a"])


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        (b"localhost", True),
        (b"api.example.com:8000", True),
        (b"[::1]:8000", True),
        (b"", False),
        (b"a b", False),
        (b"a/b", False),
        (b"a@b", False),
        (b"a:b", False),
        (b"a,b", True),
    ],
)
def test_host_is_one_host_with_an_optional_port(host: bytes, valid: bool) -> None:
    if valid:
        request([(b"host", host)]).check_fields()
    else:
        with pytest.raises(BadRequest):
            request([(b"host", host)]).check_fields()


def test_a_request_names_one_host_unless_it_is_older_than_that() -> None:
    request([], http_version="1.0").check_fields()
    for fields in ([], [(b"host", b"a"), (b"host", b"a")]):
        with pytest.raises(BadRequest):
            request(fields).check_fields()


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Idempotency-Key", "X-Act-As"])
def test_a_field_of_one_value_is_named_when_it_comes_twice(name: str) -> None:
    once: list[tuple[bytes, bytes]] = [(b"host", b"a"), (name.lower().encode(), b"1"), (b"if-match", b'"1"')]
    request([*once, (b"if-match", b'"2"')]).check_fields()
    for credential in (b"", b"Bearer a"):
        fields = RequestFields([*once, (name.lower().encode(), b"1")])
        if credential:
            fields = fields.with_authorization(credential, 1)
        with pytest.raises(BadRequest) as refused:
            Request("GET", "/", "1.1", fields, NO_BODY, None).check_fields()  # type: ignore[arg-type]
        assert [detail.field for detail in refused.value.details] == [name]


@pytest.mark.parametrize(
    ("target", "reduced", "host"),
    [
        (b"/users", b"/users", b"sent"),
        (b"*", b"*", b"sent"),
        (b"ftp://host/users", b"ftp://host/users", b"sent"),
        (b"http://host:8000/users?a=1", b"/users?a=1", b"host:8000"),
        (b"HTTPS://HOST/Users", b"/Users", b"host"),
        (b"http://host", b"/", b"host"),
        (b"http://host?a=/", b"/?a=/", b"host"),
        (b"http://host//other", b"//other", b"host"),
        (b"http://a@host/", b"/", b"a@host"),  # which check_host refuses, as it does the next
        (b"http:///users", b"/users", b""),
    ],
)
def test_the_host_of_an_absolute_target_counts(target: bytes, reduced: bytes, host: bytes) -> None:
    assert origin_form(target, [(b"a", b"1"), (b"host", b"sent")], (1, 1)) == (reduced, [(b"a", b"1"), (b"host", host)])


def test_an_absolute_target_makes_up_for_a_missing_host_in_old_requests_only() -> None:
    assert origin_form(b"http://host/", [], (1, 0)) == (b"/", [(b"host", b"host")])
    assert origin_form(b"http://host/", [], (1, 1)) == (b"/", [])


def test_a_body_is_late_even_if_a_piece_of_it_comes_at_the_very_moment_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_module, "ARRIVAL_SECONDS", 0.01)
    asked: list[str] = []

    async def receive() -> dict[str, object]:
        asked.append("for a piece")
        assert asked == ["for a piece"], "more was asked for after the time was over"
        # What asyncio.wait_for does up to Python 3.11 when data comes together with the cancellation.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> None:
        body = RequestBody(RequestFields([(b"content-length", b"1000")]), receive)
        await body.read(1000, Account(Budget(MIB)))

    with pytest.raises(RequestTimeout):
        asyncio.run(read())
