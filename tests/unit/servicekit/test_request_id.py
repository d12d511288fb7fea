"""Which ids a caller may bring, and where the id is in force."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest

from servicekit.observing import request_id


@pytest.mark.parametrize("value", ["a", "7d3c-00", "user@host:1/2+3=4_5.6", "0" * 128])
def test_a_harmless_id_is_kept(value):
    assert request_id.accept_or_make(value) == value


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "a b", "a\n", "a\r\nSet-Cookie: x", "0" * 129, "ы", "<script>", 'a"b', "a;b", "a\0", "a,b"],
)
def test_anything_else_is_replaced_by_a_new_one(value):
    made = request_id.accept_or_make(value)
    assert made != value
    assert UUID(hex=made).version == 7
    assert made != request_id.accept_or_make(value)


def test_an_id_is_in_force_inside_its_block_only():
    assert request_id.current_request_id() == ""
    with request_id.use("outer"):
        with request_id.use("inner"):
            assert request_id.current_request_id() == "inner"
        assert request_id.current_request_id() == "outer"
    assert request_id.current_request_id() == ""


def test_another_thread_does_not_see_it():
    seen: list[str] = []
    with request_id.use("mine"):
        thread = threading.Thread(target=lambda: seen.append(request_id.current_request_id()))
        thread.start()
        thread.join(10)
    assert seen == [""]
