"""Load on one address: by wrk where it is installed, else by the small generator beside this file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import pinned
from benchmarks.report import CHECKOUT

_HERE = Path(__file__).resolve().parent
#: A request without an answer after this many seconds is an error.
_PATIENCE = 5
#: In the body of an `Ask`; wrk_report.lua and generator.py know it too.
NUMBER = "#n#"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The figures of one run. Latencies are those of the answers that came, in milliseconds; in a run without any
    answer they are the run's length, which they exceed."""

    per_second: float
    p50: float
    p99: float
    errors: int
    #: good and bad ones
    answers: int = 0


class Ask(NamedTuple):
    """One request. `NUMBER` in the body becomes another whole number each time; the body is JSON in one line. With an
    access token it is somebody's who has logged in."""

    method: str
    path: str
    body: str = ""
    token: str = ""


def generator() -> str:
    """The name of the generator that `put` uses here."""
    return "wrk" if shutil.which("wrk") else "benchmarks/generator.py"


def put(url: str, *, connections: int, seconds: int, on: frozenset[int] | None) -> LoadResult:
    """Ask `url` from `connections` kept connections, each with one request at a time."""
    return _load(url, None, connections, seconds, on)


def put_asks(
    base: str, asks: Sequence[Ask], file: Path, *, connections: int, seconds: int, on: frozenset[int] | None
) -> LoadResult:
    """Like `put`, with these requests one after another and from the beginning again. `file` is written."""
    write_asks(file, asks)
    return _load(base, file, connections, seconds, on)


def write_asks(file: Path, asks: Sequence[Ask]) -> None:
    """Write the requests as the generators of load read them."""
    file.write_text("".join("\t".join(ask) + "\n" for ask in asks), encoding="utf-8")


def _load(url: str, asks: Path | None, connections: int, seconds: int, on: frozenset[int] | None) -> LoadResult:
    more = [] if asks is None else [str(asks)]
    if shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_PATIENCE}s"]
        command += ["-s", str(_HERE / "wrk_report.lua"), url, *(["--", *more] if more else [])]
    else:
        command = [sys.executable, "-m", "benchmarks.generator", url, str(connections), str(seconds), str(_PATIENCE)]
        command += more
    with pinned(on):
        done = subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=seconds + 4 * _PATIENCE
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return LoadResult(
        per_second=(found["answers"] - found["bad"]) / (found["microseconds"] / 1e6),
        p50=(found["p50"] if found["answers"] else found["microseconds"]) / 1000,
        p99=(found["p99"] if found["answers"] else found["microseconds"]) / 1000,
        errors=found["errors"],
        answers=found["answers"],
    )
