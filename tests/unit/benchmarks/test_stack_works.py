"""What whole stacks are asked for, when their answers are the same, and what is told of their runs."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter

import pytest

from benchmarks.generator import messages
from benchmarks.load import NUMBER, LoadResult
from benchmarks.system import measuring
from benchmarks.system.measuring import Plan, StackRun, numbers, report
from benchmarks.system.works import LISTS, SERVICES, SYSTEM, differences, mix


def _run(answers: int, cpu: float) -> StackRun:
    return StackRun(LoadResult(answers / 2, 1.0, 2.0, 0, answers), cpu, cpu / 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "writes", "expected"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, False, []),
        ({"a": 1}, {"a": 2}, False, [".a is 2 and not 1"]),
        ({"a": 1}, {}, False, [".a"]),
        ({}, {"a": 1}, False, [".a"]),
        ([{"a": 1}], [{"a": 2}], False, ["[0].a is 2 and not 1"]),
        ([1], [1, 2], False, [" is [1, 2] and not [1]"]),
        # Only we have it.
        ({"a": 1, "waiting_for": "x"}, {"a": 1}, False, []),
        ({"total": 2, "total_is_exact": False}, {"total": 3}, False, []),
        ({"total": 2, "total_is_exact": True}, {"total": 3}, False, [".total is 3 and not 2"]),
        # An id is new only where something was made.
        ({"id": "x"}, {"id": "y"}, True, []),
        ({"id": "x"}, {"id": "y"}, False, [".id is 'y' and not 'x'"]),
        ({"id": "x"}, {}, True, [".id"]),
        ({"user_id": "x"}, {"user_id": "y"}, True, [".user_id is 'y' and not 'x'"]),
    ],
)
def test_answers_are_the_same_but_for_what_only_we_have_and_what_is_of_the_moment(ours, theirs, writes, expected):
    assert differences(ours, theirs, writes=writes) == expected


def test_the_mix_has_its_shares_of_each_kind_early_and_late():
    asked = mix(10_000, "word")
    for part in (asked, asked[:200], asked[-200:]):
        kinds = Counter((ask.method, ask.path.split("/")[1], ask.path.endswith("/details")) for ask in part)
        shares = {kind: round(count / len(part) * 20) for kind, count in kinds.items()}
        assert shares == {
            ("GET", "users", False): 8,
            ("GET", "orders?limit=50", False): 4,
            ("POST", "orders", False): 3,
            ("POST", "tasks", False): 3,
            ("GET", "users", True): 2,
        }


@pytest.mark.parametrize("count", [100, 10_000])
def test_requests_are_one_line_and_name_rows_that_are_there(count):
    for work in [*SERVICES.values(), *LISTS.values(), *SYSTEM.values()]:
        for ask in work.asks(count, "word"):
            assert not {"\t", "\n"} & set(ask.path + ask.body)
            if "00000000-" in ask.path:
                assert 1 <= int(ask.path.split("-")[-1].partition("/")[0], 16) <= count


def test_messages_go_round_and_numbers_never_come_twice():
    lines = f'GET\t/a\t\t\nPOST\t/b\t{{"name": "é{NUMBER}"}}\ta.token\n'
    sent = list(itertools.islice(messages("h:1", lines), 4))
    assert sent[0] == sent[2] == b"GET /a HTTP/1.1\r\nHost: h:1\r\n\r\n"
    assert [one.partition(b"\r\n\r\n")[2] for one in sent[1::2]] == [
        '{"name": "é1"}'.encode(),
        '{"name": "é2"}'.encode(),
    ]
    # In bytes: é has two.
    assert b"Content-Length: 15\r\n" in sent[1]
    assert b"Authorization: Bearer a.token\r\n" in sent[1]


def test_cpu_is_told_for_each_answer_with_the_least_of_the_rounds():
    rows = report({"GET": {"siteworks": [_run(1000, 0.5), _run(2000, 0.4), _run(1000, 0.3)]}}, whole=False)
    told = {row.metric: row.runs for row in rows}
    assert told["CPU of the service's process"] == pytest.approx((500, 200, 300))
    assert told["CPU of the service's process, least of the rounds"] == pytest.approx((200,))
    assert told["CPU of PostgreSQL"] == pytest.approx((250, 100, 150))


def test_a_run_without_answers_is_told_and_not_a_fault():
    rows = report({"GET": {"siteworks": [_run(0, 0.0)]}}, whole=True)
    assert {row.value for row in rows if row.unit == "µs/answer"} == {0.0}


@pytest.mark.parametrize(("text", "found"), [("1", [1]), ("1,8,1_000", [1, 8, 1000])])
def test_numbers_stand_between_commas(text, found):
    assert numbers("clients", text, least=1) == found


@pytest.mark.parametrize("text", ["", "1,", "many", "0", "8,-1"])
def test_what_is_no_number_or_too_small_ends_the_program(text):
    with pytest.raises(SystemExit, match="--clients takes numbers"):
        numbers("clients", text, least=1)


def test_a_title_names_clients_and_rows_only_where_they_differ():
    work = SYSTEM["user"]
    plan = Plan([work], [32], [10_000], 3, 1, whole=True)
    assert plan.title(work, 32, 10_000) == "GET /users/{id}"
    plan = Plan([work], [1, 1000], [1000, 100_000], 3, 1, whole=True)
    assert plan.title(work, 1, 100_000) == "GET /users/{id}, 1 client, 100,000 rows"


def test_an_unknown_work_is_named_before_anything_starts():
    parser = argparse.ArgumentParser()
    measuring.add_arguments(parser, SYSTEM, {}, 32)
    parser.add_argument("--quick", action="store_true")
    with pytest.raises(SystemExit, match="no work nothing"):
        measuring.plan_of(parser.parse_args(["--works", "mix,nothing"]), SYSTEM, list(SYSTEM), whole=True)
    plan = measuring.plan_of(parser.parse_args(["--quick"]), SYSTEM, list(SYSTEM), whole=True)
    assert (plan.clients, plan.rows, plan.rounds, plan.seconds) == ([32], [10_000], 2, 1)
