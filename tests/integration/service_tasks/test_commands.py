"""`python -m service_tasks`: what people ask on a command line, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest

from service_tasks.cli import main
from service_tasks.domain.task import AttemptError, FailedForGood
from service_tasks.task_types.io import io
from tests.support.markdown import CHECKOUT
from tests.support.ports import free_port

COMMANDS = ("types", "list", "show", "retry", "cancel", "stats")


@pytest.fixture
def ask(tasks_database, monkeypatch, capsys, tmp_path):
    """Give a function that runs a command and gives its status, its output and its error."""
    monkeypatch.setenv("TASKS_DATABASE_URL", tasks_database.url)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            status = main(list(arguments))
        except SystemExit as exc:
            status = exc.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def failed(bench, **changes):
    task_id = bench.add("crane", **changes)
    (claimed,) = bench.claim(bench.register(types=("crane",)), "crane")
    trace = "Traceback\n  line 7\nBroken: the pump"
    bench.engine.write([FailedForGood(claimed.lease, AttemptError("Broken", "the pump", trace))], "a worker")
    return task_id


@pytest.mark.parametrize("command", ["worker", "ingest", *COMMANDS])
def test_every_command_explains_itself(ask, command):
    status, output, _ = ask(command, "--help")

    assert status == 0
    assert f"python -m service_tasks {command}" in output
    assert "TASKS_DATABASE_URL" in output
    if command in COMMANDS:
        assert "Exit status:" in output
        assert "--json" in output


def test_the_whole_is_explained_without_a_command(ask):
    assert all(name in ask("--help")[1] for name in ("worker", "ingest", *COMMANDS))
    assert ask()[0] == 2


def test_as_a_program_it_ends_with_the_status_and_says_one_line():
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    port = free_port()
    url = f"postgresql://tasks:secret@127.0.0.1:{port}/tasks"
    done = subprocess.run(
        [sys.executable, "-m", "service_tasks", "stats"],
        cwd=CHECKOUT, env={**own, "TASKS_DATABASE_URL": url}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"stats: the tasks database at 127.0.0.1:{port}/tasks (TASKS_DATABASE_URL) cannot be used: ")
    assert "refused" in line
    assert "secret" not in line


def test_whoever_reads_no_further_does_no_harm(bench, tasks_database):
    for _ in range(100):
        bench.add()
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "service_tasks", "list", "--limit", "100"],
        cwd=CHECKOUT, env={**own, "TASKS_DATABASE_URL": tasks_database.url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()

    _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (0, b"")


# Errors


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["list", "--status", "asleep"], 2, "list: --status: must be one of"),
        (["list", "--limit", "many"], 2, "list: --limit: must be a whole number"),
        (["list", "--limit", "101"], 2, "list: --limit: must be at most 100"),
        (["list", "--user", "7"], 2, "list: --user: must be a UUID"),
        (["show", "7"], 2, "show: ID: must be a UUID"),
        (["show", str(uuid4())], 1, "show: There is no task with this id."),
        (["cancel", str(uuid4())], 1, "cancel: There is no task with this id, or it has ended already."),
        (["cancel"], 2, "cancel: --all: name which tasks are meant"),
        (["retry", "--all", "--type", "crane"], 2, "retry: --all: is true, and a filter is there as well"),
        (["retry", "--status", "pending"], 2, "retry: --status: must be failed or cancelled"),
        (["retry", "--created-from", "today"], 2, "retry: --created-from: must be a time"),
        (["retry", "--ended-before", "2026-01-31"], 2, "retry: --ended-before: must be a time"),
        (["retry", "7", "8"], 2, "retry: ID: must be a UUID"),
    ],
)
def test_a_bad_argument_and_a_refusal_are_one_line_that_names_it(ask, arguments, status, words):
    found, output, error = ask(*arguments)

    assert (found, output) == (status, "")
    (line,) = error.splitlines()
    assert line.startswith(words)


@pytest.mark.parametrize("limit", ["0", "-3", "some"])
def test_a_limit_of_none_is_refused(ask, limit):
    status, _, error = ask("cancel", "--all", f"--limit={limit}")

    assert status == 2
    assert "--limit" in error


@pytest.mark.parametrize(
    ("variable", "value"), [("TASKS_DATABASE_URL", "sqlite://"), ("TASK_MODULES", "there.is.none")]
)
def test_a_wrong_setting_is_named(ask, variable, value):
    status, output, error = ask("types", **{variable: value})

    assert (status, output) == (2, "")
    assert error.startswith(f"types: {variable}: ")
    assert len(error.splitlines()) == 1


# What they answer


def test_types_are_listed_with_who_runs_them(bench, ask):
    bench.register(types=("crane", "noop"))
    bench.store.control("crane", {"paused": True, "max_running": 3})

    _, table, _ = ask("types")
    _, text, _ = ask("types", "--json")

    lines = {line.split()[0]: line.split() for line in table.splitlines()}
    assert lines["crane"][:4] == ["crane", "1", "paused", "3"]
    assert " ".join(lines["io"][4:]) == io.description.partition("\n")[0]
    assert {one["name"] for one in json.loads(text)["task_types"]} >= {"crane", "noop", "io"}


def test_tasks_are_listed_the_newest_first_and_narrowed(bench, ask):
    user = uuid4()
    first = bench.add("crane", title="Lift\nit \x1b[31mnow")
    second = bench.add("noop", user_id=user)

    status, table, _ = ask("list")
    rows = table.splitlines()
    assert status == 0
    assert [row.split()[0] for row in rows] == ["ID", str(second), str(first), "2"]
    # Nothing that a terminal would obey, and no line of its own.
    assert rows[2].endswith("no worker runs this type")
    assert "\x1b" not in table

    assert json.loads(ask("list", "--type", "crane", "--json")[1])["tasks"][0]["id"] == str(first)
    assert json.loads(ask("list", "--user", str(user), "--status", "New", "--json")[1])["total"] == 1
    assert ask("list", "--limit", "1")[1].splitlines()[-1] == f"1 of 2; go on with --after {second}"
    assert json.loads(ask("list", "--after", str(second), "--json")[1])["tasks"][0]["id"] == str(first)


def test_one_task_is_shown_with_its_errors(bench, ask):
    task_id = failed(bench, max_attempts=1)

    _, text, _ = ask("show", str(task_id))
    assert f"id:             {task_id}" in text
    assert "status:         failed" in text
    assert "  Broken: the pump" in text
    assert "line 7" not in text
    assert "  line 7" in ask("show", str(task_id), "--trace")[1]
    assert json.loads(ask("show", str(task_id), "--json")[1])["errors"][0]["type"] == "Broken"


def test_one_task_is_run_again_and_cancelled_by_its_id(bench, ask):
    task_id = failed(bench)

    assert ask("retry", str(task_id)) == (0, f"{task_id} runs again\n", "")
    assert bench.get(task_id).state == "ready"
    assert ask("retry", str(task_id))[0] == 1
    assert json.loads(ask("cancel", str(task_id), "--json")[1])["status"] == "cancelled"
    assert ask("retry", "--status", "cancelled", str(task_id)) == (0, "1 run again\n", "")


def test_many_are_run_again_and_cancelled_by_a_filter(bench, ask):
    broken = [failed(bench, unique_key="pump" if number else None) for number in range(3)]
    other = bench.add("other")

    status, text, _ = ask("retry", "--type", "crane", "--status", "failed")
    assert (status, text) == (0, "2 run again\n1 passed over: a live task has their unique_key\n")
    assert bench.get(broken[1]).state == "ready"
    assert bench.get(broken[2]).state == "failed"

    assert json.loads(ask("cancel", "--type", "crane", "--json")[1]) == {"cancelled": 2, "changed": 0, "next": None}
    assert bench.get(other).state == "ready"


def test_it_goes_on_until_nothing_fits_or_the_limit_is_reached(bench, ask):
    bench.sql(
        """INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)
           SELECT gen_random_uuid(), 'ready', 'crane', '{}', 50, 3, now() FROM generate_series(1, 2600)"""
    )

    assert ask("cancel", "--type", "crane", "--limit", "100")[1] == (
        "100 cancelled\nmore may fit: the limit was reached\n"
    )
    assert ask("cancel", "--type", "crane") == (0, "2500 cancelled\n", "")
    assert ask("cancel", "--type", "crane") == (0, "0 cancelled\n", "")


def test_how_things_stand_is_shown_to_people_and_programs(bench, ask):
    failed(bench)
    bench.add("crane")

    status, text, _ = ask("stats")
    assert status == 0
    lines = [line.split() for line in text.splitlines()]
    assert ["pending", "1"] in lines
    assert ["failed", "1"] in lines
    assert any(line[:2] == ["crane", "1"] for line in lines)
    assert "1 workers, 0 silent; 0 of 0 places taken" in text
    assert json.loads(ask("stats", "--json")[1])["counts"]["failed"] == 1
