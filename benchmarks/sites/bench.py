"""Work items at the sites service alone: making, stepping, listing, reporting, with few and with many on one site.

One client asks, one request after the other, as an administrator where nobody logs in. No peers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import UUID

import requests

from benchmarks.processes import Process, free_port
from benchmarks.report import CHECKOUT, OURS, ReportRow
from benchmarks.tasks.subjects import Server, TaskPlace
from servicekit.database import migrations
from servicekit.process.ids import new_id

_ITEMS, _QUICK_ITEMS = (1_000, 1_000_000), (1_000, 50_000)
_ROUNDS, _QUICK_ROUNDS = 3, 2
#: Of each kind, and of a report on this many items or more.
_ASKS, _ASKS_OF_REPORTS, _MANY = 200, 20, 10_000
_REPORTS = ("contractors", "burn-down of a year")
_PATIENCE = 10
SITE = UUID("00000000-0000-7000-8000-000000000000")
_ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
#: Ten floors, and the rooms on them.
_ROOMS = 200
_LOCATION = "('00000000-0000-7000-9000-' || lpad(to_hex({}), 12, '0'))::uuid"
#: Three quarters are closed. Whatever was made by a run is newer.
_STATE = "CASE WHEN n %% 4 = 0 THEN 'open' ELSE 'closed' END"
_VERSION = "CASE WHEN n %% 4 = 0 THEN 1 ELSE 3 END"
_TIME = "timestamptz '2025-01-01T00:00:00Z' + n * interval '20 seconds'"
_FILL = f"""
INSERT INTO sites (id, key, name, time_zone, deadline_rules, next_number, change_seq, created_at, updated_at)
VALUES (%(site)s, 'BENCH', 'Bench', 'Europe/Moscow', '{{}}', %(items)s + 1, %(items)s, now(), now());
INSERT INTO locations (id, site_id, parent_id, name, position)
SELECT {_LOCATION.format("n")}, %(site)s, CASE WHEN n > 10 THEN {_LOCATION.format("n %% 10 + 1")} END,
    CASE WHEN n > 10 THEN 'Room ' ELSE 'Floor ' END || n, n FROM generate_series(1, {_ROOMS} + 10) n;
INSERT INTO work_items (id, site_id, number, kind, state, resolution, title, title_key, description, type, subtype,
    root_cause, severity, organisation, assignee_name, author_name, done_by_organisation, subject, requirement_refs,
    location_id, place, axes, due_on, original_due_on, created_at, updated_at, submitted_at, first_closed_at, closed_at,
    reopen_count, version, change_seq, visible_to_customer, tags, created_digest)
SELECT {_ID}, %(site)s, n, 'defect', {_STATE}, CASE WHEN n %% 4 > 0 THEN 'fixed' END, 'Crack ' || n,
    'bench-' || n || chr(10) || 'crack ' || n, 'Above the window.', 'type ' || n %% 10, '', '', 'minor',
    'Contractor ' || n %% 20, '', 'Engineer', '', '', '{{}}',
    {_LOCATION.format(f"n %% {_ROOMS} + 11")}, '', '', ({_TIME})::date + 10, ({_TIME})::date + 10,
    {_TIME}, {_TIME}, {_TIME}, closing.at, closing.at, 0, {_VERSION}, n, n %% 3 = 0, '{{}}',
    decode(repeat('00', 32), 'hex')
FROM generate_series(1, %(items)s) n
CROSS JOIN LATERAL (SELECT CASE WHEN n %% 4 > 0 THEN {_TIME} + interval '5 days' END AS at) closing;
INSERT INTO history (site_id, item_id, change_seq, version, step, from_state, to_state, organisation, assignee_name,
    due_on, original_due_on, visible_to_customer, changes, reason, note, actor_name, actor_role, actor_organisation,
    actor_position, override, at, contractor_seconds)
SELECT i.site_id, i.id, i.change_seq, step.version, step.name, step.before, step.after, i.organisation, '', i.due_on,
    i.due_on, i.visible_to_customer, '{{}}', '', '', 'Engineer', 'engineer', '', '', false, step.at, step.seconds
