"""Keys of requests: which ones will do, and when two requests are the same."""

from __future__ import annotations

from typing import Any

import pytest

from servicekit.web.idempotency import IDEMPOTENCY_KEY, checked_key, fingerprint, request_key
from servicekit.web.schemas import JsonValue, Update, unsent
from servicekit.wire.errors import Invalid


class Wanted(Update):
    name: str = unsent()
    roles: list[str] = unsent()
    payload: JsonValue = unsent()
    password: str | None = unsent()


def of(*, secret: tuple[str, ...] = ("password",), **sent: Any) -> bytes:
    return fingerprint(Wanted.model_validate(sent), secret=secret)


@pytest.mark.parametrize("key", ["k", "~!\"'%", "k" * 200])
def test_printable_ascii_is_a_key(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a key", "k" * 201, "ключ", "k\n", "\x7f"])
def test_anything_else_is_refused_by_the_fields_name(key: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_key(key)
    assert [item.field for item in refused.value.details] == [IDEMPOTENCY_KEY]


def test_a_request_without_the_field_has_no_key() -> None:
    assert request_key({IDEMPOTENCY_KEY: None}, Wanted()) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"name": "A", "roles": ["x"]}, {"roles": ["x"], "name": "A"}, True),
        ({"payload": {"a": 1, "b": [{"c": 2, "d": 3}]}}, {"payload": {"b": [{"d": 3, "c": 2}], "a": 1}}, True),
        ({"name": "A"}, {"name": "B"}, False),
        ({"roles": ["x", "y"]}, {"roles": ["y", "x"]}, False),
        ({"payload": 1}, {"payload": "1"}, False),
        ({"name": "A"}, {"name": "A", "roles": ["x"]}, False),
        # of a password only whether there is one
        ({"password": "first"}, {"password": "second"}, True),
        ({"password": "first"}, {"password": None}, False),
        ({"password": None}, {}, False),
    ],
)
def test_requests_are_the_same_when_their_fields_are(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert (of(**one) == of(**other)) is same
