"""The verbs `status` and `logs`."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening
from scripts.instance.lock import holder_of
from scripts.instance.ports import Ports, names
from scripts.instance.readiness import cause_of, problems_of
from scripts.instance.reclaim import leftovers
from scripts.instance.supervision import ProcessState, Supervisor
from servicekit.process.services import services as table

#: Those besides the services whose first process only looks after the others.
_MASTERS = ("events", "gateway")
ALL_RUN = 0
NOT_ALL_RUN = 3


@dataclass(frozen=True)
class Row:
    """One line of `status`; `uptime` in seconds. `name` is unique; `service`, which verbs take, names all workers.

    `pid` is the first process, and `processes` how many serve where that only looks after them. `problem` keeps it from
    being ready; None if it is.
    """

    name: str
    service: str
    state: str
    pid: int | None
    uptime: int | None
    port: int | None
    processes: int | None
    problem: str | None


def status(layout: Layout, say: Callable[[str], None], *, as_json: bool) -> int:
    """Print one line for each process. Returns ALL_RUN or NOT_ALL_RUN."""
    layout.require_ours()
    holder = holder_of(layout.lock)
    if holder is None or holder.port is None:
        left = len(leftovers(layout.data)) if holder is None else 0
        if as_json:
            say(json.dumps({"running": False, "data": str(layout.data), "leftovers": left, "services": []}))
        elif left:
            say(
                f"not running, but {left} processes of a killed supervisor are left; "
                f"./scripts/run{layout.option} reclaims them"
            )
        else:
            say("not running" if holder is None else f"not running; {holder.command} is at work")
        return NOT_ALL_RUN
    ports = Ports(holder.port)
    url = Listening.of(layout).url(ports.base)
    processes = Supervisor(ports, Credentials(layout.secrets)["supervisor"]).processes()
    order = names()
    problems = problems_of(processes, layout, ports)
    children = Counter(one.info["ppid"] for one in psutil.process_iter(["ppid"]))
    rows = [
        _row(p, ports, children, problems[p.name] and (cause_of(p, layout) or problems[p.name]))
        for p in sorted(processes, key=lambda p: (order.index(p.service), p.name))
    ]
    ready = not any(problems.values())
    if as_json:
        told = [vars(row) for row in rows]
        say(json.dumps({"running": True, "url": url, "data": str(layout.data), "services": told}))
    else:
        say(f"{url}   data {layout.data}")
        for line in _table(rows):
            say(line)
        for row in rows:
            if row.problem and row.problem != row.state:
                say(f"{row.name}: {row.problem}")
    return ALL_RUN if ready else NOT_ALL_RUN


def _row(process: ProcessState, ports: Ports, children: Mapping[int, int], problem: str | None) -> Row:
    alive = process.pid > 0
    return Row(
        name=process.name,
        service=process.service,
        state=process.state.lower(),
        pid=process.pid if alive else None,
        uptime=int(process.uptime) if alive else None,
        port=ports.by_name.get(process.service),
        processes=children[process.pid] if alive and process.service in {*table(), *_MASTERS} else None,
        problem=problem,
    )


def _table(rows: list[Row]) -> list[str]:
    cells = [("SERVICE", "STATE", "PID", "UPTIME", "PORT", "PROCESSES")] + [
        (row.name, _shown(row), *map(_or_dash, (row.pid, _duration(row.uptime), row.port, row.processes)))
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _shown(row: Row) -> str:
    return "not ready" if row.state == "running" and row.problem else row.state


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def follow_logs(layout: Layout, services: Sequence[str]) -> None:
    """Replace this process with `tail` on the logs of the services, or of all; ends with Ctrl-C, or after the last
    lines if the instance does not run."""
    layout.require_ours()
    found: list[Path] = []
    for service in services or names():
        found += sorted(layout.logs.glob("worker-*.log")) if service == "worker" else [layout.log(service)]
    files = [str(path) for path in found if path.exists()]
    if not files:
        raise InstanceError(f"no log of {' or '.join(services) or 'any service'} in {layout.logs} yet")
    follow = ["-F"]
    if holder_of(layout.lock) is None:
        print("run: not running; these are the last lines", file=sys.stderr)
        follow = []
    os.execvp("tail", ["tail", "-n", "50" if len(files) == 1 else "10", *follow, *files])
