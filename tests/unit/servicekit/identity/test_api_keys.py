"""API keys as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.identity.api_keys import LENGTH, is_api_key, new_api_key

KEY = new_api_key()


def test_keys_differ_and_know_themselves():
    keys = {new_api_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(is_api_key(key) and len(key) == LENGTH == 53 and key[4:].isalnum() for key in keys)


@given(st.integers(0, LENGTH - 1), st.characters())
def test_a_key_with_one_other_character_is_none(place, character):
    other = KEY[:place] + character + KEY[place + 1 :]
    assert is_api_key(other) == (other == KEY)


@pytest.mark.parametrize(
    "text",
    ["", "swk_", KEY[:-1], KEY + "0", KEY.upper(), f" {KEY[1:]}", "swk_" + "٣" * 49],
    ids=["nothing", "prefix", "shorter", "longer", "upper case", "another prefix", "other digits"],
)
def test_other_texts_are_no_keys(text):
    assert not is_api_key(text)
