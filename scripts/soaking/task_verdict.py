"""The faults in the fates of tasks. Pure.

- A task that was answered with 201 is there, once, and has come to one end; of a batch without an answer all are there
  or none; of a request without an answer, at most one task; of one repeated with its Idempotency-Key, exactly one.
- The end stays: no later look, by a client or after the last kill, shows another.
- Once a task has completed none of its runs begins. The run that counted is in the journal, and returned.
- Every attempt counts: two runs have different numbers, unless the first was handed back, or died with others and its
  error says that it does not count; a later one has no smaller number; a task fails only when its attempts are used up
  or its handler gave up; each failed attempt has its error.
- A task runs twice at the same time only when its worker was stopped, and is taken only from a worker that was killed
  or stopped.
- A cancelled task stays cancelled, and no run of it begins CANCEL_SECONDS after. Nothing begins before its execute_at.
- Of two tasks with one unique_key, one has ended before the other was made.
- What a killed worker ran goes on within RESCUE_SECONDS. No worker ends by itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, product
from typing import Any

from scripts.soaking.journal import Run
from scripts.soaking.records import Kill
from scripts.soaking.task_load import Wish

#: A dead worker's tasks must go on within this time, in seconds.
RESCUE_SECONDS = 60.0
#: In seconds. A task may be cancelled while its claim is in flight; its handler then begins and is told to stop.
CANCEL_SECONDS = 3.0
#: A plain function that was told to stop, its task handed back, may take this long to note its end, in seconds.
_STOPPING_SECONDS = 1.5
#: now() is the time a transaction began, so those of consecutive transactions may be out of order by this much, in
#: seconds.
_TRANSACTION_SECONDS = 2.0
_ENDED = frozenset({"completed", "failed", "cancelled"})
_LOST, _OVERRAN = "WorkerLost", "TimedOut"
_STAYS = ("status", "attempts", "completed_at", "updated_at", "result", "errors")

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """Everything there is to judge. Times of `kills` are wall-clock times here; tasks are as the API shows them.

    `tasks` was listed once all had ended, `later` some time after that. `workers`: processes alive then; `seen`: all
    that were ever alive."""

    wishes: Sequence[Wish]
    tasks: Sequence[Task]
    later: Sequence[Task]
    runs: Sequence[Run]
    kills: Sequence[Kill]
    workers: frozenset[int]
    seen: frozenset[int]
    ended_at: float


class _Workers:
    """The signals sent to each worker process, with their times."""

    def __init__(self, kills: Iterable[Kill], living: frozenset[int]) -> None:
        self.living = living
        self.killed: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.stops: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.struck: list[float] = []
        for kill in kills:
            if not kill.victim.startswith("task worker"):
                continue
            self.struck.append(kill.at)
            if kill.signal == "SIGSTOP":
                self.stops[kill.pid].append((kill.at, kill.continued_at or kill.at))
            elif kill.signal == "SIGTERM":
                self.ended.setdefault(kill.pid, kill.at)
            else:
                self.killed.setdefault(kill.pid, kill.at)

    def stopped_between(self, pid: int, first: float, last: float) -> bool:
        return any(begin <= last and end >= first for begin, end in self.stops.get(pid, ()))

    def end_of(self, run: Run) -> float:
        """When a run ended; infinity if unknown."""
        return min(
            float("inf") if run.ended is None else run.ended,
            self.killed.get(run.pid, float("inf")),
        )

    def has_ended(self, pid: int) -> bool:
        return pid in self.killed or pid in self.ended


def task_faults(found: Evidence) -> list[str]:
    """Every fault, as text."""
    workers = _Workers(found.kills, found.workers)
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in found.runs:
        runs[run.task].append(run)
    by_label: dict[str, list[Task]] = defaultdict(list)
    for task in found.tasks:
        by_label[task["title"]].append(task)
    faults = [*_of_creation(found.wishes, by_label), *_of_batches(found.wishes, by_label)]
    faults += _of_keys(found.wishes, by_label)
    faults += _of_the_end(found.tasks, found.later)
    known = {wish.label: wish for wish in found.wishes}
    for label, tasks in by_label.items():
        if label not in known:
            faults.append(f"{label}: nobody asked for this task")
            continue
        for task in tasks:
            faults += [f"{label} ({task['id']}): {said}" for said in _of_task(known[label], task, runs, workers)]
    ids = {task["id"] for task in found.tasks}
    faults += [f"a run of {task}, which is not there" for task in runs if task not in ids]
    faults += _of_workers(found.runs, found.seen, workers)
    faults += [
        f"{cut.task}: cut off by a kill, and not gone on after {RESCUE_SECONDS:.0f} s"
        for cut, seconds in rescues(found)
        if seconds > RESCUE_SECONDS
    ]
    return faults


def _of_creation(wishes: Iterable[Wish], by_label: Mapping[str, Sequence[Task]]) -> Iterable[str]:
    for wish in wishes:
        there = by_label.get(wish.label, ())
        if len(there) > 1:
            yield f"{wish.label}: there are {len(there)} of it"
        elif wish.id is not None and not wish.existing and [task["id"] for task in there] != [wish.id]:
            yield f"{wish.label}: 201 gave {wish.id}, and there is {there[0]['id'] if there else 'nothing'}"
        elif there and (wish.existing or (wish.id is None and not wish.unclear)):
            yield f"{wish.label}: is there though its answer was another"
        elif wish.unclear and wish.idempotency_key is not None and "execute_at" not in wish.body:
            yield f"{wish.label}: no clear answer even at the end"


def _of_batches(wishes: Iterable[Wish], by_label: Mapping[str, Sequence[Task]]) -> Iterable[str]:
    batches: dict[str, list[Wish]] = defaultdict(list)
    for wish in wishes:
        if wish.batch is not None:
            batches[wish.batch].append(wish)
    for batch, members in batches.items():
        there = sum(member.label in by_label for member in members)
        if there not in {0, len(members)}:
            yield f"{batch}: {there} of {len(members)} tasks of one batch"


def _of_keys(wishes: Iterable[Wish], by_label: Mapping[str, Sequence[Task]]) -> Iterable[str]:
    keys: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    labels: dict[str, str] = {}
    for wish in wishes:
        if wish.unique_key is None:
            continue
        for task in by_label.get(wish.label, ()):
            labels[task["id"]] = wish.unique_key
            if task["completed_at"] is not None:
                keys[wish.unique_key].append((_wall(task["created_at"]), _wall(task["completed_at"]), wish.label))
    for wish in wishes:
        if wish.existing and wish.id is not None and labels.get(wish.id) != wish.unique_key:
            yield f"{wish.label}: was answered with {wish.id}, which has another key"
    for lives in keys.values():
        lives.sort()
        for (_, ended, first), (made, _, second) in pairwise(lives):
            if made < ended - _TRANSACTION_SECONDS:
                yield f"{second}: made {ended - made:.1f} s before {first} ended, which has the same unique_key"


def _of_the_end(tasks: Iterable[Task], later: Iterable[Task]) -> Iterable[str]:
    then = {task["id"]: task for task in later}
    for task in tasks:
        if task["status"] not in _ENDED:
            yield f"{task['title']} ({task['id']}): is {task['status']} at the end"
        now = then.pop(task["id"], None)
        changed = ["id"] if now is None else [name for name in _STAYS if now[name] != task[name]]
        if changed:
            yield f"{task['title']} ({task['id']}): its end did not stay: {', '.join(changed)}"
    yield from (f"{task['title']} ({task['id']}): made after the end" for task in then.values())


def _of_task(wish: Wish, task: Task, all_runs: Mapping[str, Sequence[Run]], workers: _Workers) -> Iterable[str]:
    runs = all_runs.get(task["id"], ())
    yield from _of_its_end(wish, task)
    yield from _of_its_acts(wish, task, runs)
    yield from _of_its_attempts(wish, task, runs, workers)
    if task["status"] == "completed":
        counted = [run for run in runs if run.id == task["result"]["run"]]
        if not counted or counted[0].end != "returned" or counted[0].ended is None:
            yield f"completed by the run {task['result']['run']}, of which the journal tells no good end"
            return
        if counted[0].attempt != task["attempts"]:
            yield f"completed by attempt {counted[0].attempt}, and has {task['attempts']} attempts"
        for run in runs:
            if run.began > counted[0].ended:
                yield f"ran again {run.began - counted[0].ended:.3f} s after the run that completed it"
    # A retry by hand runs at once.
    if "execute_at" in wish.body and not wish.retried and runs and runs[0].began < _wall(wish.body["execute_at"]):
        yield f"ran {_wall(wish.body['execute_at']) - runs[0].began:.3f} s before its time"


def _of_its_end(wish: Wish, task: Task) -> Iterable[str]:
    status, attempts, errors = task["status"], task["attempts"], task["errors"]
    payload = wish.body["payload"]
    types = {error["type"] for error in errors}
    expected = {_LOST}
    if payload.get("failures"):
        expected.add("AskedToFail" if payload.get("retry_after") is None else "RetryAfter")
    if payload.get("gives_up"):
        expected.add("GiveUp")
    if "timeout" in wish.body:
        expected.add(_OVERRAN)
    if types - expected:
        yield f"failed with {', '.join(sorted(types - expected))}, which nobody asked for"
    gave_up = bool(errors) and errors[-1]["type"] == "GiveUp"
    if status == "failed" and not gave_up and attempts != task["max_attempts"]:
        yield f"failed after {attempts} of {task['max_attempts']} attempts"
    if status == "completed" and (
        payload.get("gives_up") or "timeout" in wish.body or attempts <= payload.get("failures", 0)
    ):
        yield f"completed with attempt {attempts}, which it cannot"
    if attempts > task["max_attempts"]:
        yield f"has {attempts} of {task['max_attempts']} attempts"
    if wish.retried:
        return
    failed = {"completed": attempts - 1, "failed": attempts}.get(status)
    numbers = [error["attempt"] for error in errors if not _was_given_back(error)]
    if failed is not None and numbers != list(range(1, failed + 1)):
        yield f"{status} with {attempts} attempts, and has errors of the attempts {numbers}"


def _was_given_back(error: Mapping[str, Any]) -> bool:
    """An attempt of one of several tasks lost together, so that the cause is unknown; it does not count."""
    return error["type"] == _LOST and "does not count" in error["message"]


def _of_its_acts(wish: Wish, task: Task, runs: Sequence[Run]) -> Iterable[str]:
    unsure = any(act.what == "retry" and act.done is None for act in wish.acts)
    if wish.seen is not None and not unsure:
        now = tuple(task[name] for name in wish.seen.__slots__)
        seen = tuple(getattr(wish.seen, name) for name in wish.seen.__slots__)
        if now != seen:
            yield f"was shown as {wish.seen.status}, attempt {wish.seen.attempts}, and is {task['status']}"
    last = next((act for act in reversed(wish.acts) if act.done), None)
    if last is None or last.what != "cancel" or unsure:
        return
    if task["status"] != "cancelled":
        yield f"was cancelled, and is {task['status']}"
    cancelled_at = _wall(task["completed_at"])
    for run in runs:
        if run.began > cancelled_at + CANCEL_SECONDS:
            yield f"a run began {run.began - cancelled_at:.1f} s after its cancel"


def _of_its_attempts(wish: Wish, task: Task, runs: Sequence[Run], workers: _Workers) -> Iterable[str]:
    if any(act.what == "retry" and act.done is None for act in wish.acts):
        # An unclear retry: when its attempts began anew is unknown.
        return
    anew = [act for act in wish.acts if act.what == "retry" and act.done]
    # Each began its attempts anew between its request and its answer; any moment that explains the runs will do.
    places = [range(_begun_by(act.asked, runs), _begun_by(act.answered, runs) + 1) for act in anew]
    yield from min((list(_of_epochs(_divided(runs, cuts), task, workers)) for cuts in product(*places)), key=len)
    for first, second in pairwise(runs):
        together = workers.end_of(first) - second.began
        if first.end == "stopped" and together < _STOPPING_SECONDS:
            continue
        if together > 0 and not workers.stopped_between(first.pid, first.began, second.began):
            yield f"ran twice at the same time: attempts {first.attempt} and {second.attempt}"
    if not anew:
        yield from _of_its_rescues(task, runs, workers)


def _begun_by(moment: float, runs: Sequence[Run]) -> int:
    return sum(run.began <= moment for run in runs)


def _divided(runs: Sequence[Run], cuts: Sequence[int]) -> list[Sequence[Run]]:
    return [runs[first:last] for first, last in pairwise([0, *sorted(cuts), len(runs)])]


def _of_epochs(epochs: Sequence[Sequence[Run]], task: Task, workers: _Workers) -> Iterable[str]:
    given_back = {error["attempt"] for error in task["errors"] if _was_given_back(error)}
    for epoch in epochs:
        for first, second in pairwise(epoch):
            handed_back = first.end == "stopped" or first.pid in workers.ended or first.attempt in given_back
            if second.attempt < first.attempt or (second.attempt == first.attempt and not handed_back):
                yield f"attempt {second.attempt} began after attempt {first.attempt} ({first.end or 'cut off'})"
    last = epochs[-1][-1].attempt if epochs[-1] else 0
    if last > task["attempts"] + (last in given_back):
        yield f"attempt {last} began, and it has {task['attempts']} attempts"


def _of_its_rescues(task: Task, runs: Sequence[Run], workers: _Workers) -> Iterable[str]:
    for error in task["errors"]:
        if error["type"] != _LOST:
            continue
        at = _wall(error["failed_at"])
        those = [run for run in runs if run.attempt == error["attempt"] and run.began <= at]
        if those:
            # The last with this number until then; earlier ones were handed back.
            run = those[-1]
            taken_from_the_dead = workers.has_ended(run.pid) or workers.stopped_between(run.pid, 0, at)
        else:
            # Claimed by a worker that ended before it began the run.
            taken_from_the_dead = any(struck < at for struck in workers.struck)
        if not taken_from_the_dead:
            yield f"attempt {error['attempt']} was taken from a worker that lived"


def _of_workers(runs: Sequence[Run], seen: Iterable[int], workers: _Workers) -> Iterable[str]:
    for pid in sorted({*seen, *(run.pid for run in runs)} - workers.living):
        if not workers.has_ended(pid):
            yield f"the worker {pid} ended by itself"
    for run in runs:
        if run.ended is None and not workers.has_ended(run.pid):
            yield f"{run.task}: attempt {run.attempt} began in the worker {run.pid}, which lives, and has no end"


def rescues(found: Evidence) -> list[tuple[Run, float]]:
    """Each run cut off by the kill of its worker, and the seconds until its task went on or ended."""
    workers = _Workers(found.kills, found.workers)
    ends = {task["id"]: task["completed_at"] for task in found.tasks}
    next_of: dict[str, list[Run]] = defaultdict(list)
    for run in found.runs:
        next_of[run.task].append(run)
    cut = []
    for run in found.runs:
        killed_at = workers.killed.get(run.pid)
        if run.ended is not None or killed_at is None:
            continue
        began = [other.began for other in next_of[run.task] if other.began > killed_at]
        end = ends.get(run.task)
        went_on = min([*began, *([] if end is None else [_wall(end)])], default=found.ended_at)
        cut.append((run, max(0.0, went_on - killed_at)))
    return cut


def later_ends(found: Evidence) -> int:
    """Runs that a stopped worker resumed after their task had completed elsewhere, which cannot be prevented."""
    done = {task["id"]: _wall(task["completed_at"]) for task in found.tasks if task["status"] == "completed"}
    counts = {task["id"]: task["result"]["run"] for task in found.tasks if task["status"] == "completed"}
    return sum(
        run.ended is not None and run.task in done and run.ended > done[run.task] and counts[run.task] != run.id
        for run in found.runs
    )


def ends_of(found: Evidence) -> Counter[str]:
    """How many runs ended each way; `cut off`: with their worker."""
    return Counter(run.end or "cut off" for run in found.runs)


def _wall(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
