"""The console's two catalogues say the same."""

from __future__ import annotations

import json
import re

import pytest

from api_gateway.console import FOLDER
from service_sites.domain.steps import Step

_ENTRY = re.compile(r'^  "([^"]+)": (".*"|\{.*\}),$', re.MULTILINE)
#: The plural forms of the Unicode CLDR.
FORMS = {"en": {"one", "other"}, "ru": {"one", "few", "many", "other"}}


def catalogue(language: str) -> dict[str, str | dict[str, str]]:
    text = (FOLDER / "lib" / f"words.{language}.js").read_text(encoding="utf-8")
    entries = {key: json.loads(re.sub(r"([{,] )(\w+):", r'\1"\2":', value)) for key, value in _ENTRY.findall(text)}
    assert len(entries) == text.count("\n") - 3, "an entry is on more than one line, or twice"
    return entries


def placeholders(words: str | dict[str, str]) -> set[str]:
    texts = words.values() if isinstance(words, dict) else [words]
    return {name for text in texts for name in re.findall(r"\{(\w+)\}", text)}


@pytest.mark.parametrize("language", ["ru"])
def test_each_language_has_every_text_with_the_same_values_in_it(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert list(other) == list(english)
    assert {key for key in english if placeholders(english[key]) != placeholders(other[key])} == set()
    for language_, words in (("en", english), (language, other)):
        assert all(set(text) == FORMS[language_] for text in words.values() if isinstance(text, dict))


def test_every_text_that_a_page_asks_for_is_there() -> None:
    known = catalogue("en")
    asked = {
        key
        for path in FOLDER.rglob("*.js")
        if "vendor" not in path.parts
        for key in re.findall(r'[^\w]t\("([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(asked) > 100
    assert asked - known.keys() == set()


def test_each_step_has_words_for_what_is_to_be_done_and_for_what_was_done() -> None:
    known = catalogue("en").keys()
    assert {f"{kind}.{step}" for step in Step for kind in ("step", "taken")} - known == set()
