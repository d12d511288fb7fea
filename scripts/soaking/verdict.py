"""The faults among the records. Pure.

- An answer without the envelope is a fault, always.
- A 5xx is right only while a service it needs is away because of a kill: from the kill until that service was seen
  working again, its circuit closed.
- A connection may end without an answer only if it was under way when a process of the gateway was killed, or while
  the gateway as a whole was away, because its master was.
- Any other answer is the one that the request deserves.
- What was killed works again within RECOVERY_SECONDS.
- A process that has settled does not grow.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scripts.soaking.records import Kill, Memory, NotedAnswer

#: The victim whose death may end connections.
GATEWAY_PROCESS = "gateway worker"
#: With this one the whole gateway dies; nothing answers until it is back.
GATEWAY_MASTER = "gateway master"
#: Everything must work again within this time after a kill, in seconds.
RECOVERY_SECONDS = 30.0
#: How long the kernel may take to close a killed process's connections, in seconds.
_CLOSING_SECONDS = 0.5
#: A process has settled after this share of its life and this many seconds (it starts slowly on a busy machine); growth
#: until then is no leak.
_SETTLED, _SETTLED_SECONDS = 1 / 3, 20.0
#: Memory is judged after this many measurements of a process, half of them after it had settled.
_MEASUREMENTS = 12
#: The growth of a settled process that is no fault: this share, and at least this many MiB (allocator steps).
_GROWTH_SHARE, _GROWTH_MIB = 0.1, 6.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a process grew from its middle third to its last, in MiB."""

    name: str
    pid: int
    minutes: float
    before: float
    after: float

    @property
    def mib(self) -> float:
        return self.after - self.before

    @property
    def is_flat(self) -> bool:
        return self.mib <= max(_GROWTH_MIB, self.before * _GROWTH_SHARE)


def explanation(answer: NotedAnswer, kills: Iterable[Kill]) -> Kill | None:
    """The kill that excuses a lost connection or a 5xx."""
    for kill in kills:
        well_at = kill.at + RECOVERY_SECONDS if kill.well_at is None else kill.well_at
        if answer.lost and kill.victim == GATEWAY_PROCESS:
            until = kill.at + _CLOSING_SECONDS
        elif answer.lost and kill.victim == GATEWAY_MASTER:
            until = well_at + _CLOSING_SECONDS
        elif not answer.lost and any(name in kill.hurts for name in answer.needs):
            until = well_at
        else:
            continue
        if answer.ended >= kill.at and answer.began <= until:
            return kill
    return None


def growths(memory: Iterable[Memory]) -> list[Growth]:
    """The growth of every process that was measured often enough."""
    lives: dict[tuple[str, int], list[Memory]] = {}
    for one in memory:
        lives.setdefault((one.name, one.pid), []).append(one)
    found = []
    for (name, pid), life in lives.items():
        settled = [one for one in life[int(len(life) * _SETTLED) :] if one.at >= life[0].at + _SETTLED_SECONDS]
        if len(life) < _MEASUREMENTS or len(settled) < _MEASUREMENTS // 2:
            continue
        half = len(settled) // 2
        before = statistics.median(one.mib for one in settled[:half])
        after = statistics.median(one.mib for one in settled[half:])
        found.append(Growth(name, pid, (life[-1].at - life[0].at) / 60, before, after))
    return found


def faults(answers: Sequence[NotedAnswer], kills: Sequence[Kill], memory: Iterable[Memory], began: float) -> list[str]:
    """Every fault as text, with its time in seconds since `began`."""
    found = []
    for answer in answers:
        place = f"{answer.began - began:7.1f} s  {answer.method} {answer.route}"
        if answer.lost:
            if explanation(answer, kills) is None:
                found.append(f"{place}: no answer ({answer.said})")
        elif not answer.enveloped:
            found.append(f"{place}: {answer.status} without the envelope ({answer.said})")
        elif answer.status >= 500:
            if explanation(answer, kills) is None:
                found.append(f"{place}: {answer.status} {answer.code}, and nothing it needs was away")
        elif not answer.expected:
            found.append(f"{place}: {answer.status} {answer.code} is the wrong answer ({answer.said})")
    found += [
        f"{kill.at - began:7.1f} s  {kill.victim} was killed, and not well again within {RECOVERY_SECONDS:.0f} s"
        for kill in kills
        if kill.well_at is None
    ]
    found += [
        f"memory: {one.name} ({one.pid}) grew from {one.before:.1f} to {one.after:.1f} MiB after it had settled"
        for one in growths(memory)
        if not one.is_flat
    ]
    return found
