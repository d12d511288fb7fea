"""Answers that are made once for many."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from servicekit.web.shared_answers import LARGEST, MOST, SharedAnswers, max_age
from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, 0), ("", 0), ("no-cache", 0), ("max-age=0", 0), ("max-age=3", 3), ("no-transform, Max-Age=15", 15),
        ("max-age=3600", 60), ("max-age=-1", 0), ("max-age=1.5", 0), ("s-max-age=9", 0), ("max-age=" + "9" * 40, 0),
    ],
)  # fmt: skip
def test_how_old_an_answer_may_be(field, seconds):
    assert max_age(field) == seconds


def test_an_answer_is_given_until_it_is_too_old_for_whoever_asks():
    now, made = 100.0, iter("abcde")
    shared: SharedAnswers[str] = SharedAnswers(lambda: now)

    def ask(seconds: int, key: str = "x") -> tuple[str, int]:
        return shared.get(key, seconds, lambda: next(made))

    assert ask(3) == ("a", 0)
    now = 103.0
    assert ask(3) == ("a", 3)
    assert ask(9, "another") == ("b", 0)
    assert ask(2) == ("c", 0)
    now = 104.5
    # By its own age, and not by when it was last given.
    assert ask(2) == ("c", 1)


def test_those_who_ask_while_it_is_made_get_the_same():
    shared: SharedAnswers[str] = SharedAnswers()
    asked, made = threading.Barrier(21), []

    def make() -> str:
        made.append(1)
        asked.wait(10)
        return "answer"

    def ask(number: int) -> str:
        if number:
            asked.wait(10)
        return shared.get("x", 60, make)[0]

    with ThreadPoolExecutor(21) as threads:
        assert set(threads.map(ask, range(21))) == {"answer"}
    assert len(made) == 1


def test_one_that_failed_or_is_too_large_is_not_kept_and_few_are():
    shared: SharedAnswers[str] = SharedAnswers()
    with pytest.raises(ZeroDivisionError):
        shared.get("x", 60, lambda: str(1 // 0))
    large = "a" * (LARGEST + 1)
    assert [shared.get("x", 60, lambda answer=answer: answer)[0] for answer in (large, "b", "c")] == [large, "b", "b"]
    for number in range(MOST):
        shared.get(number, 60, lambda: "")
    assert shared.get("x", 60, lambda: "new") == ("new", 0)


def test_nobody_waits_longer_than_they_have():
    shared: SharedAnswers[str] = SharedAnswers()
    begun, ended = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(shared.get, "x", 60, lambda: begun.set() or (ended.wait(10) and "late") or "")
        assert begun.wait(10)
        with deadline.within(0.01), pytest.raises(DeadlineExceeded):
            shared.get("x", 60, lambda: "early")
        ended.set()
        assert slow.result()[0] == "late"
