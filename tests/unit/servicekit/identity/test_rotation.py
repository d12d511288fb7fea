"""Signing keys come and go without a refused token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.identity.keys import SigningKey
from servicekit.identity.rotation import AHEAD, KEPT, DatedKey, keys_needed, signing_key
from servicekit.identity.tokens import LIFETIME, SKEW

_SIGNING = SigningKey.generate()
TIMES = st.lists(st.integers(0, 8 * AHEAD), min_size=1, max_size=6, unique=True)


def keys(*made_at: float) -> list[DatedKey]:
    return [DatedKey(at, _SIGNING) for at in made_at]


@pytest.mark.parametrize(
    ("made_at", "now", "signs", "published"),
    [
        # The first one signs at once: nobody has other keys.
        ([0], 0, 0, [0]),
        ([0, 1000], 1000, 0, [0, 1000]),
        ([0, 1000], 1000 + AHEAD - 1, 0, [0, 1000]),
        ([0, 1000], 1000 + AHEAD, 1000, [0, 1000]),
        ([0, 1000], 1000 + AHEAD + KEPT, 1000, [0, 1000]),
        ([0, 1000], 1000 + AHEAD + KEPT + 1, 1000, [1000]),
        ([0, 1000], 1_000_000, 1000, [1000]),
        # Made in haste: still no key signs before it is known.
        ([0, 10, 20], 25, 0, [0, 10, 20]),
        ([20, 0, 10], 10 + AHEAD, 10, [0, 10, 20]),
    ],
)
def test_a_key_is_published_before_it_signs_and_for_as_long_as_its_tokens_last(made_at, now, signs, published):
    assert signing_key(keys(*made_at), now).made_at == signs
    assert [one.made_at for one in keys_needed(keys(*made_at), now)] == published


@given(
    made_at=TIMES, signed=st.integers(0, 12 * AHEAD), asked=st.integers(0, AHEAD), shown=st.integers(0, LIFETIME + SKEW)
)
def test_whoever_asked_for_keys_within_ten_minutes_knows_the_key_of_every_token(made_at, signed, asked, shown):
    """An announced key is visible before it signs, and a token is good to its end."""

    def existing(now: float) -> list[DatedKey]:
        return keys(*(at for at in made_at if at <= now))

    issued_at = min(made_at) + signed
    key = signing_key(existing(issued_at), issued_at)
    for moment in (max(issued_at - asked, min(made_at)), issued_at + shown):
        assert key in keys_needed(existing(moment), moment)
