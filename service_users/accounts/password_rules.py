"""(pure) Which passwords are good: long, and long still without what anybody would guess (NIST SP 800-63B-4, 3.1.1.2).

No list of leaked passwords is shipped, and no kind of character is asked for. What is common in such lists is instead
taken out of a password, with words of its context, runs and repetitions; enough must be left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from servicekit.wire.caseless import comparable

SHORTEST, LONGEST = 15, 128
#: Characters that must be left.
_LEFT = 8
_SHORTEST_WORD = 4
_RUN = 4
_WORDS = """
    password passwort passwd passphrase secret letmein welcome iloveyou loveyou login admin administrator master
    dragon monkey football baseball basketball superman batman starwars pokemon princess sunshine shadow flower
    michael jordan jennifer charlie freedom whatever trustno hello hunter killer summer winter spring autumn monday
    friday january december changeme default guest test user root qwerty qwertz azerty siteworks building
    correct horse battery staple correcthorsebatterystaple
    пароль любовь привет солнце наташа марина россия секрет админ йцукен
"""
_ROWS = (
    "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "1234567890", "1qaz2wsx",
    "3edc4rfv", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю",
)  # fmt: skip
_REPEATED = re.compile(r"(.{1,20}?)\1+", re.DOTALL)
_NO_WORD = re.compile(r"[\W_]+")


def weakness(password: str, context: Iterable[str] = ()) -> str | None:
    """What is wrong with a new password; None if nothing is. `context` are texts about its owner: their words do not
    count."""
    if not SHORTEST <= len(password) <= LONGEST:
        return f"must have {SHORTEST} to {LONGEST} characters"
    text = _NO_WORD.sub("", comparable(password))
    words = {word for one in context for word in _NO_WORD.split(comparable(one))}
    for word in sorted({*_WORDS.split(), *words}, key=len, reverse=True):
        if len(word) >= _SHORTEST_WORD:
            text = text.replace(word, "")
    text = _REPEATED.sub(r"\1", _without_runs(text))
    if len(text) < _LEFT:
        return (
            "is too easy to guess: common words, your name and address, rows of keys, sequences and repetitions do not "
            f"count, and {_LEFT} other letters or digits must be left"
        )
    return None


def _without_runs(text: str) -> str:
    """The text with one character for each run such as 4567, dcba or asdf."""
    kept: list[str] = []
    at = 0
    while at < len(text):
        length = _RUN
        # Whatever begins with what is no run is none either: most are looked at once.
        while at + length <= len(text) and _is_run(text[at : at + length]):
            length += 1
        kept.append(text[at])
        at += 1 if length == _RUN else length - 1
    return "".join(kept)


def _is_run(part: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(part)}
    return steps in ({1}, {-1}) or any(part in row or part[::-1] in row for row in _ROWS)
