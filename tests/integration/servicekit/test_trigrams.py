"""The index of trigrams misses no text that has the part."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from servicekit.database.trigrams import sought

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(before=TEXT | st.just(""), part=TEXT, after=TEXT | st.just(""))
@example(before="", part="'", after="")
@example(before="a", part="\\'", after="b")
@example(before="", part=":*", after="")
@example(before="x" * 5000, part="Чокопай", after="")
def test_every_text_with_a_part_is_among_those_that_the_index_gives(orders_database, before, part, after):
    asked = sought(part)
    with orders_database.database.transaction() as session:
        for query in (asked["trigrams"], *asked["terms"]):
            found = text("SELECT trigrams(:text) @@ CAST(:query AS tsquery)")
            assert session.scalar(found, {"text": before + part + after, "query": query})


def test_a_text_without_the_part_is_not(orders_database):
    with orders_database.database.transaction() as session:
        found = text("SELECT trigrams('чокопай') @@ CAST(:query AS tsquery)")
        parts = ("чоко", "опа", "й", "оз", "пайч", "x")
        assert [session.scalar(found, {"query": sought(part)["trigrams"]}) for part in parts] == [
            True, True, True, False, False, False,
        ]  # fmt: skip
