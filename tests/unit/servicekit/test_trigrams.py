"""Which terms an index of trigrams is asked for."""

from __future__ import annotations

import pytest

from servicekit.database.trigrams import sought


@pytest.mark.parametrize(
    ("part", "query"),
    [
        ("a", "('a':*) | long"),
        ("ёж", "('ёж':*) | long"),
        ("иван", "('ива' & 'ван') | long"),
        ("aaaa", "('aaa') | long"),
        ("a'\\:* ", "('a''\\\\' & '''\\\\:' & '\\\\:*' & ':* ') | long"),
    ],
)
def test_a_part_is_asked_for_by_all_its_trigrams_or_as_a_prefix(part, query):
    assert sought(part)["trigrams"] == query


def test_of_a_long_part_some_terms_tell_how_rare_it_is():
    part = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    assert 1 < len(sought(part)["terms"]) <= 12
