"""A journal of handlers' runs, outside the database: one line when a run begins, one when it ends.

It does not depend on the engine under test. A line is one write to a file opened for appending, so lines of several
processes never mix, and a written line survives its process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

#: How a run ended as its handler saw it; `stopped`: it was told to stop.
End = Literal["returned", "raised", "stopped"]


@dataclass(slots=True)
class Run:
    """One start of a handler. Times are of the machine's wall clock, in seconds."""

    id: str
    task: str
    attempt: int
    pid: int
    began: float
    ended: float | None = None
    end: End | None = None


def note(file: Path, run: str, what: Literal["began"] | End, at: float, *, task: str = "", attempt: int = 0) -> None:
    """Append one line."""
    about = {"task": task, "attempt": attempt, "pid": os.getpid()} if what == "began" else {}
    line = json.dumps({"run": run, "note": what, "at": at, **about}) + "\n"
    os.write(_opened(file), line.encode())


@cache
def _opened(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def read_runs(lines: Iterable[str]) -> list[Run]:
    """Every run, the earliest first."""
    runs: dict[str, Run] = {}
    for line in lines:
        told = json.loads(line)
        if told["note"] == "began":
            runs[told["run"]] = Run(told["run"], told["task"], told["attempt"], told["pid"], told["at"])
        else:
            run = runs[told["run"]]
            run.ended, run.end = told["at"], told["note"]
    return sorted(runs.values(), key=lambda run: run.began)
