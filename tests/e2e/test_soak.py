"""Two minutes of what ./scripts/soak does for thirty, with the same judges.

Both kinds run beside each other, each with an instance of its own: mostly they wait for processes to come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from scripts.instance.ports import row_length
from scripts.soaking.killing import VICTIMS
from scripts.soaking.report import lines, task_lines
from scripts.soaking.soak import Outcome, soak
from scripts.soaking.task_soak import TASK_VICTIMS, TaskOutcome, task_soak
from tests.support.ports import free_ports

pytestmark = pytest.mark.big

Running = tuple[Future[Outcome], Future[TaskOutcome]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start both."""
    folder, port = tmp_path_factory.mktemp("soak"), free_ports(2 * row_length())
    how = {"seconds": 120.0, "seed": "two minutes", "say": print}
    with ThreadPoolExecutor(2) as pool:
        yield (
            pool.submit(soak, folder / "requests", port, every=11, **how),
            pool.submit(task_soak, folder / "tasks", port + row_length(), every=10, **how),
        )


@pytest.mark.timeout(300)
def test_killing_every_kind_of_process_under_mixed_load_breaks_no_promise(running: Running) -> None:
    outcome = running[0].result()

    print("\n".join(lines(outcome)))
    assert outcome.faults == []
    assert {kill.victim for kill in outcome.kills} == VICTIMS.keys()
    assert {answer.method for answer in outcome.answers} == {
        "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE",
    }  # fmt: skip
    assert all(outcome.promised.values()), "something of each kind was looked for at the end"


@pytest.mark.timeout(300)
def test_every_task_comes_to_one_end_while_workers_database_api_and_gateway_are_killed(running: Running) -> None:
    outcome = running[1].result()

    print("\n".join(task_lines(outcome)))
    assert outcome.faults == []
    assert {kill.victim for kill in outcome.kills} == TASK_VICTIMS.keys()
    counts = outcome.counts
    assert counts.tasks.keys() == {"completed", "failed", "cancelled"}
    assert counts.runs.keys() == {"returned", "raised", "stopped", "cut off"}
    assert all([counts.batches, counts.unclear, counts.existing, counts.cancels, counts.retries]), counts
