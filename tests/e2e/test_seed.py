"""`./scripts/seed` fills a running system, and may be run again."""

from __future__ import annotations

import subprocess
import sys

from scripts.seeding import ORDERS, PEOPLE, TASKS
from tests.support.system import CHECKOUT


def _seed(system):
    return subprocess.run(
        [sys.executable, "-m", "scripts.seeding", "--url", system.url],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _totals(system):
    return [system.get(f"/{name}?limit=1").data["total"] for name in ("users", "orders", "tasks")]


def test_it_fills_the_system_and_a_second_run_adds_no_people(system):
    first = _seed(system)
    assert first.returncode == 0, first.stderr
    assert _totals(system) == [30, ORDERS, TASKS]
    names = {user["name"] for user in system.get("/users?limit=100").data["users"]}
    assert names == {name for name, _, _ in PEOPLE}

    second = _seed(system)
    assert second.returncode == 0, second.stderr
    assert _totals(system) == [30, 2 * ORDERS, 2 * TASKS]


def test_a_system_that_is_not_there_is_one_clear_line():
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
