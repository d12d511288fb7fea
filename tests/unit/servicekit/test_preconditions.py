"""Entity tags and If-Match, by RFC 9110 sections 8.8.3 and 13.1.1."""

from __future__ import annotations

import re
from typing import ClassVar

import pytest

from servicekit.web.preconditions import ANY_STATE, IfMatch, Resource
from servicekit.wire.errors import Invalid, PreconditionFailed


class Pump(Resource):
    untagged: ClassVar[frozenset[str]] = frozenset({"strokes"})

    name: str
    strokes: int = 0


PRESENT = Pump(name="A")
TAG = PRESENT.etag
OTHER = Pump(name="B").etag


def test_a_tag_is_strong_and_that_of_what_is_shown() -> None:
    assert re.fullmatch(r'"[\w-]{24}"', TAG)
    assert Pump(name="A").etag == TAG != OTHER
    assert Pump(name="A", strokes=7).etag == TAG


@pytest.mark.parametrize(
    "field", ["*", " * ", TAG, f" {TAG}\t", f"{OTHER}, {TAG}", f"{OTHER},{TAG}", f", {TAG}", f'"a,b" , ,{TAG},', None]
)
def test_these_match(field: str | None) -> None:
    IfMatch(field).require(PRESENT)


@pytest.mark.parametrize(
    "field", [OTHER, '""', f"W/{TAG}", f"{OTHER}, W/{TAG}", TAG.lower(), '"*"', '"é"', f'"{TAG[1:-1]},"']
)
def test_these_do_not_and_the_present_tag_is_told(field: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        IfMatch(field).require(PRESENT)
    assert refused.value.headers == {"ETag": TAG}


@pytest.mark.parametrize(
    "field",
    [
        "",
        ",",
        TAG[1:-1],
        TAG[:-1],
        f"{TAG} {OTHER}",
        f"{TAG}{OTHER}",
        f"*, {TAG}",
        f"{TAG}, *",
        f"w/{TAG}",
        '"a b"',
        "W/",
        "x" * 9000,
    ],
)
def test_what_is_no_list_of_tags_is_refused_by_name(field: str) -> None:
    with pytest.raises(Invalid) as refused:
        IfMatch(field)
    assert [item.field for item in refused.value.details] == ["If-Match"]


def test_a_request_that_says_nothing_is_done_in_any_state() -> None:
    ANY_STATE.require(PRESENT)
