"""When two addresses or names are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.wire.caseless import comparable


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("User@Example.COM", "user@example.com"),
        ("STRASSE@example.com", "straße@example.com"),  # ß folds to ss
        ("ẞ", "ß"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),  # a capital sigma folds like both small ones
        ("οδυσσευσ", "οδυσσευς"),
        ("БЕЛОВ", "белов"),
        ("Å", "\u212b"),  # the letter and the unit sign
        ("é", "e\u0301"),  # one character or two
        ("É", "e\u0301"),
        ("ﬀ", "FF"),  # a ligature
        ("K", "\u212a"),  # the Kelvin sign
        ("Ω", "\u2126"),  # the Ohm sign
    ],
)
def test_these_are_the_same(one, other):
    assert comparable(one) == comparable(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ı", "i"),  # the Turkish dotless i is a letter of its own
        ("İ", "i"),  # and the dotted capital keeps its dot
        ("e", "é"),
        ("a", "а"),  # Latin and Cyrillic
        ("user@example.com", "user@example.com "),
    ],
)
def test_these_are_not(one, other):
    assert comparable(one) != comparable(other)


@given(st.text(max_size=40))
def test_the_compared_form_is_its_own_compared_form(text):
    assert comparable(comparable(text)) == comparable(text)


@given(st.text(max_size=40))
def test_the_case_never_matters(text):
    assert comparable(text.casefold()) == comparable(text)
