"""The budget of a process, and what a request counts against it."""

from __future__ import annotations

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from servicekit.wire import memory
from servicekit.wire.errors import Overloaded, TooLarge
from servicekit.wire.json_reader import read_json, weight
from servicekit.wire.memory import SMALL, Budget

LIMIT = 80 * SMALL


def test_what_does_not_fit_is_refused_and_what_was_taken_comes_back() -> None:
    budget = Budget(LIMIT)
    with budget.account() as first, budget.account() as second:
        first.take(50 * SMALL)
        with pytest.raises(Overloaded) as refused:
            second.take(30 * SMALL)
        assert refused.value.headers == {"Retry-After": "1"}
        second.take(20 * SMALL)
        assert (budget.taken, second.taken) == (70 * SMALL, 20 * SMALL)
        first.close()
        first.close()
        assert budget.taken == 20 * SMALL
    assert budget.taken == 0


def test_large_requests_leave_a_part_to_small_ones() -> None:
    budget = Budget(LIMIT)
    with budget.account() as large, budget.account() as small:
        large.take(70 * SMALL)  # of 80, an eighth is for small ones
        with pytest.raises(Overloaded):
            budget.account().take(SMALL + 1)
        small.take(SMALL)
        with pytest.raises(Overloaded):
            small.take(1)  # it is no small one any more


def test_what_one_request_may_never_have_is_no_question_of_time() -> None:
    account = Budget(LIMIT).account()
    account.take(70 * SMALL)
    with pytest.raises(TooLarge):
        account.take(1)


def test_threads_take_and_give_back_without_losing_a_byte() -> None:
    budget = Budget(LIMIT)

    def use(size: int) -> None:
        for _ in range(500):
            with budget.account() as account:
                account.take(size)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, (1, 2, 3, 4)))
    assert budget.taken == 0


def test_only_what_is_done_for_a_request_counts() -> None:
    budget = Budget(LIMIT)
    memory.take(2 * LIMIT)
    with budget.account() as account, memory.counted_in(account):
        memory.take(10)
        assert budget.taken == 10
    assert budget.taken == 0
    memory.take(2 * LIMIT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b"[]," * 20_000 + b"[]]", id="empty lists"),
        pytest.param(b"[" + b"{}," * 20_000 + b"{}]", id="empty objects"),
        pytest.param(b"[" + b'{"a":1},' * 20_000 + b"1]", id="small objects"),
        pytest.param(b"[" + b"1.5," * 20_000 + b"1]", id="decimals"),
        pytest.param(b"[" + b"1234567890," * 20_000 + b"1]", id="integers"),
        pytest.param(b"{" + b",".join(b'"k%d":"%d"' % (n, n) for n in range(20_000)) + b"}", id="different keys"),
        pytest.param(json.dumps("x" * 500_000).encode(), id="one text"),
        pytest.param(json.dumps("я, " * 200_000, ensure_ascii=False).encode(), id="a text in Russian"),
        pytest.param(("[" + '"abcdefgh",' * 20_000 + '"😀"]').encode(), id="one wide character in the text"),
        pytest.param(b'["' + b"x" * 500_000 + rb'\ud83d\ude00"]', id="one wide character in a value"),
    ],
)
def test_reading_json_takes_about_as_much_memory_as_is_counted(body: bytes) -> None:
    tracemalloc.start()
    try:
        read_json(body.decode())
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert weight(body) / 5 < highest < 2 * weight(body)


@pytest.mark.parametrize("piece", [b"a, [b] {", rb"\", ", rb"\\"])
def test_what_stands_inside_a_text_is_no_value(piece: bytes) -> None:
    body = b'"' + piece * 200_000 + b'"'
    assert weight(body) == 2 * len(body)
    # One that never ends is no reason to look again and again.
    assert weight(body[:-1]) <= 2 * len(body)
