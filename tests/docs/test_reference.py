"""What is written from the code is up to date, and what people write stays short."""

from __future__ import annotations

from scripts.reference import words
from scripts.reference.__main__ import STALE, stale


def test_the_reference_and_env_example_are_as_the_code_says() -> None:
    old = [file.name for file in stale()]

    assert not old, f"{', '.join(old)}: {STALE}"


def test_a_reader_is_asked_to_read_little() -> None:
    counts = words.pages()

    assert counts.pop("README.md") <= words.README_LIMIT
    assert not {page: count for page, count in counts.items() if count > words.PAGE_LIMIT}
    assert sum(words.pages().values()) <= words.ALL_LIMIT
