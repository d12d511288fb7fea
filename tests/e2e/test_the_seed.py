"""What `./scripts/seed` makes."""

from __future__ import annotations

import subprocess
import sys

from scripts.seeding import ORDERS, PEOPLE, TASKS
from scripts.seeding_sites import ITEMS
from tests.support.system import CHECKOUT

_ORDER_STATUSES = ("created", "in_progress", "completed", "cancelled")


def _seed(*options):
    return subprocess.run(
        [sys.executable, "-m", "scripts.seeding", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _totals(system):
    return [system.get(f"/{name}?limit=1").data["total"] for name in ("users", "orders", "tasks")]


def test_the_seed_fills_the_system_and_a_second_run_adds_nothing(system):
    users, orders, tasks = _totals(system)
    items = system.get("/work-items?limit=1").data["total"]
    first = _seed("--url", system.url)
    assert (first.returncode, "already there" in first.stdout) == (0, False), first.stderr
    assert _totals(system) == [users + 30, orders + ORDERS, tasks + TASKS]
    names = {user["name"] for user in system.get("/users?limit=100").data["users"]}
    assert names >= {name for name, _, _ in PEOPLE}

    statuses = [system.get(f"/orders?limit=1&status={status}").data["total"] for status in _ORDER_STATUSES]

    second = _seed("--data", str(system.data))
    assert second.returncode == 0, second.stderr
    counts = (("users", 30), ("orders", ORDERS), ("tasks", TASKS))
    there = [f"{what} {count}/{count}, {count} of them already there" for what, count in counts]
    assert second.stdout.splitlines()[:4] == [*there, f"work items {ITEMS}/{ITEMS}"]
    assert system.get("/work-items?limit=1").data["total"] == items + ITEMS
    assert _totals(system) == [users + 30, orders + ORDERS, tasks + TASKS]
    assert [system.get(f"/orders?limit=1&status={status}").data["total"] for status in _ORDER_STATUSES] == statuses


def test_seeding_a_system_that_is_not_there_is_one_clear_line():
    refused = subprocess.run(
        [sys.executable, "-m", "scripts.seeding", "--url", "http://127.0.0.1:9"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "is the system running?" in refused.stderr