FROM work_items i CROSS JOIN LATERAL (
    VALUES (1, 'created', NULL, 'open', i.created_at, 0),
        (2, 'report_done', 'open', 'ready', i.created_at + interval '4 days', 4 * 86400),
        (3, 'accept', 'ready', 'closed', i.closed_at, 4 * 86400)
) step (version, name, before, after, at, seconds) WHERE step.version <= i.version
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--items", type=int, nargs="+", help="how many there are (1,000 and 1,000,000; quick: 50,000)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    sizes = arguments.items or (_QUICK_ITEMS if arguments.quick else _ITEMS)
    rounds = _QUICK_ROUNDS if arguments.quick else _ROUNDS
    rows: list[ReportRow] = []
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="bench-sites-")))
        # PostgreSQL may run as another user than we do.
        folder.chmod(0o755)
        server = Server(folder, free_port())
        server.start()
        started.callback(server.stop)
        for items in sizes:
            print(f"{items:,} items", file=sys.stderr)
            place = server.empty_place()
            migrations.upgrade("service_sites", place.url)
            fill_items(place, items)
            with ExitStack() as running:
                base = _service(running, place, folder)
                found = [_measured(base, items) for _ in range(rounds)]
            for work in found[0]:
                for at, metric in enumerate(("p50 latency", "p99 latency")):
                    values = tuple(one[work][at] for one in found)
                    rows.append(ReportRow(f"{work}, {items:,} items", OURS, metric, "ms", values))
    return rows


def fill_items(place: TaskPlace, items: int) -> None:
    """One site with so many."""
    with place.cursor() as cursor:
        # To make such an index of all rows takes a fraction of the time that it takes row by row.
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_work_items_trigrams'")
        (definition,) = cursor.fetchone()
        cursor.execute("DROP INDEX ix_work_items_trigrams")
        cursor.execute(_FILL, {"site": str(SITE), "items": items})
        cursor.execute("SET maintenance_work_mem = '256MB'")
        cursor.execute(definition)
    place.settle()


def _service(running: ExitStack, place: TaskPlace, folder: Path) -> str:
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        "LOG_FORMAT": "json",
        "AUTH": "off",
        "INTERNAL_TOKEN": "of-a-benchmark-alone",
        "SITES_BIND": f"127.0.0.1:{port}",
        "SITES_DATABASE_URL": place.url,
    }
    process = Process(
        [sys.executable, "-P", "-m", "servicekit.web.serve", "sites"],
        port=port,
        output=folder / "sites.log",
        on=None,
        cwd=CHECKOUT,
        environment=environment,
    )
    running.callback(process.stop)
    return f"http://127.0.0.1:{port}"


def _measured(base: str, items: int) -> dict[str, tuple[float, float]]:
    """The median and the 99th percentile of each kind of request, in milliseconds."""
    with requests.Session() as session:
        session.trust_env = False

        def ask(method: str, path: str, body: Any = None, **fields: str) -> Any:
            answer = session.request(method, base + path, json=body, headers=fields, timeout=_PATIENCE)
            if answer.status_code >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return answer.json()["data"]

        made: list[str] = []
        of_site = f"site_id={SITE}"

        def create() -> None:
            body = {"title": "Crack above the window", "reason": "a benchmark"}
            made.append(ask("POST", f"/sites/{SITE}/work-items", body)["id"])

        turns = count()

        def step() -> None:
            body = {"step": "start", "op_id": str(new_id()), "reason": "a benchmark"}
            ask("POST", f"/work-items/{made[next(turns)]}/steps", body, **{"If-Match": '"1"'})

        cursor = ask("GET", f"/sites/{SITE}/changes?limit=1")["cursor"]
        works: dict[str, Callable[[], Any]] = {
            "create": create,
            "step": step,
            "list of 50": lambda: ask("GET", f"/work-items?{of_site}"),
            "list of 50, overdue by date": lambda: ask("GET", f"/work-items?{of_site}&overdue=true&sort=due_on"),
            "feed of 100": lambda: ask("GET", f"/sites/{SITE}/changes?since={cursor}"),
            "contractors": lambda: ask("GET", f"/reports/contractors?{of_site}"),
            "burn-down of a year": lambda: ask("GET", f"/reports/burndown?{of_site}&from=2025-01-01&to=2025-12-31"),
        }
        return {
            name: _times(work, _ASKS_OF_REPORTS if items >= _MANY and name in _REPORTS else _ASKS)
            for name, work in works.items()
        }


def _times(work: Callable[[], Any], asks: int) -> tuple[float, float]:
    def took() -> Iterator[float]:
        for _ in range(asks):
            began = time.perf_counter()
            work()
            yield (time.perf_counter() - began) * 1000

    found = quantiles(took(), n=100, method="inclusive")
    return found[49], found[98]
