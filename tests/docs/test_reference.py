"""What is written from the code is up to date."""

from __future__ import annotations

from scripts.reference.__main__ import STALE, stale


def test_the_reference_and_env_example_are_as_the_code_says() -> None:
    assert not stale(), f"{', '.join(file.name for file in stale())}: {STALE}"
