"""The strict reader: what passes, comes back exactly; everything else is refused with a reason."""

from __future__ import annotations

import contextlib
import json
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.wire.errors import InvalidJson
from servicekit.wire.json_reader import MAX_DEPTH, read_json


def refusal(raw: bytes) -> InvalidJson:
    with pytest.raises(InvalidJson) as caught:
        read_json(raw)
    assert caught.value.code == "invalid_json"
    return caught.value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"null", None),
        (b"true", True),
        (b" \t\r\n[ ] \n", []),
        (b"{}", {}),
        (b"-0", 0),
        (b"9" * 40, int("9" * 40)),
        (b"-" + b"9" * 40, -int("9" * 40)),
        ('"Белов Ярослав 王小明 محمد 😀"'.encode(), "Белов Ярослав 王小明 محمد 😀"),
        (rb'"\ud83d\ude00"', "😀"),  # a whole surrogate pair is one character
        (rb'"\u00e9"', "é"),
        (b'{"": {"a": [1, "b", null]}}', {"": {"a": [1, "b", None]}}),
    ],
)
def test_json_comes_back_as_it_was_meant(raw, value):
    assert read_json(raw) == value


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (b"0.1", "0.1"),
        (b"52.00", "52.00"),  # the scale is kept
        (b"1e2", "100"),  # no exponent gets past the reader
        (b"1E-5", "0.00001"),
        (b"0.1e5", "10000"),
        (b"-0.0", "-0.0"),
        (b"12345678901234567890.12345678901234567890", "12345678901234567890.12345678901234567890"),  # 20 + 20 = 40
        (b"1e39", "1" + "0" * 39),  # 1 + 39 = 40 digits
        (b"0." + b"0" * 39 + b"1", "0." + "0" * 39 + "1"),  # 40 decimals
    ],
)
def test_numbers_with_a_point_or_an_exponent_become_exact_decimals(raw, written):
    value = read_json(raw)
    assert isinstance(value, Decimal)
    assert format(value, "f") == written


def test_whole_numbers_stay_whole_and_truth_stays_truth():
    assert [type(value) for value in read_json(b"[1, 1.0, true]")] == [int, Decimal, bool]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "Expecting value"),
        (b"   ", "Expecting value"),
        (b"nul", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[1,]", "Illegal trailing comma before end of array|Expecting value"),
        (b"{'a': 1}", "Expecting property name"),
        (b'{"a" 1}', "Expecting ':' delimiter"),
        (b'"\x01"', "Invalid control character"),
        (b'"\n"', "Invalid control character"),
        (rb'"\x41"', r"Invalid \\escape"),
        (b"00", r"more after the value \(character 2\)"),
        (b"1 2", r"more after the value \(character 3\)"),
        (b"{} x", r"more after the value \(character 4\)"),
        (b"\x0b1", "Expecting value"),  # a vertical tab is no JSON space
        ("\u00a01".encode(), "Expecting value"),  # nor is a no-break space
        (b"+1", "Expecting value"),
        (b".5", "Expecting value"),
        (b"5.", "more after the value"),
        (b"0x10", "more after the value"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'[{"x": {"b": 1, "c": 2, "b": 1}}]', "the key 'b' appears twice"),
        (rb'{"a": 1, "\u0061": 2}', "the key 'a' appears twice"),  # an escape hides nothing
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), r"not UTF-8 \(byte 0\)"),
        (b'"\xff"', r"not UTF-8 \(byte 1\)"),
        (b'"\xc0\x80"', "not UTF-8"),  # U+0000 in an overlong form
        (b'"\xed\xa0\x80"', "not UTF-8"),  # half a surrogate pair in CESU-8
    ],
)
def test_what_is_not_json_is_refused_and_the_place_is_told(raw, said):
    error = refusal(raw)
    assert re.search(said, error.message), error.message


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"1" * 41, "1111111111111111111…"),
        (b"-" + b"1" * 41, "-111111111111111111…"),
        (b"9" * 100_000, "9999999999999999999…"),
        (b"1e400", "1e400"),
        (b"-1e400", "-1e400"),
        (b"1e40", "1e40"),  # 1 + 40 = 41 digits
        (b"1e-41", "1e-41"),
        (b"1e999999999999", "1e999999999999"),
        (b"0e9999", "0e9999"),
        (b"1." + b"0" * 40, "1.00000000000000000…"),  # 1 + 40 = 41 digits
        (b"0." + b"0" * 40 + b"1", "0.00000000000000000…"),
    ],
)
def test_a_number_of_more_than_forty_digits_is_refused_and_named_shortened(raw, shown):
    assert refusal(b'{"a": [' + raw + b"]}").message == f"Invalid JSON: the number {shown} has more than 40 digits."


def test_thirty_two_levels_pass_and_thirty_three_do_not():
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert read_json(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    for raw in (b"[" * 33 + b"]" * 33, b'{"a":' * 33 + b"1" + b"}" * 33, b'[{"a":' * 17 + b"1" + b"}]" * 17):
        assert refusal(raw).message == "Invalid JSON: nested deeper than 32 levels."


@pytest.mark.parametrize("raw", [b"[" * 10_000, b'{"a":' * 10_000, b"[" * 10_000 + b"]" * 10_000])
def test_ten_thousand_brackets_are_refused_like_any_other_depth(raw):
    assert refusal(raw).message == "Invalid JSON: nested deeper than 32 levels."


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (rb'"\u0000"', "body"),
        (rb'{"name": "a\u0000b"}', "name"),
        (rb'{"items": [{"product": "\u0000"}]}', "items.0.product"),
        (rb'{"a\u0000": 1}', "body"),
        (rb'{"x": {"a\u0000": 1}}', "x"),
        (rb'{"name": "\ud800"}', "name"),
        (rb'{"name": "\udc00\ud800"}', "name"),
        (rb'["a", "\udfff"]', "1"),
        (rb'{"\ud800": 1}', "body"),
    ],
)
def test_nul_characters_and_half_surrogate_pairs_are_refused_at_their_place(raw, field):
    assert [detail.field for detail in refusal(raw).details] == [field]


def test_a_refused_key_is_told_shortened_and_can_be_sent_on():
    key = r"\ud800" + "k" * 1000
    message = refusal(f'{{"{key}": 1, "{key}": 2}}'.encode()).message
    assert len(message) < 120
    message.encode("utf-8")


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_numbers = st.integers(-(10**40) + 1, 10**40 - 1) | st.floats(
    min_value=-1e20, max_value=1e20, allow_nan=False, allow_infinity=False
).filter(lambda number: number == 0 or abs(number) > 1e-15)
_values = st.recursive(
    st.none() | st.booleans() | _texts | _numbers,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts, inner, max_size=5),
    max_leaves=20,
)


@given(_values, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=150)
def test_whatever_a_json_library_writes_within_the_limits_reads_back_equal(value, ascii_only, indent):
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert _with_floats(read_json(raw)) == value


def _with_floats(value):
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    return value


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_no_bytes_at_all_raise_anything_but_a_refusal(raw):
    with contextlib.suppress(InvalidJson):
        read_json(raw)
