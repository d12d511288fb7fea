"""The outcome of a soak, as text."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from scripts.soaking.records import NotedAnswer, Seen
from scripts.soaking.soak import Outcome
from scripts.soaking.task_soak import TaskOutcome
from scripts.soaking.verdict import explanation, growths

_SHOWN_FAULTS = 40


def lines(outcome: Outcome) -> Iterable[str]:
    """The report of a soak under mixed load."""
    looked = ", ".join(f"{number} {kind}" for kind, number in outcome.promised.items())
    yield from _tables(outcome, [f"looked for at the end: {looked}"])


def task_lines(outcome: TaskOutcome) -> Iterable[str]:
    """The report of a soak of tasks."""
    of = outcome.counts
    cut = sorted(of.cut)
    again = f", went on after {statistics.median(cut):.1f} s (median), {cut[-1]:.1f} s (most)" if cut else ""
    yield from _tables(
        outcome,
        [
            f"tasks at the end: {of.tasks.total()} ({_told(of.tasks)}); {of.answered} were answered with 201, "
            f"{of.existing} requests with the live task of their unique_key; {of.batches} batches",
            f"creations without a clear answer: {of.unclear}; the repetition found {of.replayed} tasks made",
            f"by hand: {of.cancels} cancelled, {of.retries} retried",
            f"runs of handlers: {of.runs.total()} ({_told(of.runs)})",
            f"runs cut off by the kill of their worker: {len(cut)}{again}",
            f"runs that a stopped worker went on with after their task had completed elsewhere: {of.went_on}",
        ],
    )


def _told(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counter.most_common())


def _tables(outcome: Seen, more: Iterable[str]) -> Iterable[str]:
    """Answers by route, kills by victim, memory by process, `more`, faults."""
    found = _figures(outcome)
    yield (
        f"{found['answers']} answers in {found['seconds'] / 60:.1f} minutes ({found['per_second']:.0f}/s), "
        f"{len(outcome.kills)} kills, seed {outcome.seed}"
    )
    yield ""
    yield f"{'route':<28}{'answers':>9}{'2xx':>8}{'4xx':>7}{'5xx':>7}{'lost':>6}{'p50 ms':>9}{'p99 ms':>9}"
    for route, row in found["routes"].items():
        yield (
            f"{route:<28}{row['answers']:>9}{row['2xx']:>8}{row['4xx']:>7}{row['5xx']:>7}{row['lost']:>6}"
            f"{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}"
        )
    yield ""
    yield f"{'killed':<26}{'times':>6}{'5xx':>7}{'lost':>6}{'well after s (median, most)':>30}"
    for victim, row in found["kills"].items():
        well = "never" if row["median_seconds"] is None else f"{row['median_seconds']:.1f}  {row['most_seconds']:.1f}"
        yield f"{victim:<26}{row['times']:>6}{row['5xx']:>7}{row['lost']:>6}{well:>30}"
    yield ""
    yield f"{'memory':<18}{'pid':>8}{'minutes':>9}{'settled MiB':>13}{'at the end':>12}{'growth':>8}"
    for one in found["memory"]:
        yield (
            f"{one['name']:<18}{one['pid']:>8}{one['minutes']:>9.1f}{one['before']:>13.1f}{one['after']:>12.1f}"
            f"{one['after'] - one['before']:>+8.1f}"
        )
    yield ""
    yield from more
    yield f"codes of 5xx: {', '.join(f'{code} {n}' for code, n in found['codes'].items()) or 'none'}"
    yield f"faults: {len(outcome.faults)}"
    yield from outcome.faults[:_SHOWN_FAULTS]
    if len(outcome.faults) > _SHOWN_FAULTS:
        yield f"… and {len(outcome.faults) - _SHOWN_FAULTS} more"


def _figures(outcome: Seen) -> dict[str, Any]:
    """The same as numbers."""
    by_route: dict[str, list[NotedAnswer]] = defaultdict(list)
    for answer in outcome.answers:
        by_route[answer.route].append(answer)
    blamed: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in outcome.answers:
        if answer.lost or answer.status >= 500:
            kill = explanation(answer, outcome.kills)
            blamed["" if kill is None else kill.victim]["lost" if answer.lost else "5xx"] += 1
    kills = {}
    for victim in sorted({kill.victim for kill in outcome.kills}):
        those = [kill for kill in outcome.kills if kill.victim == victim]
        seconds = [kill.seconds for kill in those if kill.seconds is not None]
        kills[victim] = {
            "times": len(those),
            "5xx": blamed[victim]["5xx"],
            "lost": blamed[victim]["lost"],
            "median_seconds": statistics.median(seconds) if seconds else None,
            "most_seconds": max(seconds, default=None),
        }
    return {
        "seconds": outcome.seconds,
        "answers": len(outcome.answers),
        "per_second": len(outcome.answers) / outcome.seconds,
        "routes": {route: _row(answers) for route, answers in sorted(by_route.items())},
        "codes": dict(Counter(one.code for one in outcome.answers if one.status >= 500).most_common()),
        "kills": kills,
        "memory": [asdict(one) for one in sorted(growths(outcome.memory), key=lambda one: (one.name, -one.minutes))],
    }


def _row(answers: list[NotedAnswer]) -> dict[str, float]:
    took = sorted(answer.ended - answer.began for answer in answers)
    return {
        "answers": len(answers),
        "2xx": sum(200 <= one.status < 300 for one in answers),
        "4xx": sum(400 <= one.status < 500 for one in answers),
        "5xx": sum(one.status >= 500 for one in answers),
        "lost": sum(one.lost for one in answers),
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[min(int(len(took) * 0.99), len(took) - 1)] * 1000,
    }
