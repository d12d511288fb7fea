"""Every page of the console in a browser: how long after the API's last answer it is there, and what that costs.

Over a million work items and three million tasks. An instance of its own, open, without workers, with 100,000 users and
orders beside. People's pages are a manager's, the others an administrator's. Needs Debian's chromium. No peers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from benchmarks.installing import Missing, python_environment
from benchmarks.report import CHECKOUT, OURS, ReportRow
from benchmarks.sites.bench import SITE, fill_items
from benchmarks.system import rows
from benchmarks.tasks.subjects import TaskPlace
from scripts.instance.credentials import Credentials
from scripts.instance.layout import Layout
from scripts.instance.ports import Ports, free_base
from scripts.instance.postgres import EmbeddedPostgres

_REQUIREMENTS = CHECKOUT / "requirements" / "browser.txt"
_PAGES = Path(__file__).with_name("pages.py")
_ITEMS, _QUICK_ITEMS = 1_000_000, 50_000
_TASKS_PER_ITEM = 3
#: Users and orders.
_OTHERS = 100_000
_ROUNDS, _QUICK_ROUNDS = 5, 3
_PATIENCE = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--items", type=int, help=f"work items, to each three tasks ({_ITEMS:,}; quick: {_QUICK_ITEMS:,})"
    )


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    items = arguments.items or (_QUICK_ITEMS if arguments.quick else _ITEMS)
    try:
        if shutil.which("chromium") is None:
            raise Missing("needs Debian's chromium")
        python = python_environment("console", _REQUIREMENTS)
    except Missing as missing:
        return [ReportRow("pages of the console", OURS, "painted", "ms", (), str(missing))]
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="bench-console-")))
        # PostgreSQL may run as another user than we do.
        folder.chmod(0o755)
        base = free_base()
        instance = [sys.executable, "-P", "-m", "scripts.instance", "--data", str(folder / "data")]
        started.callback(subprocess.run, [*instance, "stop"], cwd=CHECKOUT, check=False)
        subprocess.run([*instance, "--port", str(base), "--workers", "0", "--detach"], cwd=CHECKOUT, check=True)
        url = f"http://127.0.0.1:{base}"
        _fill(Layout(folder / "data"), Ports(base), url, items)
        wanted = {"url": url, "rounds": _QUICK_ROUNDS if arguments.quick else _ROUNDS, "pages": _pages(url)}
        found = _visited([str(python), str(_PAGES)], wanted)
    return [
        ReportRow(page, OURS, metric, "ms", tuple(visit[name] for visit in visits))
        for page, visits in found.items()
        for name, metric in (("painted", "painted after the last answer"), ("busy", "the page's main thread"))
    ]


def _fill(layout: Layout, ports: Ports, url: str, items: int) -> None:
    server = EmbeddedPostgres(layout.postgres, ports["postgres"], Credentials(layout.secrets)["postgres"])
    places = {part: TaskPlace(server.url(part), layout.data) for part in (*rows.PARTS, "sites")}
    for part, place in places.items():
        count = {"sites": items, "tasks": items * _TASKS_PER_ITEM}.get(part, _OTHERS)
        print(f"{part}: {count:,}", file=sys.stderr)
        if part == "sites":
            fill_items(place, items)
        else:
            with place.cursor() as cursor:
                rows.fill(cursor, part, count)
            place.settle()
    manager = {"user_id": rows.row_id(1), "role": "manager", "organisation": "Builders"}
    answer = requests.post(f"{url}/sites/{SITE}/members", json=manager, timeout=_PATIENCE)
    answer.raise_for_status()


def _pages(url: str) -> list[tuple[str, str, str | None]]:
    """What each is called, its address, and as whom it is opened."""
    manager = rows.row_id(1)

    def first(path: str, name: str) -> Any:
        answer = requests.get(f"{url}{path}", timeout=_PATIENCE)
        answer.raise_for_status()
        return answer.json()["data"][name][0]

    item = first(f"/work-items?site_id={SITE}&limit=1", "work_items")["id"]
    reports = ("contractors", "ageing", "burndown", "time-to-close", "on-time", "returns", "counts")
    return [
        ("my work", "/items", manager),
        ("all work", "/items?view=all", manager),
        ("an item", f"/items/{item}", manager),
        ("a new item", "/items/new", manager),
        ("sites", "/sites", manager),
        ("the board of a site", f"/sites/{SITE}", manager),
        ("a search on it", f"/sites/{SITE}?q=crack+99", manager),
        *((f"report {name}", f"/reports/{name}?site_id={SITE}", manager) for name in reports),
        ("users", "/users", None),
        ("a user", f"/users/{manager}", None),
        ("orders", "/orders", None),
        ("an order", f"/orders/{rows.row_id(1)}", None),
        ("tasks", "/tasks", None),
        ("a task", f"/tasks/{rows.row_id(1)}", None),
        *((name, f"/{name}", None) for name in ("types", "schedules", "messages", "services")),
    ]


def _visited(command: list[str], wanted: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        said, _ = child.communicate(json.dumps(wanted))
    if child.returncode != 0:
        raise RuntimeError("the browser did not get through the pages")
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for line in said.splitlines():
        visit = json.loads(line)
        found[visit["page"]].append(visit)
    return found
