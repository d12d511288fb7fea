"""Whatever JSON a handler gives comes out of every endpoint as it went in, or the attempt says why it cannot."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_tasks.app import create_app
from service_tasks.cli import main
from service_tasks.domain.watched import Watch
from service_tasks.engine.registry import BadResult, task_type
from service_tasks.engine.runner import _json_text
from service_tasks.persistence.watch_store import WatchStore
from service_tasks.settings import TasksSettings
from service_tasks.streams.feed import TaskSnapshot
from service_tasks.streams.stream import events_of
from servicekit.identity.reach import Reach
from servicekit.wire.json_reader import MAX_STORED_DEPTH


def nested(levels: int):
    value = "the bottom"
    for _ in range(levels):
        value = [value]
    return value


RESULTS = {
    "a small number": 6.62607015e-34,
    "the smallest float": 5e-324,
    "the largest float": 1.7976931348623157e308,
    "more digits than a float has": Decimal("0." + "3" * 60),
    "a whole number of 50 digits": 10**50 + 1,
    "a number with as many digits as a column holds": Decimal("1e131071"),
    "one with as many behind the point": Decimal("1e-16383"),
    "levels": nested(MAX_STORED_DEPTH),
    "levels of objects": {"a": {"b": [{"c": nested(100)}]}},
    "texts": ["", "起重机 \U0001f3d7", "\\u0000 is no NUL", "\t\r\n\x01\x7f\u2028", '"\\'],
    "a key of every kind": {"": 1, "a b": 2, "\n": 3, "ключ": 4},
    "what looks like nothing": [None, False, 0, 0.0, "", [], {}],
}


def exactly(text: str | bytes):
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_comes_out_at_every_door_as_it_went_in(name, bench, start_worker, tasks_database, monkeypatch, capsys):
    result = RESULTS[name]

    @task_type("measure")
    async def measure(ctx, payload):
        return result

    given = exactly(_json_text(result))
    task_id = bench.add("measure", callback_url="http://localhost/ended")
    worker = start_worker(measure)
    bench.wait_for(task_id, "completed")
    worker.stop()

    # HTTP, through what the gateway reads of it
    app = create_app(TasksSettings(tasks_database_url=tasks_database.url, _env_file=None))
    for path in (f"/tasks/{task_id}/result", f"/tasks/{task_id}", "/tasks?task_type=measure"):
        body = app.test_client().get(path).data
        data = exactly(body)["data"]
        shown = data["tasks"][0] if "tasks" in data else data
        if not shown.get("omitted"):
            assert shown["result"] == given
    # The stream
    watched = WatchStore(bench.database).changed({(watch := Watch(task_id, Reach.all())): None})[watch]
    (*_, (_, text)) = events_of(TaskSnapshot(watched, 1), None)
    told = exactly(text.split(b"data: ")[1])
    assert told["result"] == (None if told["omitted"] else given)
    # The command line
    monkeypatch.setenv("TASKS_DATABASE_URL", tasks_database.url)
    capsys.readouterr()
    assert main(["show", "--json", str(task_id)]) == 0
    assert exactly(capsys.readouterr().out)["result"] == given
    # The callback
    ((payload,),) = bench.sql("SELECT payload::text FROM tasks WHERE task_type = 'callback'")
    data = exactly(payload)["event"]["data"]
    assert data["result"] == (None if data["omitted"] else given)


REFUSED = {
    "not a number": float("nan"),
    "no end": [float("-inf")],
    "a Decimal that is none": Decimal("NaN"),
    "a Decimal that says so loudly": {"a": Decimal("sNaN")},
    "a NUL": "a\0b",
    "a NUL in a key": {"a\0": 1},
    "half of a surrogate pair": "\ud83d",
    "a number with too many digits": Decimal("1e131072"),
    "one with too many behind the point": Decimal("1e-16384"),
    "a zero with too many": Decimal("0e-16384"),
    "short numbers that take gigabytes": [Decimal("1e131071")] * 9,
    "too many levels": nested(MAX_STORED_DEPTH + 1),
    "far too many levels": nested(900),
    "two keys that are one": {1: "a", "1": "b"},
    "too long a text": "x" * 1024 * 1024,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_fails_the_attempt_alone_and_says_why(name, bench, start_worker):
    @task_type("measure", max_attempts=1)
    async def measure(ctx, payload):
        return REFUSED[name] if payload else "sound"

    bad = bench.add("measure", payload="1", max_attempts=1)
    good = bench.add("measure", payload="0")
    start_worker(measure)

    assert bench.wait_for(bad, "failed").error.startswith("the result ")
    assert bench.wait_for(good, "completed").result == '"sound"'


long = st.builds("{}e{}".format, st.integers(-(10**40), 10**40), st.integers(-17_000, 132_000)).map(Decimal)
numbers = st.integers() | st.floats(allow_nan=False) | st.decimals(allow_nan=False) | long
trees = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def test_the_database_keeps_and_gives_back_every_result_that_is_not_refused(bench):
    @given(trees)
    @settings(max_examples=150)
    def holds(result):
        try:
            text = _json_text(result)
        except BadResult:
            return
        ((kept,),) = bench.sql("SELECT (%s::jsonb)::text", text)
        assert exactly(kept) == exactly(text)

    holds()


def test_payloads_read_back_from_the_database_are_never_refused():
    """The limits are those of requests; a program that writes into the table has others."""
    seen = []

    @task_type("measure")
    def measure(ctx, payload):
        seen.append(payload)

    text = '{"h": 6.62607015e-34, "deep": ' + "[" * 40 + "]" * 40 + ', "long": ' + "9" * 5000 + "}"
    measure.function(None, measure.parse(text))

    assert seen[0]["h"] == Decimal("6.62607015e-34")
    assert seen[0]["long"] == Decimal("9" * 5000)
