"""Load on one address: by wrk where it is installed, else by the small generator beside this file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import CHECKOUT

_HERE = Path(__file__).resolve().parent
#: A request without an answer after this many seconds is an error.
_PATIENCE = 5


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The figures of one run. Latencies are those of the answers that came, in milliseconds; in a run without any
    answer they are the run's length, which they exceed."""

    per_second: float
    p50: float
    p99: float
    errors: int


def generator() -> str:
    """The name of the generator that `put` uses here."""
    return "wrk" if shutil.which("wrk") else "benchmarks/generator.py"


def put(url: str, *, connections: int, seconds: int, on: frozenset[int] | None) -> LoadResult:
    """Ask `url` from `connections` kept connections, each with one request at a time."""
    if shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_PATIENCE}s"]
        command += ["-s", str(_HERE / "wrk_report.lua"), url]
    else:
        command = [sys.executable, "-m", "benchmarks.generator", url, str(connections), str(seconds), str(_PATIENCE)]
    before = None if on is None else os.sched_getaffinity(0)
    if on is not None:
        os.sched_setaffinity(0, on)  # the child takes it over
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=seconds + 4 * _PATIENCE
        )
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    found = json.loads(done.stdout.splitlines()[-1])
    return LoadResult(
        per_second=(found["answers"] - found["bad"]) / (found["microseconds"] / 1e6),
        p50=(found["p50"] if found["answers"] else found["microseconds"]) / 1000,
        p99=(found["p99"] if found["answers"] else found["microseconds"]) / 1000,
        errors=found["errors"],
    )
