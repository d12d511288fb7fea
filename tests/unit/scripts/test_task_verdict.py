"""What the soak of tasks calls a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from scripts.soaking import journal
from scripts.soaking.journal import Run
from scripts.soaking.records import Kill
from scripts.soaking.task_load import Act, Ending, Wish
from scripts.soaking.task_verdict import Evidence, later_ends, rescues, task_faults
from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import Lease, LostTask, WillRetry
from service_tasks.engine.runner import decide_lost

HERE, THERE = 11, 12


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def wish(label: str = "a", **more: Any) -> Wish:
    body = {"title": label, "task_type": "noted", "payload": {"seconds": 1}, **more.pop("body", {})}
    return Wish(label, body, **{"id": f"id of {label}", **more})


def task(label: str = "a", status: str = "completed", **more: Any) -> dict[str, Any]:
    known = {
        "id": f"id of {label}",
        "title": label,
        "status": status,
        "attempts": 1,
        "max_attempts": 3,
        "result": {"run": "run 1"} if status == "completed" else None,
        "errors": [],
        "created_at": at(100.0),
        "updated_at": at(111.0),
        "completed_at": at(111.0),
    }
    return {**known, **more}


def run(number: int = 1, attempt: int = 1, began: float = 110.0, ended: float | None = 110.9, **more: Any) -> Run:
    end = more.pop("end", None if ended is None else "returned")
    return Run(f"run {number}", more.pop("of", "id of a"), attempt, more.pop("pid", HERE), began, ended, end)


def lost(attempt: int = 1, failed_at: float = 120.0, counts: bool = True) -> dict[str, Any]:
    task = LostTask(Lease(uuid4(), 1), attempt, 9, False, datetime.now(UTC), "noted", uuid4(), None, 1 if counts else 9)
    outcome = decide_lost(task, 0.5, RetryPolicy())
    assert isinstance(outcome, WillRetry)
    error = outcome.error
    return {"attempt": attempt, "type": error.type, "message": error.message, "failed_at": at(failed_at)}


def killed(pid: int = HERE, moment: float = 105.0, signal: str = "SIGKILL", **more: Any) -> Kill:
    return Kill(moment, "task worker", pid, (), moment + 1, signal, **more)


def evidence(wishes: list[Wish], tasks: list[dict[str, Any]], runs: list[Run], *kills: Kill) -> Evidence:
    living = frozenset({HERE, THERE} - {kill.pid for kill in kills if kill.signal != "SIGSTOP"})
    return Evidence(wishes, tasks, tasks, sorted(runs, key=lambda one: one.began), kills, living, living, 1000.0)


RESCUED = task(attempts=2, errors=[lost()], result={"run": "run 2"}, completed_at=at(131.0))

OVER_AND_ANEW = [run(1, 1, 100.5, 101.0, end="raised"), run(2, 2, 101.5, 102.0, end="raised"), run(3, 1, 103.0)]

WELL = {
    "it ran and completed": evidence([wish()], [task()], [run()]),
    "an unclear request made nothing": evidence([wish(id=None, unclear=True)], [], []),
    "an unclear request made one task": evidence([wish(id=None, unclear=True)], [task()], [run()]),
    "none of an unclear batch": evidence([wish(name, id=None, unclear=True, batch="b") for name in "ab"], [], []),
    "its unique_key was another's": evidence(
        [wish(body={"unique_key": "k"}), wish("b", id="id of a", existing=True, body={"unique_key": "k"})],
        [task()],
        [run()],
    ),
    "rescued from a killed worker": evidence(
        [wish()], [RESCUED], [run(1, 1, 100.0, None), run(2, 2, 130.0, 130.9, pid=THERE)], killed()
    ),
    "given back by a rescuer, for it died with others": evidence(
        [wish()],
        [task(errors=[lost(counts=False)], result={"run": "run 2"}, completed_at=at(131.0))],
        [run(1, 1, 100.0, None), run(2, 1, 130.0, 130.9, pid=THERE)],
        killed(),
    ),
    "claimed by a worker that was killed before it began": evidence(
        [wish()], [RESCUED], [run(2, 2, 130.0, 130.9, pid=THERE)], killed()
    ),
    "run twice at once, for its worker was stopped": evidence(
        [wish()],
        [RESCUED],
        [run(1, 1, 100.0, 141.0), run(2, 2, 130.0, 130.9, pid=THERE)],
        killed(signal="SIGSTOP", continued_at=140.0),
    ),
    "handed back with its attempt": evidence(
        [wish()],
        [task(result={"run": "run 2"})],
        [run(1, 1, 100.0, 101.0, end="stopped"), run(2, 1, 110.0, 110.9, pid=THERE)],
    ),
    "retried by hand, with attempts anew": evidence(
        [wish(acts=[Act("cancel", 103.0, 103.1, True), Act("retry", 105.0, 105.1, True)])],
        [task(result={"run": "run 2"})],
        [run(1, 1, 100.0, 103.0, end="stopped"), run(2, 1, 110.0, 110.9)],
    ),
    "retried by hand with a request that waited until its last attempt had failed": evidence(
        [wish(acts=[Act("retry", 101.0, 104.0, True)])], [task(result={"run": "run 3"})], OVER_AND_ANEW
    ),
    "failed with its last attempt": evidence(
        [wish(body={"payload": {"seconds": 1, "failures": 9}})],
        [task(status="failed", max_attempts=1, errors=[{"attempt": 1, "type": "AskedToFail", "failed_at": at(111.0)}])],
        [run(end="raised")],
    ),
    "given back, and cancelled before it ran again": evidence(
        [wish(acts=[Act("cancel", 125.0, 125.1, True)])],
        [task(status="cancelled", attempts=0, errors=[lost(counts=False)], completed_at=at(125.0))],
        [run(1, 1, 100.0, None)],
        killed(),
    ),
    "cancelled while it was claimed": evidence(
        [wish(acts=[Act("cancel", 110.0, 110.1, True)])],
        [task(status="cancelled")],
        [run(began=112.0, ended=112.1, end="stopped")],
    ),
}


@pytest.mark.parametrize("found", WELL.values(), ids=WELL.keys())
def test_no_fault(found: Evidence) -> None:
    assert task_faults(found) == []


def also(found: Evidence, **more: Any) -> Evidence:
    return replace(found, **more)


FAULTS: dict[str, tuple[Evidence, str]] = {
    "answered and gone": (evidence([wish()], [], []), "201 gave id of a, and there is nothing"),
    "twice for one request": (
        evidence([wish()], [task(), task(id="another", status="cancelled")], [run()]),
        "there are 2 of it",
    ),
    "two for one key": (
        evidence([wish(idempotency_key="k")], [task(), task(id="another", status="cancelled")], [run()]),
        "there are 2 of it",
    ),
    "never a clear answer": (
        evidence([wish(id=None, unclear=True, idempotency_key="k")], [], []),
        "no clear answer even at the end",
    ),
    "refused, and there": (evidence([wish(id=None)], [task()], [run()]), "is there though its answer was another"),
    "nobody's": (evidence([], [task()], [run()]), "nobody asked for this task"),
    "half a batch": (
        evidence([wish(name, id=None, unclear=True, batch="b") for name in "ac"], [task()], [run()]),
        "1 of 2 tasks of one batch",
    ),
    "two alive with one unique_key": (
        evidence(
            [wish(name, body={"unique_key": "k"}) for name in "ab"],
            [task(), task("b", status="cancelled", created_at=at(105.0))],
            [run()],
        ),
        "made 6.0 s before a ended",
    ),
    "no end": (evidence([wish()], [task(status="processing", completed_at=None)], []), "is processing at the end"),
    "another end later": (
        also(evidence([wish()], [task()], [run()]), later=[task(status="failed")]),
        "its end did not stay: status, result",
    ),
    "gone later": (also(evidence([wish()], [task()], [run()]), later=[]), "its end did not stay: id"),
    "made after the end": (
        also(evidence([wish()], [task()], [run()]), later=[task(), task("b")]),
        "made after the end",
    ),
    "another end than a client was shown": (
        evidence([wish(seen=Ending("failed", 1, at(105.0), None))], [task()], [run()]),
        "was shown as failed, attempt 1, and is completed",
    ),
    "run again after it was completed": (
        evidence([wish()], [task()], [run(), run(2, 2, 115.0, 115.1)]),
        "ran again 4.100 s after the run that completed it",
    ),
    "completed by nobody": (evidence([wish()], [task()], []), "of which the journal tells no good end"),
    "completed by a run that raised": (
        evidence([wish()], [task()], [run(end="raised")]),
        "of which the journal tells no good end",
    ),
    "completed by another attempt": (
        evidence([wish()], [task(attempts=2, errors=[lost()])], [run()], killed(THERE)),
        "completed by attempt 1, and has 2 attempts",
    ),
    "an attempt not counted": (
        evidence(
            [wish()],
            [task(result={"run": "run 2"})],
            [run(1, 1, 100.0, None), run(2, 1, 110.0, 110.9, pid=THERE)],
            killed(),
        ),
        "attempt 1 began after attempt 1 (cut off)",
    ),
    "an older attempt begins later": (
        evidence([wish()], [RESCUED], [run(1, 1, 130.5, 130.6), run(2, 2, 130.0, 130.4, pid=THERE)], killed(99)),
        "attempt 1 began after attempt 2",
    ),
    "attempts anew before anybody retried it by hand": (
        evidence([wish(acts=[Act("retry", 103.5, 104.0, True)])], [task(result={"run": "run 3"})], OVER_AND_ANEW),
        "attempt 1 began after attempt 2",
    ),
    "attempts anew long after it was retried by hand": (
        evidence([wish(acts=[Act("retry", 101.0, 101.2, True)])], [task(result={"run": "run 3"})], OVER_AND_ANEW),
        "attempt 1 began after attempt 2",
    ),
    "failed with attempts left": (
        evidence([wish()], [task(status="failed", errors=[lost()])], [], killed()),
        "failed after 1 of 3 attempts",
    ),
    "an error that nobody asked for": (
        evidence(
            [wish()],
            [
                task(
                    status="failed", max_attempts=1, errors=[{"attempt": 1, "type": "KeyError", "failed_at": at(111.0)}]
                )
            ],
            [run(end="raised")],
        ),
        "failed with KeyError, which nobody asked for",
    ),
    "a failed attempt without its error": (
        evidence(
            [wish()],
            [{**RESCUED, "errors": []}],
            [run(1, 1, 100.0, None), run(2, 2, 130.0, 130.9, pid=THERE)],
            killed(),
        ),
        "has errors of the attempts []",
    ),
    "completed though it fails": (
        evidence([wish(body={"payload": {"seconds": 1, "failures": 9}})], [task()], [run()]),
        "completed with attempt 1, which it cannot",
    ),
    "two runs at once": (
        evidence([wish()], [RESCUED], [run(1, 1, 100.0, 141.0), run(2, 2, 130.0, 130.9, pid=THERE)], killed(99)),
        "ran twice at the same time: attempts 1 and 2",
    ),
    "taken from a worker that lived": (
        evidence([wish()], [RESCUED], [run(1, 1, 100.0, 101.0), run(2, 2, 130.0, 130.9, pid=THERE)], killed(99)),
        "attempt 1 was taken from a worker that lived",
    ),
    "cancelled, and completed": (
        evidence([wish(acts=[Act("cancel", 105.0, 105.1, True)])], [task()], [run()]),
        "was cancelled, and is completed",
    ),
    "run long after its cancel": (
        evidence(
            [wish(acts=[Act("cancel", 110.0, 110.1, True)])],
            [task(status="cancelled")],
            [run(began=116.0, ended=117.0)],
        ),
        "a run began 5.0 s after its cancel",
    ),
    "run before its time": (
        evidence([wish(body={"execute_at": at(110.5)})], [task()], [run()]),
        "ran 0.500 s before its time",
    ),
    "cut off, and not gone on for long": (
        evidence([wish()], [RESCUED], [run(1, 1, 40.0, None), run(2, 2, 130.0, 130.9, pid=THERE)], killed(moment=45.0)),
        "cut off by a kill, and not gone on after 60 s",
    ),
    "a worker that ended by itself": (
        also(evidence([wish()], [task()], [run()]), workers=frozenset({THERE})),
        f"the worker {HERE} ended by itself",
    ),
    "a run without an end in a living worker": (
        evidence([wish()], [task(status="cancelled")], [run(ended=None)]),
        "which lives, and has no end",
    ),
    "a run of a task that is not there": (evidence([wish()], [task()], [run(), run(2, of="x")]), "a run of x"),
}


@pytest.mark.parametrize(("found", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault(found: Evidence, said: str) -> None:
    faults = task_faults(found)
    assert [fault for fault in faults if said in fault], faults


def test_what_a_killed_worker_ran_is_timed_until_it_goes_on() -> None:
    found = WELL["rescued from a killed worker"]
    assert [(one.id, seconds) for one, seconds in rescues(found)] == [("run 1", 130.0 - 105.0)]


def test_a_stopped_worker_that_ends_its_run_after_the_completion_is_counted_and_no_fault() -> None:
    assert later_ends(WELL["run twice at once, for its worker was stopped"]) == 1
    assert later_ends(WELL["it ran and completed"]) == 0


def test_the_journal_gives_back_what_several_handlers_wrote(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    write: Callable[..., None] = journal.note
    write(file, "1", "began", 10.0, task="a", attempt=1)
    write(file, "2", "began", 9.0, task="b", attempt=3)
    write(file, "2", "returned", 11.0)

    second, first = journal.read_runs(file.read_text(encoding="utf-8").splitlines())

    assert (second.task, second.attempt, second.began, second.ended, second.end) == ("b", 3, 9.0, 11.0, "returned")
    assert (first.id, first.ended, first.end) == ("1", None, None)
