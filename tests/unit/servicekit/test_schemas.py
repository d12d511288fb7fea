"""Parsing of bodies, queries and ids: strict, with one finding per field, in words for a person."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, get_args
from uuid import UUID

import pytest
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core.core_schema import ErrorType

from servicekit.web.schemas import (
    Amount,
    Body,
    Date,
    Id,
    JsonValue,
    Money,
    PageQuery,
    QueryText,
    Seconds,
    Timestamp,
    Update,
    View,
    Visible,
    id_from_path,
    parse_body,
    parse_query,
    plain_message,
    unsent,
)
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Invalid, InvalidJson, UnsupportedMediaType

JSON = "application/json"
DECIMAL = 'must be a number, or a decimal in a string such as "52.00"'
AN_ID = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"
WITHOUT_HYPHENS = AN_ID.replace("-", "")


class Line(Body):
    product: Annotated[str, StringConstraints(min_length=1, max_length=5)]
    quantity: int = Field(ge=1, le=9)


class Wanted(Body):
    lines: Annotated[list[Line], Field(min_length=1, max_length=2)] = Field(default_factory=list)
    owner: Id | None = None
    at: Timestamp | None = None
    on: Date | None = None
    price: Annotated[Amount, Field(ge=0, le=Decimal("9.99"))] = Decimal(0)
    wait: Annotated[Seconds, Field(gt=0, lt=60)] = 1.0
    sure: bool = False
    colour: Literal["red", "blue"] = "red"
    word: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")] = "a"
    any: JsonValue = None


class Change(Update):
    name: str = unsent()
    note: str | None = unsent()


class Sought(PageQuery):
    q: QueryText | None = None
    colour: Literal["red", "blue"] | None = None


def findings(refused: Invalid) -> list[tuple[str, str]]:
    return [(detail.field, detail.message) for detail in refused.details]


def refused_body(raw: str, model: type[Body] = Wanted) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_body(model, raw.encode(), JSON)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "field", "said"),
    [
        ('{"lines": [{"product": "x", "quantity": "10"}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": true}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": 1.5}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": 1e-1}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": 1e39}]}', "lines.0.quantity", "must be at most 9"),
        ('{"lines": [{"product": "x", "quantity": "1.0"}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": null}]}', "lines.0.quantity", "must be a whole number"),
        ('{"lines": [{"product": "x", "quantity": 0}]}', "lines.0.quantity", "must be at least 1"),
        ('{"lines": [{"product": "x", "quantity": 10}]}', "lines.0.quantity", "must be at most 9"),
        ('{"lines": [{"product": "x"}]}', "lines.0.quantity", "is required"),
        ('{"lines": [{"product": 1, "quantity": 1}]}', "lines.0.product", "must be a string"),
        ('{"lines": [{"product": "", "quantity": 1}]}', "lines.0.product", "must have at least 1 character"),
        ('{"lines": [{"product": "abcdef", "quantity": 1}]}', "lines.0.product", "must have at most 5 characters"),
        ('{"lines": [{"product": "x", "quantity": 1, "colour": 1}]}', "lines.0.colour", "unknown field"),
        ('{"lines": []}', "lines", "must have at least 1 item"),
        ('{"lines": [1]}', "lines.0", "must be an object"),
        ('{"lines": {}}', "lines", "must be a list"),
        ('{"lines": null}', "lines", "must be a list"),
        ('{"price": "1"}', "price", DECIMAL),
        ('{"price": "1.000"}', "price", DECIMAL),
        ('{"price": " 1.00"}', "price", DECIMAL),
        ('{"price": "-1.00"}', "price", DECIMAL),
        ('{"price": "1,00"}', "price", DECIMAL),
        ('{"price": "١.٠٠"}', "price", DECIMAL),
        ('{"price": "10.00"}', "price", "must be at most 9.99"),
        ('{"price": true}', "price", "must be a number"),
        ('{"price": -0.01}', "price", "must be at least 0"),
        ('{"price": 10}', "price", "must be at most 9.99"),
        ('{"wait": 0}', "wait", "must be more than 0"),
        ('{"wait": 60}', "wait", "must be less than 60"),
        ('{"wait": "1"}', "wait", "must be a number of seconds"),
        ('{"sure": 1}', "sure", "must be true or false"),
        ('{"sure": "true"}', "sure", "must be true or false"),
        ('{"colour": "green"}', "colour", "must be 'red' or 'blue'"),
        ('{"colour": null}', "colour", "must be 'red' or 'blue'"),
        ('{"word": "A"}', "word", "must match ^[a-z]+$"),
        ('{"word": "a\\n"}', "word", "must match ^[a-z]+$"),
        (f'{{"owner": "{WITHOUT_HYPHENS}"}}', "owner", f"must be a UUID such as {AN_ID}"),
        ('{"owner": 1}', "owner", f"must be a UUID such as {AN_ID}"),
        ('{"at": "2026-01-31T15:00:00"}', "at", "must be a time with its offset, such as 2026-01-31T15:00:00Z"),
        ('{"at": 1769871600}', "at", "must be a time with its offset, such as 2026-01-31T15:00:00Z"),
        ('{"at": "2026-02-30T15:00:00Z"}', "at", "is not a time that exists"),
        ('{"at": "0001-01-01T00:00:00+23:59"}', "at", "is not a time that exists"),
        ('{"on": "2026-01-31T00:00:00Z"}', "on", "must be a date such as 2026-01-31"),
        ('{"on": 20260131}', "on", "must be a date such as 2026-01-31"),
        ('{"on": "2026-02-30"}', "on", "is not a date that exists"),
        ('{"unheard": 1}', "unheard", "unknown field"),
    ],
)
def test_each_wrong_field_is_named_with_what_it_must_be(raw, field, said):
    error = refused_body(raw)
    assert error.code == "invalid_input"
    assert findings(error) == [(field, said)]
    assert error.message == f"{field}: {said}"


def test_every_wrong_field_has_its_detail_and_the_message_names_the_first_three_and_counts_the_others():
    error = refused_body('{"a": 1, "b": 1, "price": "1", "sure": 0, "colour": 1}')
    assert sorted(field for field, _ in findings(error)) == ["a", "b", "colour", "price", "sure"]
    assert error.message == "; ".join(f"{field}: {said}" for field, said in findings(error)[:3]) + "; and 2 more"


def test_at_most_twenty_findings_are_told_and_long_names_are_cut():
    error = refused_body("{" + ",".join(f'"{"k" * 1000}{n}": 1' for n in range(50)) + "}")
    assert len(error.details) == 20
    assert error.message.endswith("; and 47 more")
    assert max(len(detail.field) for detail in error.details) == 100


@pytest.mark.parametrize(("number", "whole"), [("9.0", 9), ("9.000", 9), ("9e0", 9), ("0.9e1", 9), ("90E-1", 9)])
def test_a_number_without_a_fraction_is_whole_however_it_is_written(number, whole):
    wanted = parse_body(Wanted, f'{{"lines": [{{"product": "x", "quantity": {number}}}]}}'.encode(), JSON)
    assert (wanted.lines[0].quantity, type(wanted.lines[0].quantity)) == (whole, int)


def test_a_whole_number_in_a_query_may_have_a_point_too():
    assert parse_query(PageQuery, "limit=50.0&offset=7.00") == PageQuery(limit=50, offset=7)


def test_money_may_be_sent_as_it_is_shown():
    assert str(parse_body(Wanted, b'{"price": "1.00"}', JSON).price) == "1.00"


#: Errors of pydantic that JSON cannot bring about, or that mean a fault of the model and not of the input.
RARE = re.compile(
    "json_|needs_python|recursion|frozen_(field|instance|dict)|invalid_key|get_attribute|no_such|exact_type|named_tuple|"
    "default_factory|iteration|(ordered_)?dict_type|counter|deque|not_hashable|sentinel|ellipsis|instance_of|subclass_of|"
    "callable|arguments|argument|fraction|complex"
)
ERRORS = [kind for kind in get_args(ErrorType) if kind not in ("value_error", "assertion_error")]


@pytest.mark.parametrize("kind", ERRORS)
def test_no_answer_is_in_the_words_of_the_library(kind):
    words = """gt ge lt le multiple_of min_length max_length pattern expected encoding discriminator expected_tags
        expected_schemes expected_version max_digits decimal_places whole_digits"""
    context = dict.fromkeys(words.split(), "7")
    said = plain_message({"type": kind, "msg": "Input should be something", "ctx": context})
    assert "nput" not in said
    assert said != "is not valid" or RARE.search(kind)


def test_a_models_own_words_are_kept():
    for message in ("Value error, is odd", "Assertion failed, is odd", "is odd"):
        kind = {"V": "value_error", "A": "assertion_error", "i": "an_authors_own"}[message[0]]
        assert plain_message({"type": kind, "msg": message}) == "is odd"


@pytest.mark.parametrize(
    "name",
    ["Ю", "王小明", "محمد", "O'Neil", "  kept  ", "1", "👷🏽‍♀️", "❤️‍🔥", "نامه‌ای", "क्‍ष", "é", "-", "\U0001fae8"],
)
def test_a_name_of_any_script_is_visible(name):
    assert TypeAdapter(Annotated[str, Visible]).validate_python(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [(name, "must not be blank")
       for name in (" ", "\u00a0\u3000", "\u3164", "\u115f\u1160", "\u2800", "\u0301", "\ufe0f", "\U000e0100")]
    + [(f"a{one}b", f"must not hold the invisible character U+{ord(one):04X}") for one in
       "\t\n\r\x1b\x7f\x85\u00ad\u061c\u200b\u200e\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041"]
    + [(name, f"must not hold the invisible character U+{one}")
       for name, one in [("\u200d", "200D"), ("a\u200d", "200D"), ("\u200ca", "200C"), ("1\u200d2", "200D"),
                         ("a\u200d\u200db", "200D"), ("\u200b\u200b", "200B")]],
)  # fmt: skip
def test_a_name_that_cannot_be_seen_or_hides_something_is_refused(name, said):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[str, Visible]).validate_python(name)
    assert [plain_message(error) for error in caught.value.errors()] == [said]


class Shown(View):
    id: UUID
    name: str
    total: Money
    created_at: Timestamp


class Renamed(Update):
    shown = Shown
    name: str = unsent()


PRESENT = Shown(id=UUID(AN_ID), name="x", total=Decimal("5.00"), created_at=datetime(2026, 1, 31, 15, tzinfo=UTC))


def test_what_get_shows_can_be_sent_back():
    change = parse_body(Renamed, dump(PRESENT), JSON)
    assert change.named() == {"name": "x"}
    change.require_unchanged(PRESENT)
    parse_body(Renamed, f'{{"id": "{AN_ID}", "total": "4.00"}}'.encode(), JSON).require_unchanged(PRESENT)


@pytest.mark.parametrize(
    "sent", [b'{"id": "x", "created_at": null}', b'{"id": 1, "created_at": "2026-01-31T16:00:00Z"}']
)
def test_what_never_changes_is_refused_with_another_value(sent):
    with pytest.raises(Invalid) as caught:
        parse_body(Renamed, sent, JSON).require_unchanged(PRESENT)
    assert findings(caught.value) == [("created_at", "cannot be changed"), ("id", "cannot be changed")]


def test_only_what_get_shows_is_passed_over_and_only_beside_its_id():
    assert findings(refused_body('{"name": "y", "total": "4.00"}', Renamed)) == [("total", "unknown field")]
    assert findings(refused_body(f'{{"id": "{AN_ID}", "identity": 1}}', Renamed)) == [("identity", "unknown field")]


def test_good_values_arrive_in_their_own_types():
    wanted = parse_body(
        Wanted,
        b"""{"lines": [{"product": "x", "quantity": 9}], "owner": "018F3C1E-7B1A-7C3E-9D2B-0A1B2C3D4E5F",
             "at": "2026-01-31t18:00:00.5+03:00", "price": 0.10, "wait": 2, "any": {"x": [1.50, null]}}""",
        JSON,
    )
    assert wanted.lines[0].quantity == 9
    assert wanted.owner == UUID(AN_ID)
    assert wanted.at == datetime(2026, 1, 31, 15, 0, 0, 500_000, tzinfo=UTC)
    assert str(wanted.price) == "0.10"
    assert wanted.wait == 2.0
    assert str(wanted.any["x"][0]) == "1.50"


@pytest.mark.parametrize(
    "content_type",
    [
        JSON,
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/x+json",
    ],
)
def test_json_media_types_are_taken_with_or_without_parameters(content_type):
    assert parse_body(Wanted, b"{}", content_type) == Wanted()


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "json", "application/jsonx"],
)
def test_other_media_types_are_refused_whatever_the_body(content_type):
    for raw in (b"{}", b"", b"nonsense"):
        with pytest.raises(UnsupportedMediaType):
            parse_body(Wanted, raw, content_type)


def test_an_empty_body_is_refused_unless_it_may_be_empty():
    with pytest.raises(Invalid) as caught:
        parse_body(Wanted, b"", JSON)
    assert findings(caught.value) == [("body", "is empty")]
    assert parse_body(Wanted, b"", None, may_be_empty=True) == Wanted()
    with pytest.raises(UnsupportedMediaType):
        parse_body(Wanted, b"{}", None, may_be_empty=True)


@pytest.mark.parametrize("raw", ["[]", "null", "1", '"x"', "true"])
def test_a_body_that_is_no_object_is_refused(raw):
    assert findings(refused_body(raw)) == [("body", "must be an object")]


def test_a_body_that_is_no_json_has_its_own_code():
    with pytest.raises(InvalidJson):
        parse_body(Wanted, b'{"a": NaN}', JSON)


def test_an_update_tells_a_field_that_was_not_sent_from_null():
    assert parse_body(Change, b"{}", JSON).named() == {}
    assert parse_body(Change, b'{"note": null}', JSON).named() == {"note": None}
    assert parse_body(Change, b'{"name": "x"}', JSON).named() == {"name": "x"}
    assert findings(refused_body('{"name": null}', Change)) == [("name", "must be a string")]


@pytest.mark.parametrize("model", [Wanted, Change])
def test_no_schema_of_a_body_shows_null_as_a_default(model):
    for field in model.model_json_schema()["properties"].values():
        assert field.get("default", "none") is not None


@pytest.mark.parametrize(
    ("raw", "field", "said"),
    [
        ("limit=0", "limit", "must be at least 1"),
        ("limit=101", "limit", "must be at most 100"),
        ("limit=-1", "limit", "must be at least 1"),
        ("offset=-1", "offset", "must be at least 0"),
        ("offset=1000000001", "offset", "must be at most 1000000000"),
        ("limit=", "limit", "must be a whole number"),
        ("limit", "limit", "must be a whole number"),
        ("limit=1.5", "limit", "must be a whole number"),
        ("limit=1.", "limit", "must be a whole number"),
        ("limit=1e1", "limit", "must be a whole number"),
        ("limit=+5", "limit", "must be a whole number"),  # a plus sign is a space
        ("limit=%2B5", "limit", "must be a whole number"),
        ("limit=1_0", "limit", "must be a whole number"),
        ("limit=%D9%A3", "limit", "must be a whole number"),  # an Arabic three
        ("limit=9999999999999999999", "limit", "must be a whole number"),
        ("limit=1&limit=1", "limit", "is given twice"),
        ("limit=1&%6cimit=2", "limit", "is given twice"),
        ("colour=green", "colour", "must be 'red' or 'blue'"),
        ("colour=", "colour", "must be 'red' or 'blue'"),
        ("q=a%00b", "q", "must not hold the character U+0000"),
        ("sort=name", "sort", "unknown field"),
        ("Limit=1", "Limit", "unknown field"),
        ("=1", "", "unknown field"),
    ],
)
def test_each_wrong_query_parameter_is_named(raw, field, said):
    with pytest.raises(Invalid) as caught:
        parse_query(Sought, raw)
    assert findings(caught.value) == [(field or "body", said)]


@pytest.mark.parametrize("raw", ["q=%ff", "q=%ED%A0%80", "%ff=1", b"q=\xff"])
def test_a_query_that_is_not_utf8_is_refused(raw):
    with pytest.raises(Invalid, match="The query string is not UTF-8"):
        parse_query(Sought, raw)


def test_a_query_of_more_than_fifty_parameters_is_refused():
    with pytest.raises(Invalid, match="more than 50 parameters"):
        parse_query(Sought, "&".join(f"p{n}=1" for n in range(51)))


@pytest.mark.parametrize(
    ("raw", "q"),
    [
        ("q=%D0%AF%D1%80", "Яр"),
        ("q=Яр", "Яр"),
        ("q=Яр".encode(), "Яр"),
        ("q=a+b%2Bc", "a b+c"),
        ("q=a;b", "a;b"),
        ("q=a%26limit%3D1", "a&limit=1"),
        ("q=", ""),
        ("", None),
        ("&&limit=50&", None),
    ],
)
def test_texts_in_a_query_arrive_as_they_were_meant(raw, q):
    assert parse_query(Sought, raw) == Sought(q=q)


def test_a_page_is_fifty_from_the_start_unless_asked_otherwise():
    assert parse_query(PageQuery, "") == PageQuery(limit=50, offset=0)
    assert parse_query(PageQuery, "limit=100&offset=1000000000") == PageQuery(limit=100, offset=1_000_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        AN_ID.replace("-", ""),
        f"{{{AN_ID}}}",
        f"urn:uuid:{AN_ID}",
        f"{AN_ID}\n",
        AN_ID[:-1] + "g",
        "٠" * 8 + AN_ID[8:],
    ],
)
def test_an_id_in_a_path_has_the_usual_form_only(text):
    with pytest.raises(Invalid) as caught:
        id_from_path("id", text)
    assert findings(caught.value) == [("id", f"must be a UUID such as {AN_ID}")]


def test_an_id_in_a_path_may_have_either_case():
    assert id_from_path("id", AN_ID.upper()) == id_from_path("id", AN_ID) == UUID(AN_ID)


def test_money_leaves_as_text_without_an_exponent():
    class Bill(View):
        total: Money

    assert Bill(total=Decimal("5.2E+2")).model_dump() == {"total": "520"}
    assert Bill(total=Decimal("520.00")).model_dump() == {"total": "520.00"}
