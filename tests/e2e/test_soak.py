"""Two minutes of what ./scripts/soak does for thirty, with the same judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.soaking.killing import VICTIMS
from scripts.soaking.report import lines
from scripts.soaking.soak import soak
from tests.support.ports import free_ports

_PORTS_OF_AN_INSTANCE = 7


@pytest.mark.timeout(300)
def test_killing_every_kind_of_process_under_mixed_load_breaks_no_promise(tmp_path: Path) -> None:
    outcome = soak(
        tmp_path / "data", free_ports(_PORTS_OF_AN_INSTANCE), seconds=120, every=11, seed="two minutes", say=print
    )

    print("\n".join(lines(outcome)))
    assert outcome.faults == []
    assert {kill.victim for kill in outcome.kills} == VICTIMS.keys()
    assert {answer.method for answer in outcome.answers} == {
        "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE",
    }  # fmt: skip
    assert all(outcome.promised.values()), "something of each kind was looked for at the end"
